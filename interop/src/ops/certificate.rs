//! `certificate.*`: issuing and checking the certificates of sealed sender.

use super::sealed::trust_roots;
use super::{Answer, Request};
use crate::error::Refusal;
use crate::party::generator;
use crate::request::{Hex, Remote, arguments};
use serde::Deserialize;
use serde_json::json;
use tuckseal::{
    IdentityKey, PrivateKey, PublicKey, SenderCertificate, SenderFields, ServerCertificate,
    Timestamp,
};

#[derive(Deserialize)]
struct Server {
    key_id: u32,
    trust_root_private: Hex,
    server_public: Hex,
}

pub(super) fn server(request: Request) -> Answer {
    let it: Server = arguments(request)?;
    let key = PublicKey::decode(&it.server_public.0)?;
    let root = PrivateKey::from_bytes(&it.trust_root_private.0)?;
    let certificate = ServerCertificate::issue(it.key_id, &key, &root, &mut generator(None));
    Ok(json!({"certificate": hex::encode(certificate.encode())}))
}

#[derive(Deserialize)]
struct Sender {
    service_id: String,
    e164: Option<String>,
    device_id: u32,
    identity_public: Hex,
    expires: u64,
    server_certificate: Hex,
    server_private: Hex,
}

pub(super) fn sender(request: Request) -> Answer {
    let it: Sender = arguments(request)?;
    let address = Remote { service_id: it.service_id, device_id: it.device_id }.address()?;
    let fields = SenderFields {
        service_id: address.service_id,
        e164: it.e164,
        device_id: address.device_id,
        identity_key: IdentityKey::decode(&it.identity_public.0)?,
        expires: Timestamp::from_millis(it.expires),
    };
    let server =
        ServerCertificate::decode(&it.server_certificate.0).map_err(Refusal::certificate)?;
    let key = PrivateKey::from_bytes(&it.server_private.0)?;
    let certificate = SenderCertificate::issue(fields, &server, &key, &mut generator(None));
    Ok(json!({"certificate": hex::encode(certificate.encode())}))
}

#[derive(Deserialize)]
struct Check {
    certificate: Hex,
    trust_roots: Vec<Hex>,
    now: u64,
}

pub(super) fn check(request: Request) -> Answer {
    let it: Check = arguments(request)?;
    let roots = trust_roots(&it.trust_roots)?;
    let certificate = SenderCertificate::decode(&it.certificate.0).map_err(Refusal::certificate)?;
    let checked = certificate.validate(&roots, &[], Timestamp::from_millis(it.now));
    Ok(json!({"valid": checked.is_ok()}))
}
