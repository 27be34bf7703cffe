//! A group: one ciphertext for all, sealed once, split by the relay; who leaves reads no more (W§12, 15).

use rand::rngs::StdRng;
use std::error::Error;
use tuckseal::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const GROUP: [u8; 16] = [7; 16];

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng: StdRng = rand::make_rng();
    let [alice, bob, carol] = [1, 2, 3].map(|account| party(account, &mut rng));

    // Alice makes a key for this group. Each member gets it through their session with her (03).
    let mut key = SenderKey::generate(GROUP, &mut rng);
    let told = key.distribution_message().encode();
    let (mut at_bob, mut at_carol) = (SenderKeyRecord::new(), SenderKeyRecord::new());
    for record in [&mut at_bob, &mut at_carol] {
        record.process(&SenderKeyDistributionMessage::decode(&told)?);
    }
    println!("to save             Alice's key {} bytes", key.encode().len());
    println!("                    what a member knows of her {} bytes", at_bob.encode().len());

    // A message is encrypted once and sealed once. Her key is saved before it leaves.
    let content = SealedContent {
        kind: ContentKind::SenderKey,
        sender: certificate(&alice, &mut rng),
        content: key.encrypt(b"Lunch at one?", &mut rng)?.into(),
        hint: ContentHint::Resendable,
        group_id: Some(GROUP.to_vec().into()),
    };
    let recipients = [&bob, &carol].map(|member| SealedRecipient {
        service_id: member.address.service_id,
        identity: member.identity.identity_key(),
        devices: vec![RecipientDevice {
            device_id: member.address.device_id,
            registration_id: member.registration_id,
        }],
    });
    let upload = seal_v2_multi(&content, &alice.identity, &recipients, &[], &mut rng)?;

    // The relay splits it. It learns who receives, and neither who sent nor in which group.
    let upload = SentMessage::decode(&upload)?;
    println!("the relay           makes of one upload {}", upload.recipients().len());
    let members = [("Bob", &bob, &mut at_bob), ("Carol", &carol, &mut at_carol)];
    for (to, (name, member, record)) in upload.recipients().iter().zip(members) {
        println!("to {name:<16} {} bytes of their own, the rest shared", to.head().len());
        // Who it is from is asked as ever (06); the record is the one of that sender and group.
        let opened = open(&upload.received(to), &member.identity)?;
        let read = record.decrypt(&SenderKeyMessage::decode(&opened.content)?)?;
        println!("{name:<19} reads {:?}", String::from_utf8(read)?);
    }

    // Carol leaves. What she was told cannot be taken back: the others get a new key.
    key = SenderKey::generate(GROUP, &mut rng);
    let told = key.distribution_message().encode();
    at_bob.process(&SenderKeyDistributionMessage::decode(&told)?);
    let message = SenderKeyMessage::decode(&key.encrypt(b"Just us two.", &mut rng)?)?;
    println!("Bob                 reads {:?}", String::from_utf8(at_bob.decrypt(&message)?)?);
    let refused = matches!(at_carol.decrypt(&message), Err(GroupDecryptError::UnknownChain { .. }));
    println!("Carol               has no key for it: {refused}");
    Ok(())
}

/// What the server signs for a sender (06).
fn certificate(sender: &LocalParty, rng: &mut StdRng) -> SenderCertificate {
    let (root, server_key) = (PrivateKey::generate(rng), PrivateKey::generate(rng));
    let server = ServerCertificate::issue(1, &server_key.public_key(), &root, rng);
    let fields = SenderFields {
        service_id: sender.address.service_id,
        e164: None,
        device_id: sender.address.device_id,
        identity_key: sender.identity.identity_key(),
        expires: NOW,
    };
    SenderCertificate::issue(fields, &server, &server_key, rng)
}

fn party(account: u8, rng: &mut StdRng) -> LocalParty {
    let identity = IdentityKeyPair::generate(rng);
    let address = Address::new(ServiceId::aci([account; 16]), DeviceId::PRIMARY);
    LocalParty { identity, registration_id: account.into(), address }
}
