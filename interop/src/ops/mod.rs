//! The operations of shim.md, one file per group, and the table that finds them. A feature is
//! listed when it works, not before.

mod attachment;
mod certificate;
mod fingerprint;
mod group;
mod import;
mod multi;
mod party;
mod retry;
mod sealed;
mod session;
mod xeddsa;

use crate::error::{Kind, Refusal};
use crate::party::Party;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What this release can do, in the words of shim.md.
const FEATURES: [&str; 10] = [
    "x3dh-v3",
    "pqxdh-v4",
    "spqr",
    "sealed-sender-v1",
    "sealed-sender-v2",
    "sender-keys",
    "fingerprints",
    "retry",
    "libsignal-import",
    "attachments",
];

type Request = Map<String, Value>;
type Answer = Result<Value, Refusal>;

/// The running shim: the parties by their names.
#[derive(Default)]
pub struct Shim {
    parties: BTreeMap<String, Party>,
}

impl Shim {
    /// Answers one line with one line, both without their ends.
    pub fn answer(&mut self, line: &[u8]) -> String {
        let (id, answer) = match serde_json::from_slice(line) {
            Ok(Value::Object(mut request)) => match request.remove("id") {
                Some(id) => (id, self.perform(request)),
                None => (Value::Null, Err(Refusal::bad_request("the request has no id"))),
            },
            Ok(_) => (Value::Null, Err(Refusal::bad_request("a request is a JSON object"))),
            Err(error) => (Value::Null, Err(Refusal::bad_request(error))),
        };
        write(&id, answer)
    }

    /// The answer to a line that is too long to be read.
    pub fn answer_too_long(limit: u64) -> String {
        let refusal = Refusal::bad_request(format!("the line is longer than {limit} bytes"));
        write(&Value::Null, Err(refusal))
    }

    fn perform(&mut self, mut request: Request) -> Answer {
        let Some(Value::String(op)) = request.remove("op") else {
            return Err(Refusal::bad_request("the request has no op"));
        };
        match op.as_str() {
            "hello" => Ok(hello()),
            "party.new" => party::new(self, request),
            "party.dump" => party::dump(self, request),
            "party.load" => party::load(self, request),
            "party.bundle" => party::bundle(self, request),
            "party.accept_identity" => party::accept_identity(self, request),
            "session.process_bundle" => session::process_bundle(self, request),
            "session.encrypt" => session::encrypt(self, request),
            "session.decrypt" => session::decrypt(self, request),
            "session.info" => session::info(self, request),
            "session.archive" => session::archive(self, request),
            "session.import" => import::session(self, request),
            "prekey.import" => import::prekey(self, request),
            "sealed.seal" => sealed::seal(self, request),
            "sealed.seal_multi" => multi::seal(self, request),
            "sealed.split" => multi::split(request),
            "sealed.open" => sealed::open(self, request),
            "certificate.server" => certificate::server(request),
            "certificate.sender" => certificate::sender(request),
            "certificate.check" => certificate::check(request),
            "group.distribute" => group::distribute(self, request),
            "group.process" => group::process(self, request),
            "group.encrypt" => group::encrypt(self, request),
            "group.decrypt" => group::decrypt(self, request),
            "group.import" => import::group(self, request),
            "fingerprint" => fingerprint::make(request),
            "fingerprint.compare" => fingerprint::compare(request),
            "xeddsa.sign" => xeddsa::sign(request),
            "xeddsa.verify" => xeddsa::verify(request),
            "retry.request" => retry::request(request),
            "attachment.encrypt" => attachment::encrypt(request),
            "attachment.decrypt" => attachment::decrypt(request),
            "retry.parse" => retry::parse(request),
            _ => Err(Refusal::new(Kind::Unsupported, "no such operation in this release")),
        }
    }

    fn party(&mut self, name: &str) -> Result<&mut Party, Refusal> {
        self.parties.get_mut(name).ok_or_else(|| {
            Refusal::bad_request("no such party: make it with party.new or party.load")
        })
    }
}

fn hello() -> Value {
    json!({"name": "tuckseal", "version": env!("CARGO_PKG_VERSION"), "features": FEATURES})
}

fn write(id: &Value, answer: Answer) -> String {
    match answer {
        Ok(ok) => json!({"id": id, "ok": ok}),
        Err(Refusal { kind, message }) => {
            json!({"id": id, "err": {"kind": kind.name(), "message": message}})
        }
    }
    .to_string()
}
