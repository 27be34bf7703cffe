//! `xeddsa.*` and `retry.*`.

use crate::door::{Door, key, with};
use serde_json::{Value, json};

#[test]
fn signatures_repeat_with_given_randomness_and_verify() {
    let mut door = Door::two();
    let public = key(&mut door, "33");
    let sign = json!({"private": "33".repeat(32), "message": "00", "random": "44".repeat(64)});
    let signature = door.ok("xeddsa.sign", sign.clone())["signature"].clone();
    assert_eq!(signature, door.ok("xeddsa.sign", sign.clone())["signature"]);
    assert_ne!(
        signature,
        door.ok("xeddsa.sign", with(sign.clone(), "random", Value::Null))["signature"]
    );
    let verify = json!({"public": public, "message": "00", "signature": signature});
    assert_eq!(door.ok("xeddsa.verify", verify.clone())["valid"], true);
    assert_eq!(
        door.ok("xeddsa.verify", with(verify.clone(), "message", json!("01")))["valid"],
        false
    );
    assert_eq!(
        door.ok("xeddsa.verify", with(verify.clone(), "signature", json!("")))["valid"],
        false
    );
    door.refused("invalid_key", "xeddsa.verify", with(verify, "public", json!("05")));
    door.refused("invalid_key", "xeddsa.sign", with(sign.clone(), "private", json!("00")));
    door.refused("bad_request", "xeddsa.sign", with(sign, "random", json!("00")));
}

#[test]
fn decryption_error_names_the_failed_message() {
    let mut door = Door::two();
    door.begin(true, "one-time");
    let first = door.send("alice", "bob", "first");
    let request = json!({"failed": first, "timestamp": 0, "device_id": 9});
    let body = door.ok("retry.request", request.clone())["body"].clone();
    let parsed = door.ok("retry.parse", json!({"body": body}));
    assert_eq!((&parsed["timestamp"], &parsed["device_id"]), (&json!(0), &json!(9)));
    assert_eq!(parsed["ratchet_key"].as_str().unwrap().len(), 66);
    door.refused("invalid_message", "retry.parse", json!({"body": ""}));
    let broken = with(request.clone(), "failed", json!({"type": "whisper", "body": "44"}));
    door.refused("invalid_message", "retry.request", broken);
    let plaintext = with(request, "failed", json!({"type": "plaintext", "body": "c080"}));
    door.refused("bad_request", "retry.request", plaintext);
}
