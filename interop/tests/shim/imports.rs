//! `session.import`, `prekey.import` and `group.import`: what libsignal stored goes on here, and every
//! refusal. The records are those of test-vectors/libsignal.

use crate::door::{Door, with};
use serde_json::{Value, json};

fn vectors(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../test-vectors/libsignal/");
    serde_json::from_slice(&std::fs::read(format!("{folder}{name}.json")).unwrap()).unwrap()
}

fn at(address: &Value) -> Value {
    json!({"service_id": address[0], "device_id": address[1]})
}

/// Alice is the owner of the record.
fn owner(file: &Value) -> Door {
    let mut door = Door::two();
    let mut new = at(&file["owner"]);
    new["party"] = json!("alice");
    new["registration_id"] = file["owner_registration_id"].clone();
    new["identity_private"] = file["owner_identity_private"].clone();
    door.ok("party.new", new);
    door
}

#[test]
fn imported_session_with_its_archive_reads_and_writes_on() {
    let file = vectors("archived_session");
    let mut door = owner(&file);
    let peer = json!({"party": "alice", "remote": at(&file["remote"])});
    let import = with(peer.clone(), "record", file["record"].clone());
    assert_eq!(door.ok("session.import", import.clone())["damaged"], 0);
    let before = door.ok("session.info", peer.clone());
    assert_eq!((&before["exists"], &before["version"]), (&json!(true), &json!(4)));
    assert!(before["previous_states"].as_u64().unwrap() > 0);
    let mut read = 0;
    for step in file["steps"].as_array().unwrap() {
        let kind = if step["type"] == 2 { "whisper" } else { "prekey" };
        let message =
            with(with(peer.clone(), "type", json!(kind)), "body", step["message"].clone());
        match step["expect"]["plaintext"].as_str() {
            Some(text) => {
                assert_eq!(door.ok("session.decrypt", message.clone())["plaintext"], text);
                door.refused("duplicate_message", "session.decrypt", message);
                read += 1;
            }
            None => assert!(door.ask("session.decrypt", message).is_err()),
        }
    }
    assert!(read > 3);
    door.ok("session.encrypt", with(peer.clone(), "plaintext", json!("00")));
    let state = door.dump("alice");
    door.ok("party.load", json!({"party": "alice", "state": state}));
    assert_eq!(door.dump("alice"), state);
    // The record in its place again, as if nothing had been read.
    door.ok("session.import", import);
    assert_eq!(door.ok("session.info", peer), before);
}

#[test]
fn session_of_another_identity_and_junk_are_refused() {
    let file = vectors("archived_session");
    let mut door = owner(&file);
    let peer = json!({"party": "alice", "remote": at(&file["remote"]), "record": file["record"]});
    door.refused("invalid_key", "session.import", with(peer.clone(), "party", json!("bob")));
    let record = file["record"].as_str().unwrap();
    for junk in ["ff", "0a01", &record[..record.len() - 2]] {
        door.refused(
            "invalid_message",
            "session.import",
            with(peer.clone(), "record", json!(junk)),
        );
    }
    let own = door.bundle(false, "none")["identity_key"].clone();
    let trust = json!({"party": "alice", "remote": at(&file["remote"]), "identity_key": own});
    door.ok("party.accept_identity", trust);
    door.refused("untrusted_identity", "session.import", peer.clone());
    let sessions = with(peer, "record", json!(""));
    assert_eq!(door.ok("session.import", sessions)["damaged"], 0);
}

#[test]
fn imported_prekeys_are_kept_and_later_ones_have_higher_ids() {
    let file = vectors("prekey_records");
    let mut door = Door::two();
    let mut taken = 0;
    for case in file["records"].as_array().unwrap() {
        let kind = match case["kind"].as_str().unwrap() {
            "pre_key" => "one-time",
            "signed_pre_key" => "signed",
            "kyber_pre_key" => "kem-last-resort",
            _ => continue,
        };
        let import = json!({"party": "bob", "kind": kind, "record": case["record"]});
        assert_eq!(door.ok("prekey.import", import.clone())["id"], case["id"]);
        let record = case["record"].as_str().unwrap();
        let cut = with(import.clone(), "record", json!(&record[..record.len() - 2]));
        door.refused("invalid_message", "prekey.import", cut);
        door.refused("bad_request", "prekey.import", with(import, "kind", json!("other")));
        taken += 1;
        if case["id"] == u32::MAX {
            let bundle = json!({"party": "bob", "one_time": false, "kem": "none"});
            door.refused("limit", "party.bundle", bundle);
            door = Door::two();
            continue;
        }
        let next = door.bundle(false, "none")["signed_prekey"]["id"].as_u64().unwrap();
        assert!(next > case["id"].as_u64().unwrap());
    }
    assert_eq!(taken, 9);
}

#[test]
fn imported_sender_keys_go_on_where_they_stood() {
    let file = vectors("sender_key_record");
    let mut door = Door::two();
    let group = json!({"party": "alice", "distribution_id": file["distribution_id"]});
    // Our own key, after six messages: the next distribution message is libsignal's.
    let own = with(group.clone(), "record", file["sender_records"][1]["record"].clone());
    door.ok("group.import", own);
    assert_eq!(door.ok("group.distribute", group)["body"], file["distribution_message_after_6"]);
    // A peer's, from its first step: all six are read, once.
    let import = json!({"party": "bob", "distribution_id": file["distribution_id"],
                        "sender": at(&file["sender_address"]),
                        "record": file["receiver_steps"][0]["record_after"]});
    door.ok("group.import", import.clone());
    let own = json!({"party": "bob", "distribution_id": file["distribution_id"], "record": import["record"]});
    door.refused("invalid_message", "group.import", own);
    door.refused("invalid_message", "group.import", with(import.clone(), "record", json!("0a01")));
    door.refused("bad_request", "group.import", with(import, "distribution_id", json!("no uuid")));
    for place in [5, 0, 3, 1, 4, 2] {
        let message = json!({"party": "bob", "sender": at(&file["sender_address"]), "body": file["messages"][place]});
        let read = door.ok("group.decrypt", message.clone())["plaintext"].clone();
        assert_eq!(read, file["plaintexts"][place]);
        door.refused("duplicate_message", "group.decrypt", message);
    }
}
