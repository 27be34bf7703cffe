//! `xeddsa.*`: bare signatures (W§3).

use super::{Answer, Request};
use crate::party::generator;
use crate::request::{Hex, arguments};
use serde::Deserialize;
use serde_json::json;
use tuckseal::{PrivateKey, PublicKey};

#[derive(Deserialize)]
struct Sign {
    private: Hex,
    message: Hex,
    random: Option<Hex>,
}

pub(super) fn sign(request: Request) -> Answer {
    let it: Sign = arguments(request)?;
    let key = PrivateKey::from_bytes(&it.private.0)?;
    let signature = match it.random {
        Some(random) => key.sign_with_randomness(&it.message.0, &random.exact("random")?),
        None => key.sign(&it.message.0, &mut generator(None)),
    };
    Ok(json!({"signature": hex::encode(signature)}))
}

#[derive(Deserialize)]
struct Verify {
    public: Hex,
    message: Hex,
    signature: Hex,
}

pub(super) fn verify(request: Request) -> Answer {
    let it: Verify = arguments(request)?;
    let key = PublicKey::decode(&it.public.0)?;
    let verified = key.verify_signature(&it.message.0, &it.signature.0);
    Ok(json!({"valid": verified.is_ok()}))
}
