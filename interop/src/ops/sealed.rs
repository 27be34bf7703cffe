//! `sealed.seal` and `sealed.open`: sealed sender of version 1 around session messages, and the opening
//! of both versions. Version 2 is made in `multi.rs`.

use super::session::{Allow, Type, decrypt_and_keep, encrypt_on_copy, keep_sent};
use super::{Answer, Request, Shim, group};
use crate::error::Refusal;
use crate::party::Party;
use crate::request::{Hex, Now, Remote, arguments};
use serde::Deserialize;
use serde_json::{Value, json};
use tuckseal::{
    Address, ContentHint, ContentKind, MessageKind, PlaintextContent, PublicKey, SealedContent,
    SenderCertificate, Timestamp, open as open_envelope, seal_v1,
};

#[derive(Deserialize)]
struct Seal {
    party: String,
    remote: Remote,
    sender_certificate: Hex,
    plaintext: Hex,
    content_hint: Hint,
    group_id: Option<Hex>,
    now: Now,
}

/// A content hint, in requests.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum Hint {
    Default,
    Resendable,
    Implicit,
}

impl From<Hint> for ContentHint {
    fn from(hint: Hint) -> Self {
        match hint {
            Hint::Default => Self::Default,
            Hint::Resendable => Self::Resendable,
            Hint::Implicit => Self::Implicit,
        }
    }
}

pub(super) fn seal(shim: &mut Shim, request: Request) -> Answer {
    let it: Seal = arguments(request)?;
    let remote = it.remote.address()?;
    let sender =
        SenderCertificate::decode(&it.sender_certificate.0).map_err(Refusal::certificate)?;
    let party = shim.party(&it.party)?;
    let (record, sent) = encrypt_on_copy(party, &remote, &it.plaintext.0, it.now)?;
    let info = record.info().ok_or(tuckseal::EncryptError::NoSession)?;
    let content = SealedContent {
        kind: match sent.kind {
            MessageKind::PreKey => ContentKind::PreKey,
            _ => ContentKind::Whisper,
        },
        sender,
        content: sent.body.into(),
        hint: it.content_hint.into(),
        group_id: it.group_id.map(|id| id.0.into()),
    };
    let Party { state, rng } = &mut *party;
    let body = seal_v1(&content, &state.local.identity, &info.remote_identity, rng)?;
    keep_sent(party, remote, record);
    Ok(json!({"body": hex::encode(body)}))
}

#[derive(Deserialize)]
struct Open {
    party: String,
    trust_roots: Vec<Hex>,
    now: u64,
    body: Hex,
    #[serde(flatten)]
    allow: Allow,
}

pub(super) fn open(shim: &mut Shim, request: Request) -> Answer {
    let it: Open = arguments(request)?;
    let roots = trust_roots(&it.trust_roots)?;
    let party = shim.party(&it.party)?;
    let local = &party.state.local;
    let content = open_envelope(&it.body.0, &local.identity)?;
    let now = Timestamp::from_millis(it.now);
    let sender = content.authenticate(&roots, &[], &local.address, None, now)?;
    let plaintext = read(party, sender, &content, it.allow)?;
    Ok(json!({
        "sender": Remote::from(sender),
        "e164": content.sender.e164(),
        "content_type": kind_name(content.kind),
        "content_hint": hint(content.hint),
        "group_id": content.group_id.as_ref().map(hex::encode),
        "plaintext": hex::encode(plaintext),
    }))
}

/// The public keys of a list of trust roots.
pub(super) fn trust_roots(roots: &[Hex]) -> Result<Vec<PublicKey>, Refusal> {
    roots.iter().map(|root| PublicKey::decode(&root.0).map_err(Refusal::from)).collect()
}

/// Hands what lay in the envelope to the session of its sender.
fn read(
    party: &mut Party,
    sender: Address,
    content: &SealedContent,
    allow: Allow,
) -> Result<Vec<u8>, Refusal> {
    let kind = match content.kind {
        ContentKind::PreKey => Type::PreKey,
        ContentKind::Whisper => Type::Whisper,
        ContentKind::Plaintext => {
            return Ok(PlaintextContent::decode(&content.content)?.body().to_vec());
        }
        ContentKind::SenderKey => {
            return group::read(party, sender, &content.content);
        }
    };
    let (decrypted, _) = decrypt_and_keep(party, sender, kind, &content.content, allow)?;
    Ok(decrypted.plaintext)
}

fn kind_name(kind: ContentKind) -> &'static str {
    match kind {
        ContentKind::PreKey => "prekey",
        ContentKind::Whisper => "whisper",
        ContentKind::SenderKey => "sender_key",
        ContentKind::Plaintext => "plaintext",
    }
}

fn hint(hint: ContentHint) -> Value {
    match hint {
        ContentHint::Default => "default".into(),
        ContentHint::Resendable => "resendable".into(),
        ContentHint::Implicit => "implicit".into(),
        ContentHint::Unknown(number) => number.into(),
    }
}
