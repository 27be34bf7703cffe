//! `group.*`: sender keys as they should go, and every refusal.

use crate::door::{Door, changed, remote, with};
use serde_json::{Value, json};

const GROUP: &str = "2f9ad9e2-3a4c-4bd5-9f1d-0f6a5c1c3b77";

fn encrypt(door: &mut Door, text: &str) -> Value {
    let request =
        json!({"party": "alice", "distribution_id": GROUP, "plaintext": hex::encode(text)});
    door.ok("group.encrypt", request)["body"].clone()
}

fn from_alice(body: &Value) -> Value {
    json!({"party": "bob", "sender": remote("alice"), "body": body})
}

#[test]
fn group_message_is_read_once_in_any_order_and_across_a_restart() {
    let mut door = Door::two();
    let distribute = json!({"party": "alice", "distribution_id": GROUP});
    let key = door.ok("group.distribute", distribute.clone())["body"].clone();
    assert_eq!(door.ok("group.distribute", distribute)["body"], key);
    door.ok("group.process", from_alice(&key));
    let [first, second] = ["first", "second"].map(|text| encrypt(&mut door, text));
    assert_eq!(door.ok("group.decrypt", from_alice(&second))["plaintext"], hex::encode("second"));
    for party in ["alice", "bob"] {
        let state = door.dump(party);
        door.ok("party.load", json!({"party": party, "state": state}));
        assert_eq!(door.dump(party), state);
    }
    assert_eq!(door.ok("group.decrypt", from_alice(&first))["plaintext"], hex::encode("first"));
    door.refused("duplicate_message", "group.decrypt", from_alice(&first));
    let third = encrypt(&mut door, "third");
    assert_eq!(door.ok("group.decrypt", from_alice(&third))["plaintext"], hex::encode("third"));
}

#[test]
fn group_requests_that_cannot_be_are_refused_and_change_nothing() {
    let mut door = Door::two();
    let alone = json!({"party": "alice", "distribution_id": GROUP, "plaintext": ""});
    door.refused("no_sender_key", "group.encrypt", alone.clone());
    for id in ["", &format!("PNI:{GROUP}"), &GROUP[1..]] {
        let other = with(alone.clone(), "distribution_id", json!(id));
        door.refused("bad_request", "group.encrypt", other.clone());
        door.refused("bad_request", "group.distribute", other);
    }
    let key = door.ok("group.distribute", alone)["body"].clone();
    let message = encrypt(&mut door, "hello");
    door.refused("no_sender_key", "group.decrypt", from_alice(&message));
    for (broken, kind) in [("", "invalid_message"), ("33", "invalid_message")] {
        door.refused(kind, "group.process", from_alice(&json!(broken)));
        door.refused(kind, "group.decrypt", from_alice(&json!(broken)));
    }
    door.ok("group.process", from_alice(&key));
    let rest = &message.as_str().unwrap()[2..];
    let at = |place| changed(&json!({"body": message}), place)["body"].clone();
    for (broken, kind) in [
        (json!(format!("23{rest}")), "legacy_version"),
        (json!(format!("43{rest}")), "unknown_version"),
        (at(-1), "invalid_signature"),
        (at(-65), "invalid_signature"),
    ] {
        door.refused(kind, "group.decrypt", from_alice(&broken));
    }
    door.ok("group.decrypt", from_alice(&message));
}

#[test]
fn group_message_too_far_ahead_is_named_as_that() {
    let mut door = Door::two();
    let distribute = json!({"party": "alice", "distribution_id": GROUP});
    let key = door.ok("group.distribute", distribute)["body"].clone();
    door.ok("group.process", from_alice(&key));
    let mut last = Value::Null;
    for _ in 0..25_002 {
        last = encrypt(&mut door, "");
    }
    door.refused("too_far_ahead", "group.decrypt", from_alice(&last));
}
