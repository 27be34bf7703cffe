//! Conversation: through the reply and on, with the record saved and loaded around each message (W§8, 11).

use rand::rngs::StdRng;
use std::error::Error;
use tuckseal::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// What an app keeps for one conversation. `record` is a row in its database.
struct Side {
    local: LocalParty,
    peer: Address,
    record: Vec<u8>,
}

impl Side {
    fn send(&mut self, text: &str, rng: &mut StdRng) -> Result<Encrypted, Box<dyn Error>> {
        let mut record = SessionRecord::decode(&self.record)?;
        let sent =
            record.encrypt(&self.local, &self.peer, text.as_bytes(), Trust::FirstUse, rng, NOW)?;
        self.record = record.encode().to_vec(); // saved, with the message, before it leaves
        Ok(sent)
    }

    fn read(&mut self, sent: &Encrypted, rng: &mut StdRng) -> Result<String, Box<dyn Error>> {
        let mut record = SessionRecord::decode(&self.record)?;
        let message = SignalMessage::decode(&sent.body)?;
        let read = record.decrypt(&self.local, &self.peer, &message, Trust::FirstUse, rng)?;
        self.record = record.encode().to_vec(); // saved, with the plaintext, before it is acknowledged
        Ok(String::from_utf8(read.plaintext)?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng: StdRng = rand::make_rng();
    let (mut alice, mut bob) = begin(&mut rng)?;

    for (question, answer) in [("Lunch?", "Gladly."), ("At one?", "Make it two.")] {
        let sent = alice.send(question, &mut rng)?;
        println!(
            "Alice -> Bob        {:?}, {} bytes: {}",
            sent.kind,
            sent.body.len(),
            bob.read(&sent, &mut rng)?
        );
        let sent = bob.send(answer, &mut rng)?;
        println!(
            "Bob -> Alice        {:?}, {} bytes: {}",
            sent.kind,
            sent.body.len(),
            alice.read(&sent, &mut rng)?
        );
    }
    let info = SessionRecord::decode(&alice.record)?.info().ok_or("no session")?;
    println!("session             {:?}, awaiting reply: {}", info.version, info.awaiting_reply);
    println!("a record            {} bytes", alice.record.len());
    Ok(())
}

/// A session that Alice began and Bob has answered: see 02_handshake.
fn begin(rng: &mut StdRng) -> Result<(Side, Side), Box<dyn Error>> {
    let (alice, bob) = (party(1, rng), party(2, rng));
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
    let (mut with_bob, mut with_alice) = (SessionRecord::new(), SessionRecord::new());
    with_bob.initiate(&alice, &bob.address, &bundle, trust, policy, rng, NOW)?;
    let first = with_bob.encrypt(&alice, &bob.address, b"Hello", trust, rng, NOW)?;
    let message = PreKeySignalMessage::decode(&first.body)?;
    let prekeys = PreKeys { signed: Some(&signed), kem: Some(&kem), ..PreKeys::NONE };
    with_alice.decrypt_first(&bob, &alice.address, &message, prekeys, trust, policy, rng)?;
    let (to_alice, to_bob) = (alice.address, bob.address);
    let mut bob = Side { local: bob, peer: to_alice, record: with_alice.encode().to_vec() };
    let mut alice = Side { local: alice, peer: to_bob, record: with_bob.encode().to_vec() };
    let answer = bob.send("Hello back", rng)?;
    alice.read(&answer, rng)?;
    Ok((alice, bob))
}

fn party(account: u8, rng: &mut StdRng) -> LocalParty {
    let identity = IdentityKeyPair::generate(rng);
    let address = Address::new(ServiceId::aci([account; 16]), DeviceId::PRIMARY);
    LocalParty { identity, registration_id: account.into(), address }
}
