//! Identity: a key for life, a signature, and one identity that vouches for another (W§2, 3, 5).

use rand::rngs::StdRng;
use std::error::Error;
use tuckseal::*;

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng: StdRng = rand::make_rng();

    // Made once, when the app is set up. Save the private key, encrypted; peers know the public one.
    let alice = IdentityKeyPair::generate(&mut rng);
    let saved = alice.private_key().to_bytes();
    println!("to save             {} secret bytes", saved.len());
    let public = alice.identity_key().serialize();
    println!("to publish          {} bytes, the first is {:#04x}", public.len(), public[0]);

    // After a restart it is the same identity.
    let restored = IdentityKeyPair::from(PrivateKey::from_bytes(&*saved)?);
    println!("restored            {}", restored.identity_key() == alice.identity_key());

    // The identity signs what belongs to it: its prekeys, a registration.
    let signature = alice.private_key().sign(b"this prekey is mine", &mut rng);
    let key = IdentityKey::decode(&public)?;
    key.public_key().verify_signature(b"this prekey is mine", &signature)?;
    println!("signature           {} bytes, verified", signature.len());
    let forged = key.public_key().verify_signature(b"that prekey is mine", &signature);
    println!("another message     {}", forged.err().ok_or("a forgery was believed")?);

    // An account with a second identity, for its phone number, lets the one vouch for the other.
    let by_number = IdentityKeyPair::generate(&mut rng);
    let vouched = by_number.sign_alternate_identity(&alice.identity_key(), &mut rng);
    by_number.identity_key().verify_alternate_identity(&alice.identity_key(), &vouched)?;
    println!("alternate identity  verified");

    // What cannot be a key says so.
    println!("a short key         {}", PublicKey::decode(&[5, 1, 2]).err().ok_or("taken")?);
    Ok(())
}
