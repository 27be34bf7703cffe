//! `sealed.seal_multi` and `sealed.split`: sealed sender of version 2 (W§15).

use super::sealed::Hint;
use super::{Answer, Request, Shim};
use crate::error::{Kind, Refusal};
use crate::party::{Party, State};
use crate::request::{Hex, Remote, arguments};
use serde::Deserialize;
use serde_json::json;
use tuckseal::{
    Address, ContentKind, RecipientDevice, SealedContent, SealedRecipient, SenderCertificate,
    SentMessage, ServiceId, seal_v2_multi,
};

#[derive(Deserialize)]
struct Seal {
    party: String,
    recipients: Vec<Remote>,
    sender_certificate: Hex,
    content: Content,
    content_hint: Hint,
    group_id: Option<Hex>,
    excluded: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Content {
    r#type: Type,
    body: Hex,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Type {
    Whisper,
    #[serde(rename = "prekey")]
    PreKey,
    SenderKey,
    Plaintext,
}

impl From<Type> for ContentKind {
    fn from(kind: Type) -> Self {
        match kind {
            Type::Whisper => Self::Whisper,
            Type::PreKey => Self::PreKey,
            Type::SenderKey => Self::SenderKey,
            Type::Plaintext => Self::Plaintext,
        }
    }
}

pub(super) fn seal(shim: &mut Shim, request: Request) -> Answer {
    let it: Seal = arguments(request)?;
    let sender =
        SenderCertificate::decode(&it.sender_certificate.0).map_err(Refusal::certificate)?;
    let content = SealedContent {
        kind: it.content.r#type.into(),
        sender,
        content: it.content.body.0.into(),
        hint: it.content_hint.into(),
        group_id: it.group_id.map(|id| id.0.into()),
    };
    let excluded = it.excluded.unwrap_or_default();
    let excluded: Vec<ServiceId> =
        excluded.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
    let Party { state, rng } = shim.party(&it.party)?;
    let recipients = recipients(state, &it.recipients)?;
    let sent = seal_v2_multi(&content, &state.local.identity, &recipients, &excluded, rng)?;
    Ok(json!({"sent": hex::encode(sent)}))
}

/// Devices of one account that stand side by side are one recipient, with the first one's key (W§15.3).
fn recipients(state: &State, remotes: &[Remote]) -> Result<Vec<SealedRecipient>, Refusal> {
    let mut all: Vec<SealedRecipient> = Vec::new();
    for remote in remotes {
        let address = remote.address()?;
        let (identity, device) = known(state, &address)?;
        match all.last_mut() {
            Some(last) if last.service_id == address.service_id => last.devices.push(device),
            _ => all.push(SealedRecipient {
                service_id: address.service_id,
                identity,
                devices: vec![device],
            }),
        }
    }
    Ok(all)
}

fn known(
    state: &State,
    address: &Address,
) -> Result<(tuckseal::IdentityKey, RecipientDevice), Refusal> {
    let none = || Refusal::new(Kind::NoSession, "there is no session with one of the recipients");
    let info = state.session(address).and_then(|record| record.info()).ok_or_else(none)?;
    let registration_id = info.remote_registration_id;
    let device = RecipientDevice { device_id: address.device_id, registration_id };
    Ok((state.identity(address).ok_or_else(none)?, device))
}

#[derive(Deserialize)]
struct Split {
    sent: Hex,
}

pub(super) fn split(request: Request) -> Answer {
    let it: Split = arguments(request)?;
    let sent = SentMessage::from_bytes(it.sent.0.into())?;
    let recipients = sent.recipients().iter().map(|recipient| {
        let devices = recipient.devices().iter().map(|device| {
            json!({"device_id": device.device_id.get(), "registration_id": device.registration_id})
        });
        json!({
            "service_id": recipient.service_id().to_string(),
            "devices": devices.collect::<Vec<_>>(),
            "received": hex::encode(sent.received(recipient)),
        })
    });
    Ok(json!({
        "excluded": sent.excluded().iter().map(ServiceId::to_string).collect::<Vec<_>>(),
        "recipients": recipients.collect::<Vec<_>>(),
    }))
}
