//! Safety numbers: two people make sure that nobody stands between them (W§16).

use std::error::Error;
use tuckseal::*;

fn main() -> Result<(), Box<dyn Error>> {
    let (alice, bob) = (account(1)?, account(2)?);

    // Each device computes the number from both account ids and both identity keys.
    let at_alice = Fingerprint::of_accounts(alice, bob);
    let at_bob = Fingerprint::of_accounts(bob, alice);
    println!("Alice sees          {at_alice:#}");
    println!("Bob sees            {at_bob:#}");

    // Read aloud, or scanned: what Bob's device shows as a code, Alice's compares.
    let code = at_bob.encode();
    println!("a code to scan      {} bytes", code.len());
    println!("Alice scans it      {:?}", at_alice.compare(&code)?);
    println!("to save             Bob's identity key, as one that a person has verified");

    // A relay that gave Alice another key for Bob is found out.
    let mallory = account(3)?;
    let deceived = Fingerprint::of_accounts(alice, (bob.0, mallory.1));
    println!("with a wrong key    {deceived:#}");
    println!("Alice scans Bob     {:?}", deceived.compare(&code)?);

    // A code of an older app cannot be compared; that says nothing about keys.
    let by_phone = |id, identity_key| FingerprintParty { id, identity_key };
    let older = Fingerprint::new(
        1,
        Iterations::DEFAULT,
        by_phone(b"+15550102", bob.1),
        by_phone(b"+15550101", alice.1),
    );
    println!("an older app        {}", at_alice.compare(&older.encode()).err().ok_or("compared")?);
    Ok(())
}

/// An account with a key of its own; real ones come from `IdentityKeyPair::generate`.
fn account(number: u8) -> Result<(ServiceId, IdentityKey), KeyError> {
    let identity = IdentityKeyPair::from(PrivateKey::from_bytes(&[number; 32])?);
    Ok((ServiceId::aci([number; 16]), identity.identity_key()))
}
