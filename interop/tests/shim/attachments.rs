//! `attachment.*`.

use crate::door::{Door, changed, with};
use serde_json::json;

#[test]
fn attachment_comes_out_as_it_went_in_and_broken_ones_do_not() {
    let mut door = Door::two();
    let plaintext = "61".repeat(1000);
    let make = json!({"plaintext": plaintext, "keys": "07".repeat(64), "iv": "09".repeat(16)});
    let made = door.ok("attachment.encrypt", make.clone());
    assert_eq!(made, door.ok("attachment.encrypt", make.clone()));
    let read = json!({"ciphertext": made["ciphertext"], "digest": made["digest"],
                      "keys": "07".repeat(64), "size": 1000});
    assert_eq!(door.ok("attachment.decrypt", read.clone())["plaintext"], plaintext);
    let at = |place| changed(&json!({"body": made["ciphertext"]}), place)["body"].clone();
    for (name, value, kind) in [
        ("ciphertext", at(0), "invalid_message"),
        ("ciphertext", at(40), "invalid_message"),
        ("ciphertext", at(-1), "invalid_message"),
        ("ciphertext", json!(""), "invalid_message"),
        ("digest", json!("00".repeat(32)), "invalid_message"),
        ("digest", json!("00".repeat(31)), "bad_request"),
        ("keys", json!("08".repeat(64)), "invalid_message"),
        ("keys", json!("08".repeat(63)), "bad_request"),
        ("size", json!(2000), "invalid_message"),
        ("size", json!(u64::MAX), "limit"),
        ("size", json!(-1), "bad_request"),
    ] {
        door.refused(kind, "attachment.decrypt", with(read.clone(), name, value));
    }
    door.refused("bad_request", "attachment.encrypt", with(make, "iv", json!("00")));
}
