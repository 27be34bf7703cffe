//! X3DH (version 3) and PQXDH (version 4): one table of secrets, two labels (W§7.1–7.2).
//! What is checked before, and what the result becomes, is in `session/establish.rs`.

use crate::crypto::curve::{SharedSecret, concat_secrets};
use crate::crypto::kdf::hkdf;
use crate::crypto::secret::Secret;
use crate::crypto::{KemCiphertext, KemKeyPair, KeyError, KeyPair, PublicKey};
use crate::identity::{IdentityKey, IdentityKeyPair};
use crate::keys::{ChainKey, PqrKey, RootKey};
use crate::prekey::PreKeyBundle;
use rand_core::CryptoRng;

/// What both sides hold after the agreement.
pub(crate) struct Agreed {
    pub(crate) root: RootKey,
    pub(crate) chain: ChainKey,
    /// Only in version 4: seeds the post-quantum ratchet.
    pub(crate) pqr: Option<PqrKey>,
}

/// The initiator's half: what it agreed on and the KEM ciphertext that tells the other side.
pub(crate) struct Initiated {
    pub(crate) agreed: Agreed,
    pub(crate) kem_ciphertext: Option<KemCiphertext>,
}

/// Alice's column of W§7.1. Draws 32 bytes when the bundle has a KEM prekey.
pub(crate) fn initiate(
    identity: &IdentityKeyPair,
    base: &KeyPair,
    bundle: &PreKeyBundle,
    rng: &mut impl CryptoRng,
) -> Result<Initiated, KeyError> {
    let signed = &bundle.signed_prekey.key;
    let base_key = base.private();
    let dhs = Dhs {
        identity_signed: identity.private_key().agree(signed)?,
        base_identity: base_key.agree(bundle.identity_key.public_key())?,
        base_signed: base_key.agree(signed)?,
        base_one_time: bundle.one_time.map(|prekey| base_key.agree(&prekey.key)).transpose()?,
    };
    let (kem_ciphertext, kem) = match &bundle.kem {
        Some(prekey) => {
            let (ciphertext, shared) = prekey.key.encapsulate(rng);
            (Some(ciphertext), Some(shared))
        }
        None => (None, None),
    };
    Ok(Initiated { agreed: dhs.derive(kem.as_ref()), kem_ciphertext })
}

/// The prekeys that a first message names, found by the responder.
pub(crate) struct ResponderKeys<'a> {
    pub(crate) identity: &'a IdentityKeyPair,
    pub(crate) signed: &'a KeyPair,
    pub(crate) one_time: Option<&'a KeyPair>,
    /// The KEM pair and the ciphertext as received; type and length are judged after the DHs (P7).
    pub(crate) kem: Option<(&'a KemKeyPair, &'a [u8])>,
}

/// Bob's column of W§7.1.
pub(crate) fn respond(
    keys: &ResponderKeys<'_>,
    their_identity: &IdentityKey,
    base_key: &PublicKey,
) -> Result<Agreed, KeyError> {
    let signed = keys.signed.private();
    let dhs = Dhs {
        identity_signed: signed.agree(their_identity.public_key())?,
        base_identity: keys.identity.private_key().agree(base_key)?,
        base_signed: signed.agree(base_key)?,
        base_one_time: keys.one_time.map(|pair| pair.private().agree(base_key)).transpose()?,
    };
    let kem = match keys.kem {
        Some((pair, ciphertext)) => {
            Some(pair.secret().decapsulate(&KemCiphertext::decode(ciphertext)?))
        }
        None => None,
    };
    Ok(dhs.derive(kem.as_ref()))
}

/// Rows 1 to 4 of W§7.1; row 0 is constant, row 5 is the KEM's.
struct Dhs {
    identity_signed: SharedSecret,
    base_identity: SharedSecret,
    base_signed: SharedSecret,
    base_one_time: Option<SharedSecret>,
}

impl Dhs {
    fn derive(&self, kem: Option<&SharedSecret>) -> Agreed {
        let rows = [&self.identity_signed, &self.base_identity, &self.base_signed];
        let rows = rows.into_iter().chain(&self.base_one_time).chain(kem);
        let ikm = concat_secrets([&[0xFF; 32]].into_iter().chain(rows.map(SharedSecret::as_bytes)));
        match kem {
            None => {
                let okm: Secret<64> = hkdf(None, &ikm, b"WhisperText");
                let (root, chain) = okm.split();
                Agreed { root: RootKey::new(root), chain: ChainKey::new(chain), pqr: None }
            }
            Some(_) => {
                let label = b"WhisperText_X25519_SHA-256_CRYSTALS-KYBER-1024";
                let okm: Secret<96> = hkdf(None, &ikm, label);
                let (root, rest) = okm.split::<32, 64>();
                let (chain, pqr) = rest.split();
                Agreed {
                    root: RootKey::new(root),
                    chain: ChainKey::new(chain),
                    pqr: Some(PqrKey::new(pqr)),
                }
            }
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::crypto::{KemSecretKey, PrivateKey};
    use crate::message::PreKeySignalMessage;
    use serde_json::Value;
    use std::{fs, path::Path};

    /// The `pqr_key` of pqxdh_v4_spqr.json. It is here because no key is seen from outside the crate.
    #[test]
    fn post_quantum_ratchet_is_seeded_with_the_third_part_of_the_agreement() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("test-vectors/libsignal/pqxdh_v4_spqr.json");
        let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
        let pair = |value| KeyPair::from(PrivateKey::from_bytes(&bytes(value)).unwrap());
        let cases = file["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 1);
        for case in cases {
            let keys = &case["responder"];
            let secret = KemSecretKey::decode(&bytes(&keys["kyber_prekey"]["secret"])).unwrap();
            let first = bytes(&case["messages"][0]["ciphertext"]);
            let first = PreKeySignalMessage::decode(&first).unwrap();
            let keys = ResponderKeys {
                identity: &PrivateKey::from_bytes(&bytes(&keys["identity_private"]))
                    .unwrap()
                    .into(),
                signed: &pair(&keys["signed_prekey_private"]),
                one_time: Some(&pair(&keys["one_time_prekey"]["private"])),
                kem: Some((&KemKeyPair::from_secret(secret), first.kem_ciphertext().unwrap())),
            };
            let agreed = respond(&keys, first.identity_key(), first.base_key()).unwrap();
            assert_eq!(agreed.pqr.unwrap().as_bytes()[..], bytes(&case["pqr_key"]));
        }
    }
}
