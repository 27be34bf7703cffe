//! Messages and records that break rules, on sessions that exist (W§11, 17, M and S rows).
//!
//! Where libsignal takes a damaged session over and refuses at its use, the import refuses it at once:
//! such a session is not there, and a record that has no other is an error.

use super::begun_by_libsignal::address;
use super::*;
use tuckseal::{IdentityKey, ImportError, LocalParty, SessionRecord, Trust};

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["libsignal_version", "sessions"]);
    for case in cases(file, "sessions") {
        session(case);
    }
}

fn session(case: &Value) {
    let name = text(case, "name");
    let (owner, remote) = (address(&case["owner"]), address(&case["remote"]));
    let identity = identity(case, "owner_identity_private");
    let registration_id = number(case, "owner_registration_id");
    let local = LocalParty { identity, registration_id, address: owner };
    let stored = bytes(case, "record");
    let imported =
        SessionRecord::import_libsignal(&stored, &local.identity.identity_key(), Trust::FirstUse);
    let mut record = match imported {
        Ok(imported) => imported.record,
        Err(ImportError::Damaged) => {
            let alone = name.starts_with("damaged session: ")
                || name == "archived entry undecodable, no current";
            return assert!(alone, "{name}");
        }
        Err(error) => panic!("{name}: {error}"),
    };
    assert!(!name.starts_with("damaged session: "), "{name} was taken over");
    if name == "empty record" {
        return assert!(record.info().is_none() && record.archived_sessions() == 0);
    }
    let mut known = case["known_identity"].as_str().map(|_| {
        IdentityKey::decode(&bytes(case, "known_identity")).unwrap()
    });
    for (place, step) in cases(case, "steps").iter().enumerate() {
        let trust = match (text(case, "trust"), known) {
            ("none", _) => Trust::Nobody,
            ("tofu", Some(known)) => Trust::Only(known),
            ("tofu" | "all", _) => Trust::FirstUse,
            other => panic!("{other:?}"),
        };
        let expect = &step["expect"];
        let verdict = if step["encrypt"].is_string() {
            imported::send(&mut record, &local, &remote, trust)
        } else {
            let body = bytes(step, "message");
            imported::receive(&mut record, &local, &remote, &step["type"], &body, trust)
        };
        match expect["error"].as_str() {
            Some(error) => assert_eq!(verdict, Err(error), "{name}, step {place}"),
            None if expect["plaintext"].is_string() => {
                assert_eq!(verdict, Ok(bytes(expect, "plaintext")), "{name}, step {place}");
                known = known.or(record.info().map(|info| info.remote_identity));
            }
            None => {
                let sent = verdict.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(hex::encode(&sent[..1]), text(&expect["ok"], "first_byte"), "{name}");
                let message = tuckseal::SignalMessage::decode(&sent).unwrap();
                assert_eq!(message.counter(), number(&expect["ok"], "counter"), "{name}");
            }
        }
    }
}
