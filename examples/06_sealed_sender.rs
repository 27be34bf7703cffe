//! Sealed sender: the relay carries an envelope and does not learn who wrote it (W§13, 14).

use rand::rngs::StdRng;
use std::error::Error;
use tuckseal::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const TOMORROW: Timestamp = Timestamp::from_millis(1_700_086_400_000);

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng: StdRng = rand::make_rng();
    let (alice, bob) = (party(1, &mut rng), party(2, &mut rng));
    let policy = AgreementPolicy::RequireSpqr;

    // Once: an offline trust root signs the server's key. Clients ship with the root's public key.
    let root = PrivateKey::generate(&mut rng);
    let server_key = PrivateKey::generate(&mut rng);
    let server = ServerCertificate::issue(1, &server_key.public_key(), &root, &mut rng);
    println!("server certificate  {} bytes, signed by the trust root", server.encode().len());
    // Each day: the server certifies Alice's account, device and identity key.
    let fields = SenderFields {
        service_id: alice.address.service_id,
        e164: None,
        device_id: alice.address.device_id,
        identity_key: alice.identity.identity_key(),
        expires: TOMORROW,
    };
    let certificate = SenderCertificate::issue(fields, &server, &server_key, &mut rng);
    println!("sender certificate  {} bytes, valid for a day", certificate.encode().len());
    // Alice begins a session as ever, and puts what she would have sent into an envelope.
    let signed = SignedPreKey::generate(SignedPreKeyId(1), &bob.identity, &mut rng, NOW);
    let kem = KemPreKey::generate(KemPreKeyId(1), &bob.identity, &mut rng, NOW);
    let bundle = PreKeyBundle {
        registration_id: bob.registration_id,
        device_id: bob.address.device_id,
        identity_key: bob.identity.identity_key(),
        signed_prekey: signed.public(),
        one_time: None,
        kem: Some(kem.public()),
    };
    let (trust, mut with_bob) = (Trust::FirstUse, SessionRecord::new());
    with_bob.initiate(&alice, &bob.address, &bundle, trust, policy, &mut rng, NOW)?;
    let message = with_bob.encrypt(&alice, &bob.address, b"It is me.", trust, &mut rng, NOW)?;
    let content = SealedContent {
        kind: ContentKind::PreKey,
        sender: certificate,
        content: message.body.into(),
        hint: ContentHint::Resendable,
        group_id: None,
    };
    let sealed = seal_v1(&content, &alice.identity, &bundle.identity_key, &mut rng)?;
    println!(
        "over the wire       {} bytes, of them {} message",
        sealed.len(),
        content.content.len()
    );
    let seen = sealed.windows(33).any(|part| part == alice.identity.identity_key().serialize());
    println!("the relay sees      Alice's identity key in it: {seen}");

    // Bob opens it, asks who it is from, and only then gives the message to the session.
    let opened = open(&sealed, &bob.identity)?;
    let sender = opened.authenticate(&[root.public_key()], &[], &bob.address, None, NOW)?;
    let first = PreKeySignalMessage::decode(&opened.content)?;
    let prekeys = PreKeys { signed: Some(&signed), kem: Some(&kem), ..PreKeys::NONE };
    let read = SessionRecord::new()
        .decrypt_first(&bob, &sender, &first, prekeys, trust, policy, &mut rng)?;
    println!("Bob reads           {:?} from {sender}", String::from_utf8(read.plaintext)?);

    let late = Timestamp::from_millis(TOMORROW.as_millis() + 1);
    let refused = opened.authenticate(&[root.public_key()], &[], &bob.address, None, late);
    println!("a day later         {}", refused.err().ok_or("an old certificate was believed")?);
    Ok(())
}

fn party(account: u8, rng: &mut StdRng) -> LocalParty {
    let identity = IdentityKeyPair::generate(rng);
    let address = Address::new(ServiceId::aci([account; 16]), DeviceId::PRIMARY);
    LocalParty { identity, registration_id: account.into(), address }
}
