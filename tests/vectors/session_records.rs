//! Records of released builds, old and new, with and without the post-quantum ratchet (W§17, S§10).

use super::begun_by_libsignal::address;
use super::*;
use tuckseal::{IdentityKeyPair, ImportError, LocalParty, PrivateKey, PublicKey, SessionRecord, Trust};

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["cases"]);
    for case in cases(file, "cases") {
        let stored = bytes(case, "record");
        let imported = imported::import(&stored).unwrap();
        assert_eq!(imported.damaged, 0);
        let mut record = imported.record;
        let info = record.info().unwrap();
        assert_eq!(info.version as u64, case["session_version"].as_u64().unwrap());
        assert_eq!(Some(info.post_quantum_ratchet), case["spqr"].as_bool());

        let identity = IdentityKeyPair::from(PrivateKey::from_bytes(&[1; 32]).unwrap());
        let (owner, remote) = (address(&case["owner"]), address(&case["remote"]));
        let foreign =
            SessionRecord::import_libsignal(&stored, &identity.identity_key(), Trust::FirstUse);
        assert!(matches!(foreign, Err(ImportError::ForeignRecord)));
        let local = imported::local_identity(&stored);
        let other = Trust::Only(tuckseal::IdentityKey::new(PublicKey::from_u([9; 32])));
        let untrusted = SessionRecord::import_libsignal(&stored, &local, other);
        assert!(matches!(untrusted, Err(ImportError::UntrustedIdentity(_))));

        for place in 1..stored.len() {
            let headless = SessionRecord::import_libsignal(&stored[place..], &local, Trust::FirstUse);
            assert!(matches!(headless, Err(ImportError::Damaged)), "without {place} bytes: {headless:?}");
        }
        let cut = SessionRecord::import_libsignal(
            &stored[..stored.len() - 1],
            &local,
            Trust::FirstUse,
        );
        assert!(matches!(cut, Err(ImportError::Damaged)));

        let local = LocalParty { identity, registration_id: 1, address: owner };
        let messages = cases(case, "incoming");
        let order: &[usize] = if case["spqr"] == true { &[2, 0, 1] } else { &[0, 1] };
        assert_eq!(order.len(), messages.len());
        for message in order.iter().map(|place| &messages[*place]) {
            let body = bytes(message, "ciphertext");
            let mut read = || {
                imported::receive(
                    &mut record,
                    &local,
                    &remote,
                    &message["type"],
                    &body,
                    Trust::FirstUse,
                )
            };
            assert_eq!(read(), Ok(bytes(message, "plaintext")));
            assert_eq!(read(), Err("duplicate"));
        }
        imported::send(&mut record, &local, &remote, Trust::FirstUse).unwrap();
        changed_records(&stored, &local, &remote);
    }
}

/// A changed byte anywhere, the post-quantum state included: an error, or a record that can be stored
/// and used without a panic.
fn changed_records(stored: &[u8], local: &LocalParty, remote: &tuckseal::Address) {
    let identity = imported::local_identity(stored);
    for place in (0..stored.len()).step_by(7) {
        let mut changed = stored.to_vec();
        changed[place] ^= 0x11;
        let imported = SessionRecord::import_libsignal(&changed, &identity, Trust::FirstUse);
        let Ok(imported) = imported else { continue };
        let mut record = SessionRecord::decode(&imported.record.encode()).unwrap();
        let _ = imported::send(&mut record, local, remote, Trust::FirstUse);
    }
}
