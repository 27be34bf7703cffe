//! Lost and late: what the network does to messages, and what each error asks you to do (W§8.7).

use rand::rngs::StdRng;
use std::error::Error;
use tuckseal::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng: StdRng = rand::make_rng();
    let (alice, bob) = (party(1, &mut rng), party(2, &mut rng));
    let (mut at_alice, mut at_bob) = begin(&alice, &bob, &mut rng)?;
    let trust = Trust::FirstUse;

    let mut send = |text: &str, rng: &mut StdRng| -> Result<Vec<u8>, EncryptError> {
        Ok(at_alice.encrypt(&alice, &bob.address, text.as_bytes(), trust, rng, NOW)?.body)
    };
    let mut read = |body: &[u8], rng: &mut StdRng| -> Result<String, Box<dyn Error>> {
        let message = PreKeySignalMessage::decode(body)?; // Bob has not answered yet
        let before = at_bob.encode();
        let (from, policy) = (&alice.address, AgreementPolicy::RequireSpqr);
        match at_bob.decrypt_first(&bob, from, &message, PreKeys::NONE, trust, policy, rng) {
            Ok(read) => Ok(String::from_utf8(read.plaintext)?),
            Err(error) => {
                assert_eq!(*at_bob.encode(), *before, "an error changes nothing");
                Ok(format!("error: {error}"))
            }
        }
    };

    let one = send("one", &mut rng)?;
    let two = send("two", &mut rng)?;
    let _lost = send("three", &mut rng)?;
    let four = send("four", &mut rng)?;
    println!("out of order        {}", read(&two, &mut rng)?);
    println!("after a loss        {}", read(&four, &mut rng)?);
    println!("late                {}", read(&one, &mut rng)?);
    println!("the same again      {}", read(&one, &mut rng)?);

    let mut changed = send("five", &mut rng)?;
    if let Some(byte) = changed.get_mut(100) {
        *byte ^= 1; // in the ratchet key of the message inside
    }
    println!("changed on its way  {}", read(&changed, &mut rng)?);

    for _ in 0..25_000 {
        send("lost", &mut rng)?;
    }
    println!("too many lost       {}", read(&send("far", &mut rng)?, &mut rng)?);
    Ok(())
}

/// A session that Alice began: see 02_handshake.
fn begin(
    alice: &LocalParty,
    bob: &LocalParty,
    rng: &mut StdRng,
) -> Result<(SessionRecord, SessionRecord), Box<dyn Error>> {
    let signed = SignedPreKey::generate(SignedPreKeyId(1), &bob.identity, rng, NOW);
    let kem = KemPreKey::generate(KemPreKeyId(1), &bob.identity, rng, NOW);
    let bundle = PreKeyBundle {
        registration_id: bob.registration_id,
        device_id: bob.address.device_id,
        identity_key: bob.identity.identity_key(),
        signed_prekey: signed.public(),
        one_time: None,
        kem: Some(kem.public()),
    };
    let (trust, policy) = (Trust::FirstUse, AgreementPolicy::RequireSpqr);
    let (mut at_alice, mut at_bob) = (SessionRecord::new(), SessionRecord::new());
    at_alice.initiate(alice, &bob.address, &bundle, trust, policy, rng, NOW)?;
    let first = at_alice.encrypt(alice, &bob.address, b"Hello", trust, rng, NOW)?;
    let message = PreKeySignalMessage::decode(&first.body)?;
    let prekeys = PreKeys { signed: Some(&signed), kem: Some(&kem), ..PreKeys::NONE };
    at_bob.decrypt_first(bob, &alice.address, &message, prekeys, trust, policy, rng)?;
    Ok((at_alice, at_bob))
}

fn party(account: u8, rng: &mut StdRng) -> LocalParty {
    let identity = IdentityKeyPair::generate(rng);
    let address = Address::new(ServiceId::aci([account; 16]), DeviceId::PRIMARY);
    LocalParty { identity, registration_id: account.into(), address }
}
