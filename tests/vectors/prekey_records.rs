//! Prekeys and identity key pairs as libsignal stores them (W§17).

use super::*;
use tuckseal::{IdentityKey, ImportError, KemPreKey, PreKey, SignedPreKey};

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["libsignal_version", "records"]);
    for case in cases(file, "records") {
        let stored = bytes(case, "record");
        let signed_by = |message: &[u8], signature: &[u8; 64]| {
            assert_eq!(signature[..], bytes(case, "signature"));
            let signer = IdentityKey::decode(&bytes(case, "identity_public")).unwrap();
            signer.public_key().verify_signature(message, signature).unwrap();
        };
        let time = || case["timestamp"].as_u64().unwrap();
        match text(case, "kind") {
            "pre_key" => {
                let prekey = PreKey::import_libsignal(&stored).unwrap();
                assert_eq!(prekey.id.0, number(case, "id"));
                assert_eq!(prekey.pair.public().serialize()[..], bytes(case, "public"));
                assert_eq!(prekey.pair.private().to_bytes()[..], bytes(case, "private"));
                assert!(matches!(cut(&stored, PreKey::import_libsignal), ImportError::Damaged));
            }
            "signed_pre_key" => {
                let prekey = SignedPreKey::import_libsignal(&stored).unwrap();
                assert_eq!((prekey.id.0, prekey.created.as_millis()), (number(case, "id"), time()));
                assert_eq!(prekey.pair.public().serialize()[..], bytes(case, "public"));
                signed_by(&prekey.pair.public().serialize(), &prekey.signature);
                cut(&stored, SignedPreKey::import_libsignal);
            }
            "kyber_pre_key" => {
                let prekey = KemPreKey::import_libsignal(&stored).unwrap();
                assert_eq!((prekey.id.0, prekey.created.as_millis()), (number(case, "id"), time()));
                signed_by(&prekey.pair.public().serialize(), &prekey.signature);
                cut(&stored, KemPreKey::import_libsignal);
            }
            "identity_key_pair" => {
                let pair = IdentityKeyPair::import_libsignal(&stored).unwrap();
                assert_eq!(pair.identity_key().serialize()[..], bytes(case, "public"));
                cut(&stored, IdentityKeyPair::import_libsignal);
            }
            other => panic!("nobody replays {other}"),
        }
    }
}

/// A changed public key does not belong to the private one; a cut record is none.
fn cut<T>(stored: &[u8], import: fn(&[u8]) -> Result<T, ImportError>) -> ImportError {
    let mut changed = stored.to_vec();
    let key = stored.windows(2).position(|it| it == [0x21, 5] || it == [0x0C, 8]).unwrap();
    changed[key + 5] ^= 1;
    import(&changed).err().expect("a foreign public key was taken");
    import(&stored[..stored.len() / 2]).err().expect("half a record was taken")
}
