//! `attachment.*`: whole files at once (W§18.1).

use super::{Answer, Request};
use crate::error::Refusal;
use crate::request::{Hex, arguments};
use serde::Deserialize;
use serde_json::json;
use tuckseal::{AttachmentEncryptor, AttachmentKeys, AttachmentVerifier, Sealing};

#[derive(Deserialize)]
struct Encrypt {
    plaintext: Hex,
    keys: Hex,
    iv: Hex,
}

pub(super) fn encrypt(request: Request) -> Answer {
    let it: Encrypt = arguments(request)?;
    let (keys, iv) = (keys(&it.keys)?, it.iv.exact("iv")?);
    let mut encryptor = AttachmentEncryptor::with_iv(&keys, it.plaintext.0.len() as u64, iv)?;
    let mut out = Vec::new();
    encryptor.update(&it.plaintext.0, &mut out)?;
    let sealed = loop {
        match encryptor.finish(&mut out)? {
            Sealing::More(rest) => encryptor = rest,
            Sealing::Done(sealed) => break sealed,
        }
    };
    Ok(json!({"ciphertext": hex::encode(out), "digest": hex::encode(sealed.digest)}))
}

fn keys(keys: &Hex) -> Result<AttachmentKeys, Refusal> {
    let keys: [u8; 64] = keys.exact("keys")?;
    Ok(AttachmentKeys::from_bytes(&keys)?)
}

#[derive(Deserialize)]
struct Decrypt {
    ciphertext: Hex,
    keys: Hex,
    digest: Hex,
    size: u64,
}

pub(super) fn decrypt(request: Request) -> Answer {
    let it: Decrypt = arguments(request)?;
    let (keys, digest) = (keys(&it.keys)?, it.digest.exact("digest")?);
    let mut verifier = AttachmentVerifier::new(&keys, &digest, it.size, None)?;
    verifier.update(&it.ciphertext.0)?;
    let (mut decryptor, mut out) = (verifier.finish()?, Vec::new());
    decryptor.update(&it.ciphertext.0, &mut out)?;
    decryptor.finish(&mut out)?;
    Ok(json!({"plaintext": hex::encode(out)}))
}
