//! A record with archived sessions: which session takes a message, and what the record is then (W§11.2).

use super::begun_by_libsignal::address;
use super::*;
use tuckseal::{LocalParty, Trust};

pub(super) fn replay(file: &Value) {
    let (owner, remote) = (address(&file["owner"]), address(&file["remote"]));
    let identity = identity(file, "owner_identity_private");
    let local =
        LocalParty { identity, registration_id: number(file, "owner_registration_id"), address: owner };
    let mut record = imported::import(&bytes(file, "record")).unwrap().record;
    for (place, step) in cases(file, "steps").iter().enumerate() {
        let body = bytes(step, "message");
        let verdict =
            imported::receive(&mut record, &local, &remote, &step["type"], &body, Trust::FirstUse);
        match step["expect"]["error"].as_str() {
            Some(error) => assert_eq!(verdict, Err(error), "step {place}"),
            None => assert_eq!(verdict, Ok(bytes(&step["expect"], "plaintext")), "step {place}"),
        }
        // The same sessions in the same order as libsignal's own record has then.
        let theirs = imported::import(&bytes(step, "record_after")).unwrap().record;
        assert_eq!(record.archived_sessions(), theirs.archived_sessions(), "step {place}");
        assert_eq!(record.info(), theirs.info(), "step {place}");
        assert_eq!(base_key(&record), base_key(&theirs), "step {place}");
    }
}

/// That of the current session, in the stored form: format, length, version, base key.
pub(super) fn base_key(record: &tuckseal::SessionRecord) -> Vec<u8> {
    record.encode()[6..38].to_vec()
}
