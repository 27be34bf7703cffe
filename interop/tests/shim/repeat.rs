//! `seed`: two runs of the program with the same script answer with the same bytes.

use crate::door::{BEGUN, DAY, Door, key, remote};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The program, and all that it answered.
struct Program {
    child: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    transcript: Vec<String>,
}

impl Program {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_shim"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, answers, transcript: Vec::new() }
    }

    fn ask(&mut self, op: &str, mut request: Value) -> Value {
        request["id"] = json!(self.transcript.len());
        request["op"] = json!(op);
        writeln!(self.input, "{request}").unwrap();
        let line = self.answers.next().unwrap().unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("ok").is_some(), "{op}: {line}");
        self.transcript.push(line);
        answer["ok"].clone()
    }

    fn end(mut self) -> Vec<String> {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
        self.transcript
    }
}

/// A certificate of Alice's, made once: issuing draws from the operating system.
fn certificate(identity: &Value) -> Value {
    let mut door = Door::default();
    let server = key(&mut door, "22");
    let request =
        json!({"key_id": 5, "trust_root_private": "11".repeat(32), "server_public": server});
    let server = door.ok("certificate.server", request)["certificate"].clone();
    let request = json!({"service_id": remote("alice")["service_id"], "e164": null, "device_id": 1,
                         "identity_public": identity, "expires": BEGUN + DAY,
                         "server_certificate": server, "server_private": "22".repeat(32)});
    door.ok("certificate.sender", request)["certificate"].clone()
}

/// Sessions of both versions, sealed envelopes and a group, everything from two seeds.
fn script(program: &mut Program, certificate: &mut Option<Value>) {
    for (party, seed) in [("alice", "01"), ("bob", "02")] {
        let mut new = json!({"party": party, "registration_id": 77, "seed": seed.repeat(32)});
        new.as_object_mut().unwrap().extend(remote(party).as_object().unwrap().clone());
        let made = program.ask("party.new", new);
        if party == "alice" {
            certificate.get_or_insert_with(|| self::certificate(&made["identity_public"]));
        }
    }
    for (one_time, kem) in [(true, "none"), (false, "last-resort"), (true, "one-time")] {
        let bundle = json!({"party": "bob", "one_time": one_time, "kem": kem, "now": BEGUN});
        let bundle = program.ask("party.bundle", bundle);
        let begin = json!({"party": "alice", "remote": remote("bob"), "bundle": bundle, "now": BEGUN,
                           "allow_x3dh": true});
        program.ask("session.process_bundle", begin);
        for (from, to) in [("alice", "bob"), ("bob", "alice")].into_iter().cycle().take(40) {
            let write =
                json!({"party": from, "remote": remote(to), "plaintext": "00ff", "now": BEGUN});
            let sent = program.ask("session.encrypt", write);
            let read = json!({"party": to, "remote": remote(from), "type": sent["type"],
                              "body": sent["body"], "allow_x3dh": true});
            program.ask("session.decrypt", read);
        }
    }
    let seal = json!({"party": "alice", "remote": remote("bob"), "sender_certificate": certificate,
                      "plaintext": "01", "content_hint": "implicit", "now": BEGUN});
    program.ask("sealed.seal", seal);
    let id = "2f9ad9e2-3a4c-4bd5-9f1d-0f6a5c1c3b77";
    program.ask("group.distribute", json!({"party": "alice", "distribution_id": id}));
    let write = json!({"party": "alice", "distribution_id": id, "plaintext": "02"});
    let body = program.ask("group.encrypt", write)["body"].clone();
    let seal = json!({"party": "alice", "recipients": [remote("bob")], "sender_certificate": certificate,
                      "content": {"type": "sender_key", "body": body}, "content_hint": "default"});
    program.ask("sealed.seal_multi", seal);
    for party in ["alice", "bob"] {
        program.ask("party.dump", json!({"party": party}));
    }
}

#[test]
fn two_runs_of_one_script_with_the_same_seeds_answer_equal_bytes() {
    let mut certificate = None;
    let [first, second] = [(); 2].map(|()| {
        let mut program = Program::start();
        script(&mut program, &mut certificate);
        program.end()
    });
    assert_eq!(first.len(), 2 + 3 * 82 + 1 + 3 + 2);
    assert!(first == second);
}
