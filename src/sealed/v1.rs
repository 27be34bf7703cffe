//! W§13. The envelope of version 1: two layers, each encrypted and authenticated under a DH of its own.
//! What lies inside, and whether its sender may be believed, is in `content.rs`.
//!
//! ```text
//! 0x11 · protobuf { 1 ephemeral public: 33 · 2 encrypted static: 33 + 10 · 3 encrypted message: n + 10 }
//! ```
//!
//! The first layer hides the sender's identity key under DH(ephemeral, recipient); the second hides
//! the content under DH(sender, recipient), which proves the sender to the recipient alone.

use super::content::SealedContent;
use super::error::{OpenError, SealError};
use crate::crypto::cipher::ctr_apply;
use crate::crypto::curve::SharedSecret;
use crate::crypto::kdf::{HmacSha256, hkdf};
use crate::crypto::secret::Secret;
use crate::crypto::{KeyError, KeyPair, PublicKey};
use crate::identity::{IdentityKey, IdentityKeyPair};
use crate::wire::DecodeError;
use crate::wire::in_field;
use crate::wire::sealed_sender::UnidentifiedSenderMessage;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use rand_core::CryptoRng;

/// Written by every sender: version 1, and 1 the highest known.
const VERSION_BYTE: u8 = 0x11;

/// Bytes of HMAC-SHA-256 behind each layer.
const MAC: usize = 10;

const STATIC_LEN: usize = PublicKey::SERIALIZED_LEN + MAC;

/// Seals for one recipient (W§13). Draws 32 bytes; costs three scalar multiplications.
///
/// `sender` must hold the identity key of the certificate in `content`, or no recipient opens the
/// envelope.
///
/// # Errors
/// [`SealError::Recipient`] when the recipient's key has low order.
pub fn seal_v1(
    content: &SealedContent,
    sender: &IdentityKeyPair,
    recipient: &IdentityKey,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealError> {
    let shared =
        sender.private_key().agree(recipient.public_key()).map_err(SealError::Recipient)?;
    seal_agreed(content, &sender.identity_key(), &shared, recipient, rng)
}

/// [`seal_v1`] with the agreement between the two identity keys given.
pub(super) fn seal_agreed(
    content: &SealedContent,
    sender: &IdentityKey,
    agreed: &SharedSecret,
    recipient: &IdentityKey,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealError> {
    let recipient = recipient.public_key();
    let ephemeral = KeyPair::generate(rng);
    let shared = ephemeral.private().agree(recipient).map_err(SealError::Recipient)?;
    let first = FirstLayer::derive(recipient, ephemeral.public(), shared.as_bytes());
    let mut encrypted_static = [0; STATIC_LEN];
    let (key, mac) = encrypted_static.split_at_mut(PublicKey::SERIALIZED_LEN);
    key.copy_from_slice(&sender.serialize());
    mac.copy_from_slice(&first.keys.encrypt(key));

    let second = first.second(&encrypted_static, agreed.as_bytes());
    let message = content.to_wire();
    let mut out = start(&ephemeral.public().serialize(), &encrypted_static, message.encoded_len());
    let start_of_body = out.len();
    message.encode_raw(&mut out);
    let (_, body) = out.split_at_mut(start_of_body);
    let mac = second.encrypt(body);
    out.extend_from_slice(&mac);
    Ok(out)
}

/// Everything before the encrypted message, in a buffer that has room for that message too.
fn start(ephemeral: &[u8], encrypted_static: &[u8], message_len: usize) -> Vec<u8> {
    let body = (message_len + MAC) as u64;
    let field = |len: usize| key_len(1) + encoded_len_varint(len as u64) + len;
    let len = 1 + field(ephemeral.len()) + field(encrypted_static.len()) + field(message_len + MAC);
    let mut out = Vec::with_capacity(len);
    out.push(VERSION_BYTE);
    for (tag, bytes) in [(1, ephemeral), (2, encrypted_static)] {
        encode_key(tag, WireType::LengthDelimited, &mut out);
        encode_varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
    }
    encode_key(3, WireType::LengthDelimited, &mut out);
    encode_varint(body, &mut out);
    out
}

/// Opens the protobuf part of an envelope of version 1. Costs two scalar multiplications, one of them
/// in `agree`, which gives the agreement between the recipient's identity key and the sender's.
pub(super) fn open_v1(
    body: &[u8],
    recipient: &IdentityKeyPair,
    agree: impl FnOnce(&PublicKey) -> Result<SharedSecret, KeyError>,
) -> Result<SealedContent, OpenError> {
    let missing = |field| DecodeError::Missing { field };
    let wire = UnidentifiedSenderMessage::decode(body).map_err(DecodeError::from)?;
    let ephemeral = wire.ephemeral_public.ok_or(missing("ephemeral_public"))?;
    let encrypted_static = wire.encrypted_static.ok_or(missing("encrypted_static"))?;
    let encrypted_message = wire.encrypted_message.ok_or(missing("encrypted_message"))?;

    let ephemeral = PublicKey::decode(&ephemeral).map_err(in_field("ephemeral_public"))?;
    let shared = recipient.private_key().agree(&ephemeral).map_err(OpenError::Key)?;
    let own = recipient.identity_key();
    let first = FirstLayer::derive(own.public_key(), &ephemeral, shared.as_bytes());
    let sender_bytes = first.keys.decrypt(encrypted_static.clone())?;
    let sender = PublicKey::decode(&sender_bytes).map_err(OpenError::Key)?;

    let shared = agree(&sender).map_err(OpenError::Key)?;
    let second = first.second(&encrypted_static, shared.as_bytes());
    let content = SealedContent::from_bytes(second.decrypt(encrypted_message)?)?;
    // All the bytes, so that trailing ones, which a key may have elsewhere, count as another key.
    if content.sender.identity_key().serialize() != *sender_bytes {
        return Err(OpenError::SenderMismatch);
    }
    Ok(content)
}

/// The keys of the first layer, and what the second is chained to.
struct FirstLayer {
    chain: Secret<32>,
    keys: LayerKeys,
}

impl FirstLayer {
    fn derive(recipient: &PublicKey, ephemeral: &PublicKey, shared: &[u8; 32]) -> Self {
        let salt =
            [&b"UnidentifiedDelivery"[..], &recipient.serialize(), &ephemeral.serialize()].concat();
        let (chain, keys) = hkdf::<96>(Some(&salt), shared, b"").split();
        Self { chain, keys: LayerKeys::new(&keys) }
    }

    fn second(&self, encrypted_static: &[u8], shared: &[u8; 32]) -> LayerKeys {
        let salt = zeroize::Zeroizing::new([self.chain.as_bytes(), encrypted_static].concat());
        let (_unused, keys) = hkdf::<96>(Some(&salt), shared, b"").split::<32, 64>();
        LayerKeys::new(&keys)
    }
}

/// CTR10: AES-256-CTR, then the first ten bytes of HMAC-SHA-256 over the ciphertext.
struct LayerKeys {
    cipher: Secret<32>,
    mac: Secret<32>,
}

impl LayerKeys {
    fn new(keys: &Secret<64>) -> Self {
        let (cipher, mac) = keys.split();
        Self { cipher, mac }
    }

    /// Encrypts in place; the MAC goes behind it.
    fn encrypt(&self, data: &mut [u8]) -> [u8; MAC] {
        ctr_apply(&self.cipher, data);
        let mut mac = [0; MAC];
        let full = HmacSha256::new(self.mac.as_bytes()).chain(data).finish();
        mac.iter_mut().zip(full).for_each(|(to, from)| *to = from);
        mac
    }

    /// Checks the MAC, then decrypts in place where nobody else holds the bytes.
    fn decrypt(&self, data: Bytes) -> Result<Bytes, OpenError> {
        let (body, mac) = data.split_last_chunk::<MAC>().ok_or(OpenError::Unauthenticated)?;
        if !HmacSha256::new(self.mac.as_bytes()).chain(body).verify_truncated(mac) {
            return Err(OpenError::Unauthenticated);
        }
        let len = body.len();
        let mut data = BytesMut::from(data);
        data.truncate(len);
        ctr_apply(&self.cipher, &mut data);
        Ok(data.freeze())
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use crate::crypto::{KeyError, PrivateKey, PublicKey};
    use std::{fs, path::Path};

    /// The `agree` cases of hostile.json. They are here because an agreement cannot be seen from
    /// outside the crate.
    #[test]
    fn agreements_are_those_of_the_vectors_and_low_order_keys_are_refused() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("test-vectors/libsignal/hostile.json");
        let file: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let bytes = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
        let mut count = 0;
        for case in file["keys"].as_array().unwrap().iter().filter(|case| case["kind"] == "agree") {
            let private = PrivateKey::from_bytes(&bytes(&case["private"])).unwrap();
            let public = PublicKey::decode(&bytes(&case["input"])).unwrap();
            match private.agree(&public) {
                Ok(shared) => assert_eq!(shared.as_bytes()[..], bytes(&case["expect"]["ok"])),
                Err(error) => {
                    assert_eq!(error, KeyError::LowOrder);
                    assert_eq!(case["expect"]["error"], "key", "{public:?}");
                }
            }
            count += 1;
        }
        assert_eq!(count, 6);
    }
}
