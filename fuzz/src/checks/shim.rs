//! The shim: no line stops it, each gets one line of JSON, and a refusal changes no party.

use serde_json::{Value, json};
use tuckseal_interop::Shim;

/// Lines, asked one after the other of a shim that has Alice and Bob.
pub fn shim_line(data: &[u8]) {
    /// Each line costs what it asks for, at worst a key generation.
    const LINES: usize = 24;
    let mut shim = two_parties();
    let mut state = dump(&mut shim);
    for line in data.split(|byte| *byte == b'\n').take(LINES) {
        let answer = shim.answer(line);
        assert!(!answer.contains('\n'));
        let answer: Value = serde_json::from_str(&answer).expect("an answer is JSON");
        assert!(answer.get("id").is_some());
        let after = dump(&mut shim);
        match (answer.get("ok"), answer.get("err")) {
            (Some(_), None) => {}
            (None, Some(err)) => {
                assert!(err["kind"].is_string() && err["message"].is_string());
                assert_eq!(after, state, "a refusal changed a state");
            }
            _ => panic!("an answer is either ok or err"),
        }
        state = after;
    }
}

fn two_parties() -> Shim {
    let mut shim = Shim::default();
    for line in [ALICE, BOB] {
        ask(&mut shim, line);
    }
    shim
}

const ALICE: &str = r#"{"id":1,"op":"party.new","party":"alice","service_id":"9d0652a3-dcc3-4d11-975f-74d61598733f","device_id":1,"registration_id":77,"seed":"0101010101010101010101010101010101010101010101010101010101010101"}"#;
const BOB: &str = r#"{"id":2,"op":"party.new","party":"bob","service_id":"796abedb-ca4e-4f18-8803-1fde5b921f9f","device_id":1,"registration_id":77,"seed":"0202020202020202020202020202020202020202020202020202020202020202"}"#;

fn ask(shim: &mut Shim, line: &str) -> Value {
    serde_json::from_str(&shim.answer(line.as_bytes())).expect("an answer is JSON")
}

/// Both states, where the parties are still there.
fn dump(shim: &mut Shim) -> [Value; 2] {
    [r#"{"id":0,"op":"party.dump","party":"alice"}"#, r#"{"id":0,"op":"party.dump","party":"bob"}"#]
        .map(|line| ask(shim, line))
}

/// The lines of a conversation that uses every operation, whole and one by one.
pub fn seeds() -> Vec<Vec<u8>> {
    let (alice, bob) = (
        json!({"service_id": "9d0652a3-dcc3-4d11-975f-74d61598733f", "device_id": 1}),
        json!({"service_id": "796abedb-ca4e-4f18-8803-1fde5b921f9f", "device_id": 1}),
    );
    let mut shim = two_parties();
    let own = ask(&mut shim, BOB)["ok"]["identity_public"].clone();
    let mut lines: Vec<String> = Vec::new();
    let mut run = |op: &str, mut request: Value| {
        request["id"] = json!(lines.len());
        request["op"] = json!(op);
        lines.push(request.to_string());
        let answer = ask(&mut shim, &request.to_string());
        assert!(answer.get("ok").is_some(), "{op}: {answer}");
        answer["ok"].clone()
    };
    run("hello", json!({}));
    let bundle = run(
        "party.bundle",
        json!({"party": "bob", "one_time": true, "kem": "last-resort", "now": 1}),
    );
    run(
        "session.process_bundle",
        json!({"party": "alice", "remote": bob, "bundle": bundle, "now": 1}),
    );
    let first = run(
        "session.encrypt",
        json!({"party": "alice", "remote": bob, "plaintext": "00ff", "now": 1}),
    );
    run(
        "session.decrypt",
        json!({"party": "bob", "remote": alice, "type": first["type"], "body": first["body"]}),
    );
    run("session.info", json!({"party": "bob", "remote": alice}));
    let answer = run(
        "session.encrypt",
        json!({"party": "bob", "remote": alice, "plaintext": "01", "now": 2}),
    );
    run(
        "session.decrypt",
        json!({"party": "alice", "remote": bob, "type": answer["type"], "body": answer["body"]}),
    );
    run("retry.request", json!({"failed": answer, "timestamp": 1, "device_id": 1}));
    let state = run("party.dump", json!({"party": "bob"}))["state"].clone();
    run("party.load", json!({"party": "bob", "state": state}));
    let key = run(
        "party.new",
        json!({"party": "root", "service_id": alice["service_id"], "device_id": 1,
        "registration_id": 1, "identity_private": "07".repeat(32)}),
    )["identity_public"]
        .clone();
    let server = run(
        "certificate.server",
        json!({"key_id": 1, "trust_root_private": "07".repeat(32), "server_public": key}),
    )["certificate"]
        .clone();
    let sender = run("certificate.sender", json!({"service_id": bob["service_id"], "e164": null, "device_id": 1,
        "identity_public": own, "expires": 1000, "server_certificate": server, "server_private": "07".repeat(32)}))["certificate"].clone();
    run("certificate.check", json!({"certificate": sender, "trust_roots": [key], "now": 1}));
    let sealed = run(
        "sealed.seal",
        json!({"party": "bob", "remote": alice, "sender_certificate": sender,
        "plaintext": "02", "content_hint": "resendable", "group_id": "03", "now": 3}),
    );
    run(
        "sealed.open",
        json!({"party": "alice", "trust_roots": [key], "now": 3, "body": sealed["body"]}),
    );
    let group = "0f".repeat(8) + &"f0".repeat(8);
    let group = format!(
        "{}-{}-{}-{}-{}",
        &group[..8],
        &group[8..12],
        &group[12..16],
        &group[16..20],
        &group[20..]
    );
    let sent = run("group.distribute", json!({"party": "alice", "distribution_id": group}));
    run("group.process", json!({"party": "bob", "sender": alice, "body": sent["body"]}));
    let sent = run(
        "group.encrypt",
        json!({"party": "alice", "distribution_id": group, "plaintext": "04"}),
    );
    run("group.decrypt", json!({"party": "bob", "sender": alice, "body": sent["body"]}));
    let content = json!({"type": "whisper", "body": answer["body"]});
    let sent = run(
        "sealed.seal_multi",
        json!({"party": "bob", "recipients": [alice], "sender_certificate": sender,
        "content": content, "content_hint": "default", "excluded": ["00000000-0000-4000-8000-000000000000"]}),
    );
    run("sealed.split", json!({"sent": sent["sent"]}));
    let number = run(
        "fingerprint",
        json!({"version": 2, "iterations": 2, "local": {"id": "00", "key": key}, "remote": {"id": "01", "key": own}}),
    );
    run("fingerprint.compare", json!({"ours": number["scannable"], "theirs": number["scannable"]}));
    run("party.accept_identity", json!({"party": "alice", "remote": bob, "identity_key": key}));
    let signature = run(
        "xeddsa.sign",
        json!({"private": "07".repeat(32), "message": "00", "random": "00".repeat(64)}),
    )["signature"]
        .clone();
    run("xeddsa.verify", json!({"public": key, "message": "00", "signature": signature}));
    run("session.archive", json!({"party": "bob", "remote": alice}));
    run("retry.parse", json!({"body": "10011801"}));
    let mut seeds: Vec<Vec<u8>> = lines.iter().map(|line| line.clone().into_bytes()).collect();
    seeds.push(lines.join("\n").into_bytes());
    seeds
}
