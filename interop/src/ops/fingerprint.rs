//! `fingerprint` and `fingerprint.compare`: safety numbers (W§16).

use super::{Answer, Request};
use crate::error::Refusal;
use crate::request::{Hex, arguments};
use serde::Deserialize;
use serde_json::json;
use tuckseal::{Comparison, Fingerprint, FingerprintParty, IdentityKey, Iterations};

#[derive(Deserialize)]
struct Make {
    version: u32,
    iterations: u32,
    local: Side,
    remote: Side,
}

#[derive(Deserialize)]
struct Side {
    id: Hex,
    key: Hex,
}

impl Side {
    fn party(&self) -> Result<FingerprintParty<'_>, Refusal> {
        Ok(FingerprintParty { id: &self.id.0, identity_key: IdentityKey::decode(&self.key.0)? })
    }
}

pub(super) fn make(request: Request) -> Answer {
    let it: Make = arguments(request)?;
    let version = match it.version {
        1 | 2 => it.version,
        other => return Err(Refusal::bad_request(format!("version {other} is neither 1 nor 2"))),
    };
    let iterations = Iterations::new(it.iterations).map_err(Refusal::bad_request)?;
    let made = Fingerprint::new(version, iterations, it.local.party()?, it.remote.party()?);
    Ok(json!({"display": made.to_string(), "scannable": hex::encode(made.encode())}))
}

#[derive(Deserialize)]
struct Compare {
    ours: Hex,
    theirs: Hex,
}

pub(super) fn compare(request: Request) -> Answer {
    let it: Compare = arguments(request)?;
    let ours = Fingerprint::decode(&it.ours.0).map_err(Refusal::fingerprint)?;
    let compared = ours.compare(&it.theirs.0).map_err(Refusal::fingerprint)?;
    Ok(json!({"match": compared == Comparison::Match}))
}
