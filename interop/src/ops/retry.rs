//! `retry.*`: the message that reports a failed decryption (W§10.6), bare.

use super::{Answer, Request};
use crate::request::{Hex, arguments};
use serde::Deserialize;
use serde_json::json;
use tuckseal::{
    DecryptionErrorMessage, PreKeySignalMessage, SenderKeyMessage, SignalMessage, Timestamp,
};

#[derive(Deserialize)]
struct Report {
    failed: Failed,
    timestamp: u64,
    device_id: u32,
}

#[derive(Deserialize)]
struct Failed {
    r#type: Type,
    body: Hex,
}

/// The kinds that can fail to decrypt: all but plaintext.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Type {
    #[serde(rename = "prekey")]
    PreKey,
    Whisper,
    SenderKey,
}

pub(super) fn request(request: Request) -> Answer {
    let it: Report = arguments(request)?;
    let body = &it.failed.body.0;
    let ratchet_key = match it.failed.r#type {
        Type::Whisper => Some(*SignalMessage::decode(body)?.ratchet_key()),
        Type::PreKey => Some(*PreKeySignalMessage::decode(body)?.message().ratchet_key()),
        Type::SenderKey => {
            SenderKeyMessage::decode(body)?;
            None
        }
    };
    let timestamp = Timestamp::from_millis(it.timestamp);
    let report = DecryptionErrorMessage { ratchet_key, timestamp, device_id: it.device_id };
    Ok(json!({"body": hex::encode(report.encode())}))
}

#[derive(Deserialize)]
struct Parse {
    body: Hex,
}

pub(super) fn parse(request: Request) -> Answer {
    let it: Parse = arguments(request)?;
    let report = DecryptionErrorMessage::decode(&it.body.0)?;
    Ok(json!({
        "ratchet_key": report.ratchet_key.map(|key| hex::encode(key.serialize())),
        "timestamp": report.timestamp.as_millis(),
        "device_id": report.device_id,
    }))
}
