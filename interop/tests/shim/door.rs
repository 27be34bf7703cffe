//! A shim that is asked in this process, two parties behind it, and the requests of a conversation.

use serde_json::{Value, json};
use tuckseal_interop::Shim;

/// When sessions begin: milliseconds since 1970.
pub(crate) const BEGUN: u64 = 1_700_000_000_000;
/// Milliseconds.
pub(crate) const DAY: u64 = 24 * 60 * 60 * 1000;

/// A shim that is asked in this process.
#[derive(Default)]
pub(crate) struct Door(pub(crate) Shim);

impl Door {
    pub(crate) fn ask(&mut self, op: &str, arguments: Value) -> Result<Value, String> {
        let mut request = arguments;
        request["id"] = json!([op, 1]);
        request["op"] = json!(op);
        let answer: Value =
            serde_json::from_str(&self.0.answer(request.to_string().as_bytes())).unwrap();
        assert_eq!(answer["id"], request["id"]);
        match answer.get("ok") {
            Some(ok) => Ok(ok.clone()),
            None => Err(answer["err"]["kind"].as_str().unwrap().to_owned()),
        }
    }

    pub(crate) fn ok(&mut self, op: &str, arguments: Value) -> Value {
        self.ask(op, arguments).unwrap_or_else(|kind| panic!("{op}: {kind}"))
    }

    pub(crate) fn dump(&mut self, party: &str) -> Value {
        self.ok("party.dump", json!({"party": party}))["state"].clone()
    }

    /// The request is refused with this kind, and no party is changed.
    pub(crate) fn refused(&mut self, kind: &str, op: &str, arguments: Value) {
        let before = [self.dump("alice"), self.dump("bob")];
        let found = self.ask(op, arguments.clone());
        assert_eq!(found, Err(kind.to_owned()), "{op} {arguments}");
        assert!(
            before == [self.dump("alice"), self.dump("bob")],
            "{op} {arguments} changed a state"
        );
    }

    /// Alice and Bob, each from a seed.
    pub(crate) fn two() -> Self {
        let mut door = Self::default();
        for (party, seed) in [("alice", "01"), ("bob", "02")] {
            let Value::Object(remote) = remote(party) else { unreachable!() };
            let mut arguments =
                json!({"party": party, "registration_id": 77, "seed": seed.repeat(32)});
            arguments.as_object_mut().unwrap().extend(remote);
            door.ok("party.new", arguments);
        }
        door
    }

    pub(crate) fn bundle(&mut self, one_time: impl Into<Value>, kem: &str) -> Value {
        self.ok(
            "party.bundle",
            json!({"party": "bob", "one_time": one_time.into(), "kem": kem, "now": BEGUN}),
        )
    }

    /// Alice begins with Bob. Gives his bundle.
    pub(crate) fn begin(&mut self, one_time: impl Into<Value>, kem: &str) -> Value {
        let bundle = self.bundle(one_time, kem);
        self.ok("session.process_bundle", begin(bundle.clone()));
        bundle
    }

    pub(crate) fn send(&mut self, from: &str, to: &str, text: &str) -> Value {
        let plaintext = hex::encode(text);
        self.ok(
            "session.encrypt",
            json!({"party": from, "remote": remote(to), "plaintext": plaintext, "now": BEGUN}),
        )
    }

    pub(crate) fn read(&mut self, from: &str, to: &str, message: &Value) -> Value {
        self.ok("session.decrypt", decrypt(from, to, message))
    }

    pub(crate) fn pass(&mut self, from: &str, to: &str, text: &str) -> Value {
        let message = self.send(from, to, text);
        let read = self.read(from, to, &message);
        assert_eq!(read["plaintext"], hex::encode(text));
        message
    }
}

pub(crate) fn remote(party: &str) -> Value {
    let service_id = match party {
        "alice" => "9d0652a3-dcc3-4d11-975f-74d61598733f",
        "bob" => "796abedb-ca4e-4f18-8803-1fde5b921f9f",
        _ => "31415926-5358-4979-8323-846264338327",
    };
    json!({"service_id": service_id, "device_id": 1})
}

pub(crate) fn begin(bundle: Value) -> Value {
    json!({"party": "alice", "remote": remote("bob"), "bundle": bundle, "now": BEGUN,
           "allow_x3dh": true, "allow_no_pq": true})
}

pub(crate) fn decrypt(from: &str, to: &str, message: &Value) -> Value {
    json!({"party": to, "remote": remote(from), "type": message["type"], "body": message["body"],
           "allow_x3dh": true, "allow_no_pq": true})
}

/// The message with one bit of one byte changed; counted from the end when negative.
pub(crate) fn changed(message: &Value, place: isize) -> Value {
    let mut body = hex::decode(message["body"].as_str().unwrap()).unwrap();
    let place = place.rem_euclid(body.len() as isize) as usize;
    body[place] ^= 1;
    json!({"type": message["type"], "body": hex::encode(body)})
}

pub(crate) fn with(mut arguments: Value, name: &str, value: Value) -> Value {
    arguments[name] = value;
    arguments
}

/// The public key of the private key made of one byte, found by making a party of it.
pub(crate) fn key(door: &mut Door, private: &str) -> Value {
    let arguments = json!({"party": "keys", "service_id": remote("carol")["service_id"], "device_id": 1,
                           "registration_id": 1, "identity_private": private.repeat(32)});
    door.ok("party.new", arguments)["identity_public"].clone()
}
