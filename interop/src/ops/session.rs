//! `session.*`: sessions with one remote device each. Every operation works on a copy of the record
//! and puts it back when all of it succeeded.

use super::{Answer, Request, Shim};
use crate::error::Refusal;
use crate::party::Party;
use crate::request::{Bundle, Hex, Now, Remote, arguments, or_clock};
use serde::Deserialize;
use serde_json::{Value, json};
use tuckseal::{
    Address, AgreementPolicy, Decrypted, Encrypted, KemPreKeyId, MessageKind, PreKeySignalMessage,
    SessionInfo, SessionRecord, SignalMessage, Timestamp,
};

/// The two relaxations that a request may ask for. Absent is no.
#[derive(Deserialize, Clone, Copy)]
pub(super) struct Allow {
    allow_x3dh: Option<bool>,
    allow_no_pq: Option<bool>,
}

impl Allow {
    fn policy(self) -> AgreementPolicy {
        match (self.allow_x3dh.unwrap_or(false), self.allow_no_pq.unwrap_or(false)) {
            (false, false) => AgreementPolicy::RequireSpqr,
            (false, true) => AgreementPolicy::AllowNoSpqr,
            (true, false) => AgreementPolicy::AllowX3dh,
            (true, true) => AgreementPolicy::AllowX3dhAndNoSpqr,
        }
    }
}

#[derive(Deserialize)]
struct ProcessBundle {
    party: String,
    remote: Remote,
    bundle: Bundle,
    now: Now,
    #[serde(flatten)]
    allow: Allow,
}

pub(super) fn process_bundle(shim: &mut Shim, request: Request) -> Answer {
    let it: ProcessBundle = arguments(request)?;
    let (remote, bundle) = (it.remote.address()?, it.bundle.parse()?);
    // No clock enters the state: a session begun at no given time never gets too old.
    let begun = Timestamp::from_millis(it.now.unwrap_or(u64::MAX));
    let Party { state, rng } = shim.party(&it.party)?;
    let mut record = state.record(&remote);
    let (trust, policy) = (state.trust(&remote), it.allow.policy());
    record.initiate(&state.local, &remote, &bundle, trust, policy, rng, begun)?;
    let info = record.info();
    state.keep(remote, record, bundle.identity_key);
    Ok(json!({"version": info.map(version)}))
}

fn version(info: SessionInfo) -> u32 {
    info.version as u32
}

#[derive(Deserialize)]
struct Encrypt {
    party: String,
    remote: Remote,
    plaintext: Hex,
    now: Now,
}

pub(super) fn encrypt(shim: &mut Shim, request: Request) -> Answer {
    let it: Encrypt = arguments(request)?;
    let remote = it.remote.address()?;
    let party = shim.party(&it.party)?;
    let (record, sent) = encrypt_on_copy(party, &remote, &it.plaintext.0, it.now)?;
    keep_sent(party, remote, record);
    Ok(json!({"type": kind_name(sent.kind), "body": hex::encode(sent.body)}))
}

/// Encrypts; the record comes back to be kept when what follows succeeded too.
pub(super) fn encrypt_on_copy(
    party: &mut Party,
    remote: &Address,
    plaintext: &[u8],
    now: Now,
) -> Result<(SessionRecord, Encrypted), Refusal> {
    let Party { state, rng } = party;
    let mut record = state.record(remote);
    let trust = state.trust(remote);
    let sent = record.encrypt(&state.local, remote, plaintext, trust, rng, or_clock(now))?;
    Ok((record, sent))
}

/// Commits what [`encrypt_on_copy`] gave.
pub(super) fn keep_sent(party: &mut Party, remote: Address, record: SessionRecord) {
    if let Some(info) = record.info() {
        party.state.keep(remote, record, info.remote_identity);
    }
}

fn kind_name(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::PreKey => "prekey",
        _ => "whisper",
    }
}

/// The type of a message, in requests.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum Type {
    PreKey,
    Whisper,
}

#[derive(Deserialize)]
struct Decrypt {
    party: String,
    remote: Remote,
    r#type: Type,
    body: Hex,
    #[serde(flatten)]
    allow: Allow,
}

pub(super) fn decrypt(shim: &mut Shim, request: Request) -> Answer {
    let it: Decrypt = arguments(request)?;
    let remote = it.remote.address()?;
    let party = shim.party(&it.party)?;
    let (decrypted, kem) = decrypt_and_keep(party, remote, it.r#type, &it.body.0, it.allow)?;
    let one_time = decrypted.consumed.and_then(|consumed| consumed.one_time);
    Ok(json!({
        "plaintext": hex::encode(&decrypted.plaintext),
        "consumed_prekey": one_time.map(|id| id.0),
        "consumed_kem_prekey": kem.map(|id| id.0),
    }))
}

/// Decrypts and commits. Gives the id of a one-time KEM prekey that was used up.
pub(super) fn decrypt_and_keep(
    party: &mut Party,
    remote: Address,
    kind: Type,
    body: &[u8],
    allow: Allow,
) -> Result<(Decrypted, Option<KemPreKeyId>), Refusal> {
    let Party { state, rng } = party;
    let mut record = state.record(&remote);
    let (local, trust) = (&state.local, state.trust(&remote));
    let decrypted = match kind {
        Type::Whisper => {
            let message = SignalMessage::decode(body)?;
            record.decrypt(local, &remote, &message, trust, rng)?
        }
        Type::PreKey => {
            let message = PreKeySignalMessage::decode(body)?;
            let prekeys = state.prekeys(&message.needs());
            let policy = allow.policy();
            record.decrypt_first(local, &remote, &message, prekeys, trust, policy, rng)?
        }
    };
    state.keep(remote, record, decrypted.identity);
    let kem = decrypted.consumed.as_ref().and_then(|consumed| state.consume(consumed));
    Ok((decrypted, kem))
}

#[derive(Deserialize)]
struct WithRemote {
    party: String,
    remote: Remote,
}

pub(super) fn info(shim: &mut Shim, request: Request) -> Answer {
    let it: WithRemote = arguments(request)?;
    let remote = it.remote.address()?;
    let record = shim.party(&it.party)?.state.session(&remote);
    Ok(match record.and_then(|record| record.info().map(|info| (record, info))) {
        Some((record, info)) => describe(record, info),
        None => json!({
            "exists": false,
            "version": null,
            "pq_ratchet": null,
            "previous_states": 0,
            "remote_identity": null,
        }),
    })
}

fn describe(record: &SessionRecord, info: SessionInfo) -> Value {
    json!({
        "exists": true,
        "version": version(info),
        "pq_ratchet": info.post_quantum_ratchet,
        "previous_states": record.archived_sessions(),
        "remote_identity": hex::encode(info.remote_identity.serialize()),
    })
}

pub(super) fn archive(shim: &mut Shim, request: Request) -> Answer {
    let it: WithRemote = arguments(request)?;
    let remote = it.remote.address()?;
    shim.party(&it.party)?.state.archive(&remote);
    Ok(json!({}))
}
