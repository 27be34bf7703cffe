//! W§10.4–10.5. What a group member sends to all the others, and how they learn its key.
//! Layouts only: neither chain nor encryption.

use crate::crypto::secret::Secret;
use crate::crypto::{InvalidSignature, PrivateKey, PublicKey, VerificationKey};
use crate::wire::{DecodeError, group as wire, in_field};
use alloc::vec::Vec;
use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

/// Version 3, and 3 the highest known: the only one there is.
const VERSION_BYTE: u8 = 0x33;

const SIGNATURE: usize = 64;

/// Least length of both messages: a version byte and a signature, whether there is one or not.
const MIN_LEN: usize = 1 + SIGNATURE;

/// Judges length and version, in this order (V2, V3), and gives what follows the version byte.
fn after_version(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes {
        [version, rest @ ..] if bytes.len() >= MIN_LEN => match version >> 4 {
            3 => Ok(rest),
            found @ 0..3 => Err(DecodeError::LegacyVersion { found }),
            found => Err(DecodeError::UnknownVersion { found }),
        },
        _ => Err(DecodeError::TooShort { needed: MIN_LEN, found: bytes.len() }),
    }
}

const fn missing(field: &'static str) -> DecodeError {
    DecodeError::Missing { field }
}

fn distribution_id(bytes: Option<Bytes>) -> Result<[u8; 16], DecodeError> {
    const FIELD: &str = "distribution_uuid";
    let bytes = bytes.ok_or(missing(FIELD))?;
    bytes.as_ref().try_into().map_err(|_| DecodeError::Field { field: FIELD })
}

/// All of a message before its body.
pub(super) struct Head<'a> {
    pub(super) distribution_id: &'a [u8; 16],
    pub(super) chain_id: u32,
    pub(super) iteration: u32,
}

impl Head<'_> {
    /// Writes everything up to the body, in a buffer with room for body and signature.
    pub(super) fn begin(&self, body_len: usize) -> Vec<u8> {
        // Keys of one byte each, numbers of at most five, lengths of at most ten.
        let mut out = Vec::with_capacity(1 + 18 + 2 * 6 + 11 + body_len + SIGNATURE);
        out.push(VERSION_BYTE);
        encode_key(1, WireType::LengthDelimited, &mut out);
        encode_varint(self.distribution_id.len() as u64, &mut out);
        out.extend_from_slice(self.distribution_id);
        for (tag, number) in [(2, self.chain_id), (3, self.iteration)] {
            encode_key(tag, WireType::Varint, &mut out);
            encode_varint(number.into(), &mut out);
        }
        encode_key(4, WireType::LengthDelimited, &mut out);
        encode_varint(body_len as u64, &mut out);
        out
    }
}

/// One encrypted group message.
///
/// ```text
/// 0x33 · protobuf { 1 distribution id: 16 · 2 chain id: u32 · 3 iteration: u32 · 4 ciphertext } · signature: 64
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SenderKeyMessage {
    encoded: Bytes,
    distribution_id: [u8; 16],
    chain_id: u32,
    iteration: u32,
    ciphertext: Bytes,
}

impl SenderKeyMessage {
    /// Writes and signs a message. Draws 64 bytes. [`SenderKey::encrypt`](super::SenderKey::encrypt)
    /// is what a sender calls; this one is for tools and tests that need a body of their own.
    pub fn sign(
        distribution_id: [u8; 16],
        chain_id: u32,
        iteration: u32,
        ciphertext: &[u8],
        signing_key: &PrivateKey,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let head = Head { distribution_id: &distribution_id, chain_id, iteration };
        let mut encoded = head.begin(ciphertext.len());
        let start = encoded.len();
        encoded.extend_from_slice(ciphertext);
        let end = encoded.len();
        let signature = signing_key.sign(&encoded, rng);
        encoded.extend_from_slice(&signature);
        let encoded = Bytes::from(encoded);
        let ciphertext = encoded.slice(start..end);
        Self { encoded, distribution_id, chain_id, iteration, ciphertext }
    }

    /// Reads a message. Its signature is not judged: which key to ask is in the record that the
    /// chain id names.
    ///
    /// # Errors
    /// [`DecodeError`]: too short, of another version, a part missing or malformed (V2, V3, V7).
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::from_bytes(Bytes::copy_from_slice(bytes))
    }

    /// [`SenderKeyMessage::decode`] without a copy.
    ///
    /// # Errors
    /// As [`SenderKeyMessage::decode`].
    pub fn from_bytes(encoded: Bytes) -> Result<Self, DecodeError> {
        after_version(&encoded)?;
        let body = wire::SenderKeyMessage::decode(encoded.slice(1..encoded.len() - SIGNATURE))?;
        Ok(Self {
            encoded,
            distribution_id: distribution_id(body.distribution_uuid)?,
            chain_id: body.chain_id.ok_or(missing("chain_id"))?,
            iteration: body.iteration.ok_or(missing("iteration"))?,
            ciphertext: body.ciphertext.ok_or(missing("ciphertext"))?,
        })
    }

    /// The bytes, as they came or were signed.
    pub fn encode(&self) -> &[u8] {
        &self.encoded
    }

    /// Whether the holder of this signing key wrote the message.
    ///
    /// # Errors
    /// [`InvalidSignature`] when not.
    pub fn verify_signature(&self, signing_key: &PublicKey) -> Result<(), InvalidSignature> {
        self.verify(&mut VerificationKey::new(*signing_key))
    }

    pub(super) fn verify(&self, signing_key: &mut VerificationKey) -> Result<(), InvalidSignature> {
        let (signed, signature) =
            self.encoded.split_last_chunk::<SIGNATURE>().ok_or(InvalidSignature)?;
        signing_key.verify(signed, signature)
    }

    /// Which of the sender's distributions, a UUID of 16 bytes.
    pub const fn distribution_id(&self) -> &[u8; 16] {
        &self.distribution_id
    }

    /// Which chain of that distribution.
    pub const fn chain_id(&self) -> u32 {
        self.chain_id
    }

    /// Which message of that chain, from 0.
    pub const fn iteration(&self) -> u32 {
        self.iteration
    }

    /// The encrypted body. May be empty here, and is then refused when it is decrypted: even nothing encrypts to a block.
    pub fn ciphertext(&self) -> &[u8] {
        &self.ciphertext
    }
}

impl core::fmt::Debug for SenderKeyMessage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SenderKeyMessage")
            .field("chain_id", &self.chain_id)
            .field("iteration", &self.iteration)
            .finish_non_exhaustive()
    }
}

/// The key of a sender, as it stands at one iteration. A secret: it travels inside the encrypted
/// messages of sessions alone.
///
/// ```text
/// 0x33 · protobuf { 1 distribution id: 16 · 2 chain id: u32 · 3 iteration: u32 · 4 chain key: 32 · 5 signing key: 33 }
/// ```
pub struct SenderKeyDistributionMessage {
    distribution_id: [u8; 16],
    chain_id: u32,
    iteration: u32,
    chain_key: Secret<32>,
    signing_key: PublicKey,
}

impl SenderKeyDistributionMessage {
    /// Joins the parts.
    pub fn new(
        distribution_id: [u8; 16],
        chain_id: u32,
        iteration: u32,
        chain_key: &[u8; 32],
        signing_key: PublicKey,
    ) -> Self {
        let chain_key = Secret::new(*chain_key);
        Self { distribution_id, chain_id, iteration, chain_key, signing_key }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`]: too short, of another version, a part missing or of wrong length, the
    /// signing key no key (V2, V3, V8).
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let body = wire::SenderKeyDistributionMessage::decode(after_version(bytes)?)?;
        let chain_key = body.chain_key.ok_or(missing("chain_key")).and_then(take_chain_key);
        let distribution_id = distribution_id(body.distribution_uuid)?;
        let chain_id = body.chain_id.ok_or(missing("chain_id"))?;
        let iteration = body.iteration.ok_or(missing("iteration"))?;
        let chain_key = chain_key?;
        let signing_key = body.signing_key.ok_or(missing("signing_key"))?;
        if signing_key.len() != PublicKey::SERIALIZED_LEN {
            return Err(DecodeError::Field { field: "signing_key" });
        }
        let signing_key = PublicKey::decode(&signing_key).map_err(in_field("signing_key"))?;
        Ok(Self { distribution_id, chain_id, iteration, chain_key, signing_key })
    }

    /// The bytes. Wiped when dropped.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let body = wire::SenderKeyDistributionMessage {
            distribution_uuid: Some(Bytes::copy_from_slice(&self.distribution_id)),
            chain_id: Some(self.chain_id),
            iteration: Some(self.iteration),
            chain_key: Some(Bytes::copy_from_slice(self.chain_key.as_bytes())),
            signing_key: Some(Bytes::copy_from_slice(&self.signing_key.serialize())),
        };
        let mut out = Zeroizing::new(Vec::with_capacity(1 + body.encoded_len()));
        out.push(VERSION_BYTE);
        body.encode_raw(&mut *out);
        if let Some(copy) = body.chain_key {
            wipe(copy);
        }
        out
    }

    /// Which of the sender's distributions, a UUID of 16 bytes.
    pub const fn distribution_id(&self) -> &[u8; 16] {
        &self.distribution_id
    }

    /// Which chain of that distribution.
    pub const fn chain_id(&self) -> u32 {
        self.chain_id
    }

    /// The iteration that the chain key belongs to.
    pub const fn iteration(&self) -> u32 {
        self.iteration
    }

    pub(super) fn chain_key(&self) -> &Secret<32> {
        &self.chain_key
    }

    /// The key that verifies this chain's messages.
    pub const fn signing_key(&self) -> &PublicKey {
        &self.signing_key
    }
}

fn take_chain_key(bytes: Bytes) -> Result<Secret<32>, DecodeError> {
    let key = bytes.as_ref().try_into().map(Secret::new);
    wipe(bytes);
    key.map_err(|_| DecodeError::Field { field: "chain_key" })
}

/// Wipes bytes that nobody else holds, as those of a field that was just copied in.
fn wipe(bytes: Bytes) {
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.as_mut().zeroize();
    }
}

impl core::fmt::Debug for SenderKeyDistributionMessage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SenderKeyDistributionMessage")
            .field("chain_id", &self.chain_id)
            .field("iteration", &self.iteration)
            .finish_non_exhaustive()
    }
}
