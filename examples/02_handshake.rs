//! Handshake: Bob publishes prekeys, Alice begins a session by PQXDH without Bob being online (W§6, 7).

use rand::rngs::StdRng;
use std::error::Error;
use tuckseal::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng: StdRng = rand::make_rng();
    let (alice, bob) = (party(1, &mut rng), party(2, &mut rng));

    // Bob saves the private halves BEFORE he uploads the public ones.
    let signed = SignedPreKey::generate(SignedPreKeyId(1), &bob.identity, &mut rng, NOW);
    let one_time = PreKey::generate(PreKeyId(1), &mut rng);
    let kem = KemPreKey::generate(KemPreKeyId(1), &bob.identity, &mut rng, NOW);
    let bundle = PreKeyBundle {
        registration_id: bob.registration_id,
        device_id: bob.address.device_id,
        identity_key: bob.identity.identity_key(),
        signed_prekey: signed.public(),
        one_time: Some(one_time.public()),
        kem: Some(kem.public()),
    };
    println!("signed prekey       {} bytes", signed.pair.public().serialize().len());
    println!("KEM prekey          {} bytes", kem.pair.public().serialize().len());

    // Alice fetched the bundle. A bundle without a KEM prekey is refused unless she says otherwise.
    let (trust, policy) = (Trust::FirstUse, AgreementPolicy::RequireSpqr);
    let mut with_bob = SessionRecord::new();
    let old = PreKeyBundle { kem: None, ..bundle.clone() };
    let refused = with_bob.initiate(&alice, &bob.address, &old, trust, policy, &mut rng, NOW);
    println!("without KEM prekey  {}", refused.err().ok_or("taken")?);
    with_bob.initiate(&alice, &bob.address, &bundle, trust, policy, &mut rng, NOW)?;
    let first = with_bob.encrypt(&alice, &bob.address, b"Hello, Bob", trust, &mut rng, NOW)?;
    println!("first message       {} bytes, {:?}", first.body.len(), first.kind);
    println!("to save (Alice)     the record: {} bytes", with_bob.encode().len());

    // Bob asks the message which prekeys it needs, loads them, and decrypts.
    let message = PreKeySignalMessage::decode(&first.body)?;
    let needs = message.needs();
    println!(
        "needs               signed {}, one-time {:?}, KEM {:?}",
        needs.signed, needs.one_time, needs.kem
    );
    let prekeys = PreKeys {
        signed: Some(&signed),
        one_time: Some(&one_time),
        kem: Some(&kem),
        base_key: BaseKeyUse::First,
    };
    let mut with_alice = SessionRecord::new();
    let from = alice.address;
    let read = with_alice.decrypt_first(&bob, &from, &message, prekeys, trust, policy, &mut rng)?;
    println!("Bob reads           {:?}", String::from_utf8(read.plaintext)?);
    let consumed = read.consumed.ok_or("a new session uses up prekeys")?;
    println!("to delete (Bob)     one-time {:?}, KEM {:?}", consumed.one_time, consumed.kem);
    println!(
        "to save (Bob)       the record, Alice's identity and the plaintext, in one transaction"
    );
    Ok(())
}

fn party(account: u8, rng: &mut StdRng) -> LocalParty {
    let identity = IdentityKeyPair::generate(rng);
    let address = Address::new(ServiceId::aci([account; 16]), DeviceId::PRIMARY);
    LocalParty { identity, registration_id: account.into(), address }
}
