//! Framing and the list of features: what the program does with its lines.

use crate::door::Door;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

#[test]
fn operations_of_features_that_are_not_listed_are_unsupported() {
    let mut door = Door::two();
    let features = door.ok("hello", json!({}))["features"].clone();
    assert_eq!(
        features,
        json!([
            "x3dh-v3",
            "pqxdh-v4",
            "spqr",
            "sealed-sender-v1",
            "sealed-sender-v2",
            "sender-keys",
            "fingerprints",
            "retry",
            "libsignal-import",
            "attachments"
        ])
    );
    for op in ["session.export", "", "Hello"] {
        door.refused("unsupported", op, json!({}));
    }
}

#[test]
fn program_answers_line_by_line_and_ends_with_its_input() {
    let mut shim = Command::new(env!("CARGO_BIN_EXE_shim"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shim.stdin.take().unwrap();
    let deep = "[".repeat(100_000);
    let lines: [(&[u8], &str, Value); 10] = [
        (br#"{"id":{"a":[1]},"op":"hello"}"#, "ok", json!({"a": [1]})),
        (b"", "bad_request", Value::Null),
        (b"nonsense", "bad_request", Value::Null),
        (b"\xff\xfe\x00", "bad_request", Value::Null),
        (deep.as_bytes(), "bad_request", Value::Null),
        (b"[1]", "bad_request", Value::Null),
        (br#"{"op":"hello"}"#, "bad_request", Value::Null),
        (br#"{"id":2}"#, "bad_request", json!(2)),
        (br#"{"id":3,"op":"party.new","party":5}"#, "bad_request", json!(3)),
        (br#"{"id":"last","op":"hello","unknown":1}"#, "ok", json!("last")),
    ];
    for (line, ..) in &lines {
        input.write_all(line).unwrap();
        input.write_all(b"\n").unwrap();
    }
    drop(input);
    let mut answers = BufReader::new(shim.stdout.take().unwrap()).lines();
    for (line, wanted, id) in lines {
        let answer: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        let found =
            if answer.get("ok").is_some() { "ok" } else { answer["err"]["kind"].as_str().unwrap() };
        assert_eq!((found, &answer["id"]), (wanted, &id), "{}", String::from_utf8_lossy(line));
    }
    assert!(answers.next().is_none());
    let end = shim.wait_with_output().unwrap();
    assert!(end.status.success());
    assert!(end.stderr.is_empty());
}
