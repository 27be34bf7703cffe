//! A secret from one device to another of the same person, such as the identity key of the account that a new device is linked
//! to. Our own format, since each software of the field has its own.
//!
//! ```text
//! 0x01 · ephemeral public: 33 · AES-256-GCM-SIV of the secret, nonce zero, no associated data: n + 16
//! key: HKDF-SHA-256(salt none, ikm DH(ephemeral, recipient), info "tuckseal-provisioning-v1" · ephemeral public · recipient public), 32 bytes
//! ```
//!
//! Only the recipient's key opens it, and each has a key of its own. **It does not say who made it**: whoever has the public key
//! can. What the secret says is believed because a person has carried the public key to the other device and the
//! sealed secret back.

use crate::crypto::cipher::{SIV_TAG, siv_open, siv_seal};
use crate::crypto::kdf::hkdf;
use crate::crypto::secret::Secret;
use crate::crypto::{KeyError, KeyPair, PublicKey};
use alloc::vec::Vec;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const LABEL: &[u8] = b"tuckseal-provisioning-v1";
const HEAD: usize = 1 + PublicKey::SERIALIZED_LEN;

/// Bytes that sealing adds: 50.
pub const PROVISIONING_OVERHEAD: usize = HEAD + SIV_TAG;

/// Why a sealed secret cannot be opened. The key is not used up by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisioningError {
    /// Shorter than an empty one, or its ephemeral key is none.
    #[error("it is cut off, or is something else: copy it again, as a whole")]
    Malformed,
    /// Made by a later release.
    #[error(
        "it has version {found}, which this release does not read: use the release that made it"
    )]
    Version {
        /// Its first byte.
        found: u8,
    },
    /// For another key, or changed on the way.
    #[error("it was made for another device or another attempt: begin again on both devices")]
    NotForUs,
}

/// Seals a secret for the one who has the private key. Draws 32 bytes; two scalar multiplications.
///
/// # Errors
/// [`KeyError::LowOrder`] when the recipient's key has low order: nobody's key has.
pub fn seal_for_device(
    secret: &[u8],
    recipient: &PublicKey,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, KeyError> {
    let ephemeral = KeyPair::generate(rng);
    let shared = ephemeral.private().agree(recipient)?;
    let key = derive(shared.as_bytes(), ephemeral.public(), recipient);
    let mut sealed = Vec::with_capacity(PROVISIONING_OVERHEAD + secret.len());
    sealed.push(VERSION);
    sealed.extend_from_slice(&ephemeral.public().serialize());
    sealed.extend_from_slice(secret);
    let (_, body) = sealed.split_at_mut(HEAD);
    let tag = siv_seal(&key, body);
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// Opens what [`seal_for_device`] sealed for this key. Wiped when dropped.
///
/// # Errors
/// [`ProvisioningError`].
pub fn open_for_device(
    sealed: &[u8],
    recipient: &KeyPair,
) -> Result<Zeroizing<Vec<u8>>, ProvisioningError> {
    let (&found, rest) = sealed.split_first().ok_or(ProvisioningError::Malformed)?;
    if found != VERSION {
        return Err(ProvisioningError::Version { found });
    }
    let (ephemeral, rest) = rest
        .split_first_chunk::<{ PublicKey::SERIALIZED_LEN }>()
        .ok_or(ProvisioningError::Malformed)?;
    let (body, tag) = rest.split_last_chunk().ok_or(ProvisioningError::Malformed)?;
    let malformed = |_| ProvisioningError::Malformed;
    let ephemeral = PublicKey::decode(ephemeral).map_err(malformed)?;
    let shared = recipient.private().agree(&ephemeral).map_err(malformed)?;
    let key = derive(shared.as_bytes(), &ephemeral, recipient.public());
    let mut secret = Zeroizing::new(body.to_vec());
    if siv_open(&key, &mut secret, tag) { Ok(secret) } else { Err(ProvisioningError::NotForUs) }
}

fn derive(shared: &[u8; 32], ephemeral: &PublicKey, recipient: &PublicKey) -> Secret<32> {
    let mut info = Vec::with_capacity(LABEL.len() + 2 * PublicKey::SERIALIZED_LEN);
    info.extend_from_slice(LABEL);
    info.extend_from_slice(&ephemeral.serialize());
    info.extend_from_slice(&recipient.serialize());
    hkdf(None, shared, &info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([7; 32])
    }

    #[test]
    fn a_secret_of_any_length_comes_through() {
        let mut rng = rng();
        let device = KeyPair::generate(&mut rng);
        for len in [0, 1, 31, 300] {
            let secret: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let sealed = seal_for_device(&secret, device.public(), &mut rng).unwrap();
            assert_eq!(sealed.len(), secret.len() + PROVISIONING_OVERHEAD);
            assert_eq!(*open_for_device(&sealed, &device).unwrap(), secret);
        }
    }

    #[test]
    fn a_changed_a_cut_and_a_foreign_one_are_told_apart_and_refused() {
        let mut rng = rng();
        let [device, other] = [(); 2].map(|()| KeyPair::generate(&mut rng));
        let sealed = seal_for_device(b"identity", device.public(), &mut rng).unwrap();
        assert_eq!(open_for_device(&sealed, &other), Err(ProvisioningError::NotForUs));
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(open_for_device(&changed, &device).is_err(), "byte {place}");
        }
        for len in 0..PROVISIONING_OVERHEAD {
            let cut = open_for_device(&sealed[..len], &device);
            assert_eq!(cut, Err(ProvisioningError::Malformed), "{len} bytes");
        }
        let cut = open_for_device(&sealed[..sealed.len() - 1], &device);
        assert_eq!(cut, Err(ProvisioningError::NotForUs));
        let newer = [&[2], &sealed[1..]].concat();
        assert_eq!(open_for_device(&newer, &device), Err(ProvisioningError::Version { found: 2 }));
        let low = PublicKey::decode(&[&[5][..], &[0; 32]].concat()).unwrap();
        assert_eq!(seal_for_device(b"", &low, &mut rng), Err(KeyError::LowOrder));
    }

    /// The same by the crates alone: nothing of what is above can change unseen.
    #[test]
    fn the_format_is_what_is_written_above() {
        use aes_gcm_siv::{Aes256GcmSiv, KeyInit, aead::Aead};
        let device = KeyPair::generate(&mut rng());
        let sealed = seal_for_device(b"identity", device.public(), &mut rng()).unwrap();
        let (head, body) = sealed.split_at(34);
        assert_eq!(head[..2], [1, 5]);
        let private = x25519_dalek::StaticSecret::from(*device.private().to_bytes());
        let ephemeral: [u8; 32] = head[2..].try_into().unwrap();
        let shared = private.diffie_hellman(&ephemeral.into());
        let info = [b"tuckseal-provisioning-v1", &head[1..], &device.public().serialize()].concat();
        let mut key = [0; 32];
        hkdf::Hkdf::<sha2::Sha256>::new(None, shared.as_bytes()).expand(&info, &mut key).unwrap();
        let opened = Aes256GcmSiv::new(&key.into()).decrypt(&[0; 12].into(), body).unwrap();
        assert_eq!(opened, b"identity");
    }
}
