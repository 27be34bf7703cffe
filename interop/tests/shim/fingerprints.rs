//! `fingerprint` and `fingerprint.compare`.

use crate::door::{Door, key, with};
use serde_json::{Value, json};

#[test]
fn safety_numbers_are_equal_on_both_sides_and_match_when_scanned() {
    let mut door = Door::two();
    let [alice, bob, carol] = ["31", "32", "33"]
        .map(|private| json!({"id": private.repeat(17), "key": key(&mut door, private)}));
    let made = |version: u32, local: &Value, remote: &Value| json!({"version": version, "iterations": 5200, "local": local, "remote": remote});
    let ours = door.ok("fingerprint", made(2, &alice, &bob));
    let theirs = door.ok("fingerprint", made(2, &bob, &alice));
    assert_eq!(ours["display"], theirs["display"]);
    assert_eq!(ours["display"].as_str().unwrap().len(), 60);
    let stranger = door.ok("fingerprint", made(2, &carol, &alice));
    for (scanned, matches) in [(&theirs, true), (&stranger, false), (&ours, false)] {
        let compare = json!({"ours": ours["scannable"], "theirs": scanned["scannable"]});
        assert_eq!(door.ok("fingerprint.compare", compare)["match"], matches);
    }
    let old = door.ok("fingerprint", made(1, &bob, &alice));
    for (one, other) in [
        (&ours["scannable"], &old["scannable"]),
        (&ours["scannable"], &json!("")),
        (&json!("00"), &ours["scannable"]),
    ] {
        let compare = json!({"ours": one, "theirs": other});
        door.refused("fingerprint_mismatch", "fingerprint.compare", compare);
    }
    let good = made(2, &alice, &bob);
    for (name, value, kind) in [
        ("version", json!(0), "bad_request"),
        ("version", json!(3), "bad_request"),
        ("iterations", json!(1), "bad_request"),
        ("iterations", json!(1_000_001), "bad_request"),
        ("local", json!({"id": "00", "key": "05"}), "invalid_key"),
        ("remote", json!({"id": "00"}), "bad_request"),
    ] {
        door.refused(kind, "fingerprint", with(good.clone(), name, value));
    }
}
