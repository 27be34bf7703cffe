//! Requests with a random change: there is always an answer, and no refusal changes a state.

use crate::door::{BEGUN, Door, begin, decrypt, remote};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

/// Every argument of real requests replaced by every kind of junk: there is always an answer, and
/// what is refused changes nothing.
#[test]
fn junk_in_any_argument_gets_an_answer_and_no_refusal_changes_the_state() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut door = Door::two();
    door.begin(true, "one-time");
    let first = door.send("alice", "bob", "first");
    let bundle = door.bundle(true, "last-resort");
    let requests = [
        ("session.decrypt", decrypt("alice", "bob", &first)),
        ("session.process_bundle", begin(bundle)),
        (
            "session.encrypt",
            json!({"party": "alice", "remote": remote("bob"), "plaintext": "00", "now": BEGUN}),
        ),
        ("party.load", json!({"party": "bob", "state": door.dump("bob")})),
        (
            "session.import",
            json!({"party": "alice", "remote": remote("bob"), "record": "0a020804"}),
        ),
        ("retry.request", json!({"failed": first, "timestamp": 1, "device_id": 1})),
    ];
    let snapshot = [door.dump("alice"), door.dump("bob")];
    let mut refusals = 0;
    for (op, request) in requests {
        for _ in 0..150 {
            let mut request = request.clone();
            spoil(&mut request, &mut rng);
            if door.ask(op, request).is_err() {
                refusals += 1;
                assert!([door.dump("alice"), door.dump("bob")] == snapshot, "{op}");
            }
            for (party, state) in ["alice", "bob"].iter().zip(&snapshot) {
                door.ok("party.load", json!({"party": party, "state": state}));
            }
        }
    }
    assert!(refusals > 300, "only {refusals} refusals");
}

/// Changes one leaf, at random.
fn spoil(value: &mut Value, rng: &mut StdRng) {
    match value {
        Value::Object(map) => {
            let place = rng.random_range(0..map.len());
            spoil(map.values_mut().nth(place).unwrap(), rng);
        }
        Value::String(text) if text.len() > 4 && rng.random_ratio(3, 4) => {
            let mut bytes = text.clone().into_bytes();
            let place = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes[place] = b"0123456789abcdef"[rng.random_range(0..16)],
                1 => bytes.truncate(place & !1),
                _ => bytes[place] = rng.random_range(0x20..0x7f),
            }
            *text = String::from_utf8(bytes).unwrap();
        }
        leaf => {
            let junk = [
                json!(null),
                json!(-1),
                json!(u64::MAX),
                json!(1e300),
                json!(true),
                json!(""),
                json!("zz"),
                json!([]),
                json!({}),
                json!("00".repeat(4096)),
            ];
            *leaf = junk[rng.random_range(0..junk.len())].clone();
        }
    }
}
