//! `sealed.*` and `certificate.*`.

use crate::door::{BEGUN, DAY, Door, changed, key, remote, with};
use serde_json::{Value, json};

/// A trust root, a server under it, and Alice's certificate.
struct Certified {
    root: Value,
    certificate: Value,
}

const EXPIRES: u64 = BEGUN + DAY;

fn certify(door: &mut Door, identity: &Value, party: &str) -> Certified {
    let (root, server) = (key(door, "11"), key(door, "22"));
    let server_certificate = door.ok(
        "certificate.server",
        json!({
            "key_id": 5, "trust_root_private": "11".repeat(32), "server_public": server,
        }),
    )["certificate"]
        .clone();
    let certificate = door.ok(
        "certificate.sender",
        json!({
            "service_id": remote(party)["service_id"], "device_id": 1, "e164": "+15550100",
            "identity_public": identity, "expires": EXPIRES,
            "server_certificate": server_certificate, "server_private": "22".repeat(32),
        }),
    )["certificate"]
        .clone();
    Certified { root, certificate }
}

fn identity(door: &mut Door, party: &str) -> Value {
    let bundle = door.ok("party.bundle", json!({"party": party, "one_time": false, "kem": "none"}));
    bundle["identity_key"].clone()
}

#[test]
fn sealed_message_tells_its_sender_and_is_refused_in_every_other_way() {
    let mut door = Door::two();
    door.begin(true, "one-time");
    let alice = identity(&mut door, "alice");
    let bob = identity(&mut door, "bob");
    let Certified { root, certificate } = certify(&mut door, &alice, "alice");
    let seal = json!({"party": "alice", "remote": remote("bob"), "sender_certificate": certificate,
                      "plaintext": hex::encode("psst"), "content_hint": "resendable", "group_id": "0a",
                      "now": BEGUN});
    let body = door.ok("sealed.seal", seal.clone())["body"].clone();
    let open = json!({"party": "bob", "trust_roots": [bob, root], "now": EXPIRES, "body": body});
    let refuse = |door: &mut Door, kind, name: &str, value: Value| {
        door.refused(kind, "sealed.open", with(open.clone(), name, value));
    };
    refuse(&mut door, "invalid_certificate", "trust_roots", json!([bob]));
    refuse(&mut door, "invalid_certificate", "trust_roots", json!([]));
    refuse(&mut door, "invalid_key", "trust_roots", json!(["05"]));
    refuse(&mut door, "invalid_certificate", "now", json!(EXPIRES + 1));
    refuse(&mut door, "invalid_message", "body", json!(""));
    refuse(&mut door, "unknown_version", "body", json!("3300"));
    refuse(&mut door, "invalid_message", "body", json!("2200"));
    refuse(
        &mut door,
        "invalid_message",
        "body",
        changed(&json!({"body": body}), -1)["body"].clone(),
    );
    refuse(&mut door, "invalid_message", "party", json!("alice"));
    let opened = door.ok("sealed.open", open.clone());
    assert_eq!(
        opened,
        json!({
            "sender": remote("alice"), "e164": "+15550100", "content_type": "prekey",
            "content_hint": "resendable", "group_id": "0a", "plaintext": hex::encode("psst"),
        })
    );
    door.refused("duplicate_message", "sealed.open", open.clone());

    // A certificate of another key than the one that seals, and one that names the recipient.
    for (identity, sender, kind) in
        [(&bob, "alice", "invalid_certificate"), (&alice, "bob", "self_send")]
    {
        let foreign = certify(&mut door, identity, sender).certificate;
        let body =
            door.ok("sealed.seal", with(seal.clone(), "sender_certificate", foreign))["body"]
                .clone();
        door.refused(kind, "sealed.open", with(open.clone(), "body", body));
    }
    door.refused(
        "invalid_certificate",
        "sealed.seal",
        with(seal.clone(), "sender_certificate", json!("00")),
    );
    door.refused("bad_request", "sealed.seal", with(seal.clone(), "content_hint", json!("loud")));
    door.refused("no_session", "sealed.seal", with(seal, "remote", remote("carol")));
}

#[test]
fn certificates_are_checked_for_root_and_time() {
    let mut door = Door::two();
    let alice = identity(&mut door, "alice");
    let Certified { root, certificate } = certify(&mut door, &alice, "alice");
    let check = json!({"certificate": certificate, "trust_roots": [root], "now": EXPIRES});
    assert_eq!(door.ok("certificate.check", check.clone())["valid"], true);
    for (name, value) in [("now", json!(EXPIRES + 1)), ("trust_roots", json!([alice]))] {
        assert_eq!(door.ok("certificate.check", with(check.clone(), name, value))["valid"], false);
    }
    door.refused(
        "invalid_certificate",
        "certificate.check",
        with(check, "certificate", json!("0a00")),
    );
}

#[test]
fn envelope_for_many_is_split_and_opened_and_broken_requests_are_refused() {
    let mut door = Door::two();
    door.begin(true, "one-time");
    let alice = identity(&mut door, "alice");
    let Certified { root, certificate } = certify(&mut door, &alice, "alice");
    let message = door.send("alice", "bob", "psst");
    let carol = remote("carol")["service_id"].clone();
    let seal = json!({"party": "alice", "recipients": [remote("bob")], "content": message,
                      "sender_certificate": certificate, "content_hint": "implicit",
                      "group_id": "0a", "excluded": [carol]});
    let sent = door.ok("sealed.seal_multi", seal.clone())["sent"].clone();
    let split = door.ok("sealed.split", json!({"sent": sent}));
    assert_eq!(split["excluded"], json!([carol]));
    let recipient = &split["recipients"][0];
    assert_eq!(recipient["service_id"], remote("bob")["service_id"]);
    assert_eq!(recipient["devices"], json!([{"device_id": 1, "registration_id": 77}]));
    let open = json!({"party": "bob", "trust_roots": [root], "now": EXPIRES,
                      "body": recipient["received"]});
    door.refused("invalid_message", "sealed.open", with(open.clone(), "party", json!("alice")));
    door.refused(
        "invalid_certificate",
        "sealed.open",
        with(open.clone(), "now", json!(EXPIRES + 1)),
    );
    let opened = door.ok("sealed.open", open);
    assert_eq!(
        (&opened["plaintext"], &opened["content_type"]),
        (&json!(hex::encode("psst")), &json!("prekey"))
    );

    let bob = remote("bob")["service_id"].clone();
    for (name, value, kind) in [
        ("recipients", json!([remote("carol")]), "no_session"),
        ("recipients", json!({}), "bad_request"),
        ("excluded", json!([bob]), "bad_request"),
        ("excluded", json!([carol, carol]), "bad_request"),
        ("excluded", json!(["carol"]), "bad_request"),
        ("content", json!({"type": "quiet", "body": ""}), "bad_request"),
        ("sender_certificate", json!("00"), "invalid_certificate"),
        ("content_hint", json!("loud"), "bad_request"),
    ] {
        door.refused(kind, "sealed.seal_multi", with(seal.clone(), name, value));
    }
    let cut = sent.as_str().unwrap();
    for (broken, kind) in
        [("", "invalid_message"), ("24", "unknown_version"), (&cut[..60], "invalid_message")]
    {
        door.refused(kind, "sealed.split", json!({"sent": broken}));
    }
}

#[test]
fn registration_id_of_more_than_fourteen_bits_is_a_limit() {
    let mut door = Door::default();
    for (party, id) in [("alice", 1), ("bob", 0x4000)] {
        let mut new = json!({"party": party, "registration_id": id});
        new.as_object_mut().unwrap().extend(remote(party).as_object().unwrap().clone());
        door.ok("party.new", new);
    }
    door.begin(true, "one-time");
    let alice = identity(&mut door, "alice");
    let certificate = certify(&mut door, &alice, "alice").certificate;
    let message = door.send("alice", "bob", "psst");
    let seal = json!({"party": "alice", "recipients": [remote("bob")], "content": message,
                      "sender_certificate": certificate, "content_hint": "default"});
    door.refused("limit", "sealed.seal_multi", seal);
}
