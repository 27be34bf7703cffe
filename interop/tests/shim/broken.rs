//! Broken bundles, messages, states and arguments: the kind of each refusal, and that it changed nothing.

use crate::door::{Door, begin, changed, decrypt, remote, with};
use serde_json::{Value, json};

#[test]
fn broken_bundles_are_refused_and_change_nothing() {
    let mut door = Door::two();
    let good = door.bundle(true, "one-time");
    let cases = [
        ("/signed_prekey/signature", json!("00".repeat(64)), "invalid_signature"),
        ("/signed_prekey/signature", json!("00".repeat(63)), "invalid_signature"),
        ("/kem_prekey/signature", json!("00".repeat(64)), "invalid_signature"),
        ("/kem_prekey/public", json!("08"), "invalid_key"),
        ("/prekey/public", json!(format!("05{}", "00".repeat(32))), "invalid_key"),
        ("/prekey/public", json!("06"), "invalid_key"),
        ("/identity_key", json!(""), "invalid_key"),
        ("/identity_key", json!("05AA"), "bad_request"),
        ("/device_id", json!(0), "bad_request"),
        ("/device_id", json!(128), "bad_request"),
        ("/registration_id", json!(-1), "bad_request"),
        ("/signed_prekey", Value::Null, "bad_request"),
    ];
    for (place, value, kind) in cases {
        let mut bundle = good.clone();
        *bundle.pointer_mut(place).unwrap() = value;
        door.refused(kind, "session.process_bundle", begin(bundle));
    }
    door.ok("session.process_bundle", begin(good));
}

#[test]
fn broken_messages_are_refused_and_change_nothing() {
    let mut door = Door::two();
    let plain = json!({"party": "bob", "remote": remote("alice"), "plaintext": ""});
    door.refused("no_session", "session.encrypt", plain);
    door.begin(true, "one-time");
    let first = door.send("alice", "bob", "first");
    let whisper = json!({"type": "whisper", "body": first["body"]});
    door.refused("invalid_message", "session.decrypt", decrypt("alice", "bob", &whisper));
    door.refused(
        "invalid_message",
        "session.decrypt",
        decrypt("alice", "bob", &changed(&first, -20)),
    );
    door.read("alice", "bob", &first);
    door.pass("bob", "alice", "answer");
    let message = door.send("alice", "bob", "second");
    let with_body = |body: &str| json!({"type": "whisper", "body": body});
    let rest = &message["body"].as_str().unwrap()[2..];
    let cases = [
        (changed(&message, -1), "invalid_message"),
        (changed(&message, 20), "invalid_message"),
        (with_body(""), "invalid_message"),
        (with_body("44"), "invalid_message"),
        (with_body(&format!("24{rest}")), "legacy_version"),
        (with_body(&format!("54{rest}")), "unknown_version"),
        (json!({"type": "prekey", "body": message["body"]}), "invalid_message"),
        (json!({"type": "sender_key", "body": message["body"]}), "bad_request"),
        (json!({"type": "whisper"}), "bad_request"),
        (json!({"type": "whisper", "body": 7}), "bad_request"),
        (with_body("4"), "bad_request"),
        (with_body("é€"), "bad_request"),
    ];
    for (message, kind) in cases {
        door.refused(kind, "session.decrypt", decrypt("alice", "bob", &message));
    }
    door.refused("no_session", "session.decrypt", decrypt("carol", "bob", &message));
    door.read("alice", "bob", &message);
}

#[test]
fn message_too_far_ahead_is_named_as_that() {
    let mut door = Door::two();
    door.begin(true, "one-time");
    door.pass("alice", "bob", "first");
    let mut last = Value::Null;
    for _ in 0..25_002 {
        last = door.send("alice", "bob", "");
    }
    door.refused("too_far_ahead", "session.decrypt", decrypt("alice", "bob", &last));
}

#[test]
fn parties_that_do_not_exist_and_states_that_nobody_dumped_are_bad_requests() {
    let mut door = Door::two();
    for op in ["party.dump", "session.info", "session.archive"] {
        door.refused("bad_request", op, json!({"party": "carol", "remote": remote("bob")}));
    }
    let state = door.dump("bob").as_str().unwrap().to_owned();
    let text = String::from_utf8(hex::decode(&state).unwrap()).unwrap();
    for broken in [
        String::new(),
        text.replacen("{", "{ ", 1),
        text.replacen("\"next_id\":1", "\"next_id\":01", 1),
        text.replacen("\"format\":2", "\"format\":3", 1),
        text.replacen("\"seen\":[]", "\"seen\":[[1,1,\"00\"]]", 1),
        text[..text.len() - 1].to_owned(),
    ] {
        let load = json!({"party": "bob", "state": hex::encode(&broken)});
        let found = door.ask("party.load", load.clone());
        assert!(found.is_err(), "{broken}");
        door.refused(&found.unwrap_err(), "party.load", load);
    }
    let load = json!({"party": "bob", "state": state, "seed": "00"});
    door.refused("bad_request", "party.load", load);
    let new = json!({"party": "bob", "service_id": "x", "device_id": 1, "registration_id": 1});
    door.refused("bad_request", "party.new", new.clone());
    let new = with(new, "service_id", remote("bob")["service_id"].clone());
    door.refused("invalid_key", "party.new", with(new, "identity_private", json!("00")));
    let bundle = json!({"party": "bob", "one_time": "yes", "kem": "none"});
    door.refused("bad_request", "party.bundle", bundle.clone());
    door.refused(
        "bad_request",
        "party.bundle",
        with(with(bundle, "one_time", json!(true)), "kem", json!("two")),
    );
    let accept = json!({"party": "bob", "remote": remote("alice"), "identity_key": "04"});
    door.refused("invalid_key", "party.accept_identity", accept);
}
