//! Both sides began a session at once, and go on in both (W§11).

use super::begun_by_libsignal::{Responder, address};
use super::*;
use serde_json::json;
use tuckseal::{AgreementPolicy, DecryptError, PreKeySignalMessage, SignalMessage, Trust};

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["cases"]);
    for case in cases(file, "cases") {
        let keys = json!({
            "identity_private": case["owner_identity_private"],
            "signed_prekey_id": case["signed_prekey_id"],
            "signed_prekey_private": case["signed_prekey_private"],
            "one_time_prekey": case["one_time_prekey"],
            "kyber_prekey": case["kyber_prekey"],
        });
        let owner = Responder::read(&keys, &case["owner"]);
        let remote = address(&case["remote"]);
        let mut record = imported::import(&bytes(case, "record")).unwrap().record;
        let policy = AgreementPolicy::AllowNoSpqr;
        for (place, step) in cases(case, "incoming").iter().enumerate() {
            let body = bytes(step, "message");
            let before = record.encode();
            let read = if step["type"] == 2 {
                let message = SignalMessage::decode(&body).unwrap();
                owner.decrypt(&remote, &mut record, &message)
            } else {
                let message = PreKeySignalMessage::decode(&body).unwrap();
                owner.decrypt_first(&remote, &mut record, &message, Trust::FirstUse, policy)
            };
            match step["expect"]["error"].as_str() {
                Some("duplicate") => {
                    assert!(matches!(read, Err(DecryptError::Duplicate { .. })), "step {place}");
                    assert_eq!(*record.encode(), *before, "step {place}");
                }
                Some(other) => panic!("nobody replays {other}"),
                None => {
                    let plaintext = bytes(&step["expect"], "plaintext");
                    assert_eq!(read.unwrap().plaintext, plaintext, "step {place}");
                }
            }
            let archived = number(step, "archived_after") as usize;
            assert_eq!(record.archived_sessions(), archived, "step {place}");
            let base_key = &bytes(step, "current_base_key_after")[1..];
            assert_eq!(archived_session::base_key(&record), base_key, "step {place}");
        }
    }
}
