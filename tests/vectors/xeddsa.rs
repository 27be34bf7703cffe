//! Signatures that libsignal made (W§3.2, 5): they are random, so they can only be verified.

use super::*;
use tuckseal::IdentityKey;

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["libsignal_versions", "note", "cases", "alternate_identity"]);
    for (number, case) in cases(file, "cases").iter().enumerate() {
        let key = public(case, "public_key");
        let (message, mut signature) = (bytes(case, "message"), bytes(case, "signature"));
        assert_eq!(private(case, "private_key").public_key(), key, "key of case {number}");
        assert_eq!(key.verify_signature(&message, &signature), Ok(()), "case {number}");
        signature[3] ^= 1;
        assert!(key.verify_signature(&message, &signature).is_err(), "case {number}, changed");

        let own = private(case, "private_key").sign_with_randomness(&message, &[7; 64]);
        assert_eq!(key.verify_signature(&message, &own), Ok(()), "case {number}, signed here");
    }
    let case = &file["alternate_identity"];
    let signer = IdentityKey::new(public(case, "public_key"));
    let other = IdentityKey::new(public(case, "other_identity"));
    assert_eq!(identity(case, "private_key").identity_key(), signer);
    assert_eq!(signer.verify_alternate_identity(&other, &bytes(case, "signature")), Ok(()));
    assert!(other.verify_alternate_identity(&signer, &bytes(case, "signature")).is_err());
}
