//! Messages, keys and signatures that are malformed, unusual or at an edge (W§2, 3, 10).

use super::*;
use serde_json::json;
use tuckseal::{
    DecryptionErrorMessage, KemPublicKey, KemSecretKey, KeyError, PlaintextContent,
    PreKeySignalMessage, SenderKeyDistributionMessage, SenderKeyMessage, ServiceId, SignalMessage,
};

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["libsignal_version", "messages", "keys", "xeddsa"]);
    cases(file, "messages").iter().for_each(message);
    for (place, case) in cases(file, "keys").iter().enumerate() {
        key(case, place);
    }
    for case in cases(file, "xeddsa") {
        let valid = public(case, "public_key")
            .verify_signature(&bytes(case, "message"), &bytes(case, "signature"))
            .is_ok();
        assert_eq!(Some(valid), case["expect"].as_bool(), "{}", text(case, "name"));
    }
}

fn message(case: &Value) {
    let (kind, name) = (text(case, "type"), text(case, "name"));
    let decode = match kind {
        "SignalMessage" => signal,
        "PreKeySignalMessage" => prekey,
        "SenderKeyMessage" => sender_key,
        "SenderKeyDistributionMessage" => distribution,
        "DecryptionErrorMessage" => decryption_error,
        "PlaintextContent" => plaintext,
        other => panic!("nobody replays messages of type {other}"),
    };
    let verdict = match decode(&bytes(case, "input")) {
        Ok(fields) => json!({ "ok": fields }),
        Err(error) => json!({ "error": class(&error) }),
    };
    assert_eq!(verdict, case["expect"], "{kind}: {name}");
}

// What each type says once it is decoded, in the names of the file.

fn signal(input: &[u8]) -> Result<Value, DecodeError> {
    let message = SignalMessage::decode(input)?;
    assert_eq!(message.encode(), input);
    Ok(json!({ "messageVersion": message.version() as u8, "counter": message.counter() }))
}

fn prekey(input: &[u8]) -> Result<Value, DecodeError> {
    let message = PreKeySignalMessage::decode(input)?;
    let needs = message.needs();
    Ok(json!({
        "version": message.version() as u8,
        "preKeyId": needs.one_time.map(|id| id.0),
        "registrationId": message.registration_id(),
        "signedPreKeyId": needs.signed.0,
    }))
}

fn sender_key(input: &[u8]) -> Result<Value, DecodeError> {
    let message = SenderKeyMessage::decode(input)?;
    assert_eq!(message.encode(), input);
    Ok(group(message.distribution_id(), message.chain_id(), message.iteration()))
}

fn distribution(input: &[u8]) -> Result<Value, DecodeError> {
    let message = SenderKeyDistributionMessage::decode(input)?;
    Ok(group(message.distribution_id(), message.chain_id(), message.iteration()))
}

fn group(distribution_id: &[u8; 16], chain_id: u32, iteration: u32) -> Value {
    // An ACI has the text form of its UUID.
    let id = ServiceId::aci(*distribution_id).to_string();
    json!({ "distributionId": id, "chainId": chain_id, "iteration": iteration })
}

fn decryption_error(input: &[u8]) -> Result<Value, DecodeError> {
    let message = DecryptionErrorMessage::decode(input)?;
    Ok(json!({ "timestamp": message.timestamp.as_millis(), "deviceId": message.device_id }))
}

fn plaintext(input: &[u8]) -> Result<Value, DecodeError> {
    let message = PlaintextContent::decode(input)?;
    assert_eq!(message.encode(), input);
    Ok(json!({}))
}

fn key(case: &Value, place: usize) {
    let input = bytes(case, "input");
    let verdict: Result<Vec<u8>, KeyError> = match text(case, "kind") {
        "ec_public" => PublicKey::decode(&input).map(|key| key.serialize().to_vec()),
        "kem_public" => KemPublicKey::decode(&input).map(|key| key.serialize()),
        "kem_secret" => KemSecretKey::decode(&input).map(|key| key.serialize().to_vec()),
        // An agreement cannot be seen from outside: these cases run in src/sealed/v1.rs.
        "agree" => return,
        other => panic!("nobody replays keys of kind {other}"),
    };
    // Each error of a key is of class key.
    let verdict = match verdict {
        Ok(bytes) => json!({ "ok": hex::encode(bytes) }),
        Err(_) => json!({ "error": "key" }),
    };
    assert_eq!(verdict, case["expect"], "key {place}: {}", text(case, "input"));
}
