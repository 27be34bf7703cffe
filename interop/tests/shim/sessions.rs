//! `party.*` and `session.*` as they should go: who may begin what, and what is used up or remembered.

use crate::door::{BEGUN, DAY, Door, begin, decrypt, remote, with};
use serde_json::{Value, json};

#[test]
fn two_parties_talk_across_a_restart_in_every_kind_of_session() {
    for (one_time, kem, version) in
        [(true, "none", 3), (false, "none", 3), (true, "one-time", 4), (false, "last-resort", 4)]
    {
        let mut door = Door::two();
        let bundle = door.begin(one_time, kem);
        let first = door.send("alice", "bob", "first");
        assert_eq!(first["type"], "prekey");
        let read = door.read("alice", "bob", &first);
        assert_eq!(read["consumed_prekey"], bundle["prekey"]["id"]);
        let consumed_kem =
            if kem == "one-time" { bundle["kem_prekey"]["id"].clone() } else { Value::Null };
        assert_eq!(read["consumed_kem_prekey"], consumed_kem);
        for turn in 0..10 {
            let late = door.send("bob", "alice", "late");
            assert_eq!(door.pass("bob", "alice", "hi")["type"], "whisper");
            door.pass("alice", "bob", "");
            let mut restored = Door::default();
            for party in ["alice", "bob"] {
                restored.ok("party.load", json!({"party": party, "state": door.dump(party)}));
                assert_eq!(restored.dump(party), door.dump(party));
            }
            door = restored;
            door.read("bob", "alice", &late);
            door.refused("duplicate_message", "session.decrypt", decrypt("bob", "alice", &late));
            let info = door.ok("session.info", json!({"party": "bob", "remote": remote("alice")}));
            assert_eq!(
                (&info["version"], &info["pq_ratchet"]),
                (&json!(version), &json!(version == 4)),
                "{turn}"
            );
        }
    }
}

#[test]
fn same_seed_gives_same_bytes_and_a_seed_at_load_starts_anew() {
    let run = || {
        let mut door = Door::two();
        door.begin(true, "one-time");
        let message = door.pass("alice", "bob", "hello");
        (message, door.dump("alice"), door.dump("bob"), door)
    };
    let ((a, alice, bob, mut door), (b, alice_again, bob_again, _)) = (run(), run());
    assert_eq!((&a, &alice, &bob), (&b, &alice_again, &bob_again));
    let mut bundle_after = |arguments: Value| {
        door.ok("party.load", arguments);
        door.bundle(true, "none")
    };
    let load = json!({"party": "bob", "state": bob});
    let first = bundle_after(with(load.clone(), "seed", json!("05".repeat(32))));
    let running_on = bundle_after(load.clone());
    let repeated = bundle_after(with(load, "seed", json!("05".repeat(32))));
    assert_eq!(first, repeated);
    assert_ne!(first, running_on);
}

#[test]
fn no_clock_enters_the_state_unless_passed() {
    let run = || {
        let mut door = Door::two();
        let bundle =
            door.ok("party.bundle", json!({"party": "bob", "one_time": true, "kem": "one-time"}));
        let mut arguments = begin(bundle);
        arguments.as_object_mut().unwrap().remove("now");
        door.ok("session.process_bundle", arguments);
        let request = json!({"party": "alice", "remote": remote("bob"), "plaintext": ""});
        door.ok("session.encrypt", request);
        (door.dump("alice"), door.dump("bob"))
    };
    let first = run();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(first == run());
}

#[test]
fn x3dh_needs_to_be_allowed_on_both_sides() {
    let mut door = Door::two();
    let without = |mut arguments: Value, name: &str| {
        arguments.as_object_mut().unwrap().remove(name);
        arguments
    };
    let x3dh = door.bundle(true, "none");
    door.refused(
        "invalid_message",
        "session.process_bundle",
        without(begin(x3dh.clone()), "allow_x3dh"),
    );
    door.ok("session.process_bundle", begin(x3dh));
    let first = door.send("alice", "bob", "first");
    let refused = without(decrypt("alice", "bob", &first), "allow_x3dh");
    door.refused("legacy_version", "session.decrypt", refused);
    door.read("alice", "bob", &first);
    // The session is there: nothing has to be allowed any more.
    let second = door.send("alice", "bob", "second");
    door.ok("session.decrypt", without(decrypt("alice", "bob", &second), "allow_x3dh"));
}

#[test]
fn pqxdh_session_has_the_post_quantum_ratchet_without_being_asked_for_it() {
    let mut door = Door::two();
    let bundle = door.bundle(true, "one-time");
    let arguments =
        json!({"party": "alice", "remote": remote("bob"), "bundle": bundle, "now": BEGUN});
    door.ok("session.process_bundle", arguments);
    for (from, to) in [("alice", "bob"), ("bob", "alice"), ("alice", "bob")] {
        let sent = door.send(from, to, "strict");
        let arguments = json!({"party": to, "remote": remote(from), "type": sent["type"], "body": sent["body"]});
        assert_eq!(door.ok("session.decrypt", arguments)["plaintext"], hex::encode("strict"));
        let info = door.ok("session.info", json!({"party": to, "remote": remote(from)}));
        assert_eq!((&info["version"], &info["pq_ratchet"]), (&json!(4), &json!(true)));
    }
}

#[test]
fn unanswered_session_is_stale_after_thirty_days() {
    let mut door = Door::two();
    door.begin(true, "one-time");
    let request = |now: u64| json!({"party": "alice", "remote": remote("bob"), "plaintext": "00", "now": now});
    door.ok("session.encrypt", request(BEGUN + 30 * DAY));
    door.refused("stale_session", "session.encrypt", request(BEGUN + 30 * DAY + 1000));
    let first = door.send("alice", "bob", "first");
    door.read("alice", "bob", &first);
    door.pass("bob", "alice", "answer");
    door.ok("session.encrypt", request(BEGUN + 300 * DAY));
}

#[test]
fn prekeys_serve_once_and_a_last_resort_one_never_the_same_base_key_twice() {
    let mut door = Door::two();
    for (one_time, kem, kind) in [
        (true, "none", "no_prekey"),
        (false, "one-time", "no_prekey"),
        (false, "last-resort", "invalid_message"),
    ] {
        door.begin(one_time, kem);
        let first = door.send("alice", "bob", "first");
        door.read("alice", "bob", &first);
        door.refused(kind, "session.decrypt", decrypt("carol", "bob", &first));
    }
}

#[test]
fn changed_identity_is_untrusted_until_accepted() {
    let mut door = Door::two();
    door.begin(true, "one-time");
    door.pass("alice", "bob", "first");
    let mut arguments = json!({"party": "bob", "registration_id": 78, "seed": "09".repeat(32)});
    arguments.as_object_mut().unwrap().extend(remote("bob").as_object().unwrap().clone());
    let identity = door.ok("party.new", arguments)["identity_public"].clone();
    let bundle = door.bundle(true, "one-time");
    door.refused("untrusted_identity", "session.process_bundle", begin(bundle.clone()));
    let accept = json!({"party": "alice", "remote": remote("bob"), "identity_key": identity});
    door.ok("party.accept_identity", accept);
    let old = json!({"party": "alice", "remote": remote("bob"), "plaintext": "", "now": BEGUN});
    door.refused("untrusted_identity", "session.encrypt", old);
    door.ok("session.process_bundle", begin(bundle));
    door.pass("alice", "bob", "to the new one");
    let info = door.ok("session.info", json!({"party": "alice", "remote": remote("bob")}));
    assert_eq!((&info["remote_identity"], &info["previous_states"]), (&identity, &json!(1)));
}

#[test]
fn archived_session_still_reads_and_no_longer_writes() {
    let mut door = Door::two();
    let at = json!({"party": "alice", "remote": remote("bob")});
    door.ok("session.archive", at.clone());
    door.begin(true, "one-time");
    door.pass("alice", "bob", "first");
    let late = door.send("bob", "alice", "late");
    door.ok("session.archive", at.clone());
    let info = door.ok("session.info", at.clone());
    let nothing = json!({"exists": false, "version": null, "pq_ratchet": null,
                         "previous_states": 0, "remote_identity": null});
    assert_eq!(info, nothing);
    door.refused("no_session", "session.encrypt", with(at, "plaintext", json!("")));
    door.read("bob", "alice", &late);
    door.pass("alice", "bob", "again");
}
