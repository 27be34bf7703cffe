//! What libsignal stores, taken over (W§17): sessions, prekeys and sender keys. Nothing of a party
//! changes unless the whole record could be read.

use super::{Answer, Request, Shim};
use crate::party::KemUse;
use crate::request::{Hex, Remote, arguments, uuid};
use serde::Deserialize;
use serde_json::json;
use tuckseal::{KemPreKey, PreKey, SenderKey, SenderKeyRecord, SessionRecord, SignedPreKey};

#[derive(Deserialize)]
struct Session {
    party: String,
    remote: Remote,
    record: Hex,
}

pub(super) fn session(shim: &mut Shim, request: Request) -> Answer {
    let it: Session = arguments(request)?;
    let remote = it.remote.address()?;
    let state = &mut shim.party(&it.party)?.state;
    let local = state.local.identity.identity_key();
    let imported = SessionRecord::import_libsignal(&it.record.0, &local, state.trust(&remote))?;
    state.replace(remote, imported.record, imported.remote_identity);
    Ok(json!({"damaged": imported.damaged}))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    OneTime,
    Signed,
    KemOneTime,
    KemLastResort,
}

#[derive(Deserialize)]
struct Prekey {
    party: String,
    kind: Kind,
    record: Hex,
}

pub(super) fn prekey(shim: &mut Shim, request: Request) -> Answer {
    let it: Prekey = arguments(request)?;
    let (state, record) = (&mut shim.party(&it.party)?.state, &it.record.0[..]);
    let id = match it.kind {
        Kind::OneTime => state.take_over_one_time(PreKey::import_libsignal(record)?),
        Kind::Signed => state.take_over_signed(SignedPreKey::import_libsignal(record)?),
        Kind::KemOneTime => {
            state.take_over_kem(KemUse::OneTime, KemPreKey::import_libsignal(record)?)
        }
        Kind::KemLastResort => {
            state.take_over_kem(KemUse::LastResort, KemPreKey::import_libsignal(record)?)
        }
    };
    Ok(json!({"id": id}))
}

#[derive(Deserialize)]
struct Group {
    party: String,
    sender: Option<Remote>,
    distribution_id: String,
    record: Hex,
}

/// A sender's keys, or the party's own where no sender is named.
pub(super) fn group(shim: &mut Shim, request: Request) -> Answer {
    let it: Group = arguments(request)?;
    let id = uuid(&it.distribution_id)?;
    let sender = it.sender.map(|sender| sender.address()).transpose()?;
    let state = &mut shim.party(&it.party)?.state;
    match sender {
        Some(sender) => {
            let record = SenderKeyRecord::import_libsignal(&it.record.0)?;
            state.sender_keys.insert((sender, id), record);
        }
        None => {
            let key = SenderKey::import_libsignal(&it.record.0, id)?;
            state.own_keys.insert(id, key);
        }
    }
    Ok(json!({}))
}
