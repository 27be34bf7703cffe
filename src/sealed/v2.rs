//! W§15.1–15.2. The envelope of version 2: the content is encrypted once, its key for each recipient.
//! The form in which it goes to a relay, which takes it apart, is in `sent.rs`.
//!
//! ```text
//! received: 0x22 · C: 32 · AT: 16 · ephemeral public: 32 · AES-256-GCM-SIV(content) · tag: 16
//! ```
//!
//! All keys come from 32 random bytes M. `C` is M under DH(ephemeral, recipient); `AT` proves the sender
//! to this recipient alone, by DH(sender, recipient). Neither binds the content: all recipients know its
//! key, and one of them could put another in for the others. What is inside must prove itself, as the
//! messages of sessions and groups do.

use super::content::SealedContent;
use super::error::{OpenError, SealError};
use super::sent::{self, RecipientDevice};
use crate::address::ServiceId;
use crate::crypto::cipher::{SIV_TAG, siv_open, siv_seal};
use crate::crypto::curve::SharedSecret;
use crate::crypto::kdf::hkdf_of;
use crate::crypto::secret::Secret;
use crate::crypto::{KeyError, KeyPair, PrivateKey, PublicKey};
use crate::identity::{IdentityKey, IdentityKeyPair};
use crate::wire::DecodeError;
use alloc::{boxed::Box, vec::Vec};
use bytes::Bytes;
use prost::Message;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;

/// Written before each received message. Readers look at the high half alone.
pub(super) const RECEIVED_BYTE: u8 = 0x22;

const WRAPPED: usize = 32;
const AUTH_TAG: usize = 16;
const EPHEMERAL: usize = 32;

/// Bytes that are a recipient's own: C and AT.
pub(super) const RECIPIENT_KEYS: usize = WRAPPED + AUTH_TAG;

/// Recipients that are worth another thread: about 0.4 ms of work.
#[cfg(feature = "rayon")]
const MIN_SHARE: usize = 4;

/// Bytes of a received message before its ciphertext; no shorter one is read (X3).
const MIN_LEN: usize = 1 + RECIPIENT_KEYS + EPHEMERAL;

/// Somebody to seal for, with all their devices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedRecipient {
    /// The account.
    pub service_id: ServiceId,
    /// Its identity key.
    pub identity: IdentityKey,
    /// Its devices, at least one, with the registration ids that their sessions have.
    pub devices: Vec<RecipientDevice>,
}

/// Seals for one recipient, in the form that the recipient opens. Draws 32 bytes; costs two scalar
/// multiplications and one of the base point.
///
/// `sender` must hold the identity key of the certificate in `content`, or no recipient opens the
/// envelope.
///
/// # Errors
/// [`SealError::Recipient`] when the recipient's key has low order.
pub fn seal_v2(
    content: &SealedContent,
    sender: &IdentityKeyPair,
    recipient: &IdentityKey,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealError> {
    let shared =
        sender.private_key().agree(recipient.public_key()).map_err(SealError::Recipient)?;
    seal_agreed(content, &sender.identity_key(), &shared, recipient, rng)
}

/// [`seal_v2`] with the agreement between the two identity keys given.
pub(super) fn seal_agreed(
    content: &SealedContent,
    sender: &IdentityKey,
    agreed: &SharedSecret,
    recipient: &IdentityKey,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealError> {
    let envelope = Envelope::draw(rng);
    let keys = envelope.keys_for(sender, agreed, recipient).map_err(SealError::Recipient)?;
    let mut out = Vec::with_capacity(MIN_LEN + body_len(content));
    out.push(RECEIVED_BYTE);
    out.extend_from_slice(&keys);
    envelope.append_shared(&mut out, content);
    Ok(out)
}

/// Seals once for many recipients, in the form that a relay splits ([`super::SentMessage`]). Draws
/// 32 bytes; costs two scalar multiplications a recipient, however many devices it has.
///
/// Who is `excluded` belongs to the group and gets nothing: the relay can tell that nobody was
/// forgotten. `sender` must hold the identity key of the certificate in `content`.
///
/// # Errors
/// [`SealError`]: a recipient's key has low order, it has no device, a registration id is too
/// large (X13), somebody is excluded twice or at the same time a recipient.
pub fn seal_v2_multi(
    content: &SealedContent,
    sender: &IdentityKeyPair,
    recipients: &[SealedRecipient],
    excluded: &[ServiceId],
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealError> {
    let known = recipients.iter().map(|_| None).collect();
    seal_multi(content, sender, recipients, known, excluded, rng).map(|(out, _)| out)
}

/// [`seal_v2_multi`] with those agreements between our identity key and the recipients' that are
/// `known`; gives all of them back.
pub(super) fn seal_multi(
    content: &SealedContent,
    sender: &IdentityKeyPair,
    recipients: &[SealedRecipient],
    known: Vec<Option<Agreed>>,
    excluded: &[ServiceId],
    rng: &mut impl CryptoRng,
) -> Result<(Vec<u8>, Vec<Agreed>), SealError> {
    Envelope::draw(rng).seal_multi(content, sender, recipients, known, excluded)
}

/// The agreement between our identity key and a recipient's. Boxed, so that no secret stays behind
/// where a list of them was moved.
pub(super) type Agreed = Box<SharedSecret>;

/// C and AT of one recipient, and what was agreed for the second.
type Keys = ([u8; RECIPIENT_KEYS], Agreed);

/// What all recipients of one message share.
struct Envelope {
    /// M of W§15.1.
    seed: Secret<32>,
    ephemeral: KeyPair,
    content_key: Secret<32>,
}

impl Envelope {
    fn draw(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Secret::zeroed();
        rng.fill_bytes(seed.as_mut_bytes());
        Self::derive(seed)
    }

    fn derive(seed: Secret<32>) -> Self {
        let ephemeral = ephemeral_of(&seed).into();
        let content_key = content_key_of(&seed);
        Self { seed, ephemeral, content_key }
    }

    fn seal_multi(
        &self,
        content: &SealedContent,
        sender: &IdentityKeyPair,
        recipients: &[SealedRecipient],
        known: Vec<Option<Agreed>>,
        excluded: &[ServiceId],
    ) -> Result<(Vec<u8>, Vec<Agreed>), SealError> {
        sent::check(recipients, excluded)?;
        let (keys, agreed) = self.keys_for_all(sender, recipients, known)?;
        let mut out = sent::begin(recipients, &keys, excluded, EPHEMERAL + body_len(content));
        self.append_shared(&mut out, content);
        Ok((out, agreed))
    }

    /// Each recipient's keys, in their order. In parallel with the feature `rayon`: nothing random is
    /// left to draw, so that the result is the same.
    fn keys_for_all(
        &self,
        sender: &IdentityKeyPair,
        recipients: &[SealedRecipient],
        known: Vec<Option<Agreed>>,
    ) -> Result<(Vec<[u8; RECIPIENT_KEYS]>, Vec<Agreed>), SealError> {
        let one = |(recipient, known): (&SealedRecipient, Option<Agreed>)| {
            self.keys_agreeing(sender, &recipient.identity, known)
        };
        #[cfg(not(feature = "rayon"))]
        let all = recipients.iter().zip(known).map(one);
        #[cfg(feature = "rayon")]
        let all: Vec<_> = {
            use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
            recipients.into_par_iter().zip(known).with_min_len(MIN_SHARE).map(one).collect()
        };
        let all = all.into_iter().enumerate();
        all.map(|(place, keys)| keys.map_err(|source| SealError::OneRecipient { place, source }))
            .collect()
    }

    /// The keys of one recipient, and the agreement that they took, known or made.
    fn keys_agreeing(
        &self,
        sender: &IdentityKeyPair,
        recipient: &IdentityKey,
        known: Option<Agreed>,
    ) -> Result<Keys, KeyError> {
        let agreed = match known {
            Some(agreed) => agreed,
            None => Box::new(sender.private_key().agree(recipient.public_key())?),
        };
        let keys = self.keys_for(&sender.identity_key(), &agreed, recipient)?;
        Ok((keys, agreed))
    }

    /// C and AT of one recipient.
    fn keys_for(
        &self,
        sender: &IdentityKey,
        agreed: &SharedSecret,
        recipient: &IdentityKey,
    ) -> Result<[u8; RECIPIENT_KEYS], KeyError> {
        let recipient_key = recipient.public_key();
        let ephemeral = self.ephemeral.public();
        let shared = self.ephemeral.private().agree(recipient_key)?;
        let wrapped = wrap(&self.seed, &shared, ephemeral, recipient_key);
        let tag = auth_tag(agreed, ephemeral, wrapped.as_bytes(), sender, recipient);
        let mut keys = [0; RECIPIENT_KEYS];
        let (c, at) = keys.split_at_mut(WRAPPED);
        c.copy_from_slice(wrapped.as_bytes());
        at.copy_from_slice(tag.as_bytes());
        Ok(keys)
    }

    /// Appends what every recipient gets: ephemeral key and encrypted content.
    fn append_shared(&self, out: &mut Vec<u8>, content: &SealedContent) {
        out.extend_from_slice(self.ephemeral.public().as_u());
        let start = out.len();
        content.to_wire().encode_raw(out);
        let (_, body) = out.split_at_mut(start);
        let tag = siv_seal(&self.content_key, body);
        out.extend_from_slice(&tag);
    }
}

/// Bytes of the encrypted content with its tag.
fn body_len(content: &SealedContent) -> usize {
    content.to_wire().encoded_len() + SIV_TAG
}

/// Opens an envelope of version 2 behind its first byte. Costs a scalar multiplication of the base
/// point and two others, one of them in `agree`, which gives the agreement between the recipient's
/// identity key and the sender's.
pub(super) fn open_v2(
    body: &[u8],
    recipient: &IdentityKeyPair,
    agree: impl FnOnce(&PublicKey) -> Result<SharedSecret, KeyError>,
) -> Result<SealedContent, OpenError> {
    let too_short = DecodeError::TooShort { needed: MIN_LEN, found: 1 + body.len() };
    let (wrapped, rest) = body.split_first_chunk::<WRAPPED>().ok_or(too_short)?;
    let (tag, rest) = rest.split_first_chunk::<AUTH_TAG>().ok_or(too_short)?;
    let (ephemeral, ciphertext) = rest.split_first_chunk::<EPHEMERAL>().ok_or(too_short)?;
    let ephemeral = PublicKey::from_u(*ephemeral);
    let own = recipient.identity_key();

    let shared = recipient.private_key().agree(&ephemeral).map_err(OpenError::Key)?;
    let seed = wrap(&Secret::new(*wrapped), &shared, &ephemeral, own.public_key());
    let derived = ephemeral_of(&seed).public_key();
    if !bool::from(derived.as_u().ct_eq(ephemeral.as_u())) {
        return Err(OpenError::Unauthenticated);
    }
    let content = SealedContent::from_bytes(open_content(&seed, ciphertext)?)?;

    let sender = *content.sender.identity_key();
    let shared = agree(sender.public_key()).map_err(OpenError::Key)?;
    let expected = auth_tag(&shared, &ephemeral, wrapped, &sender, &own);
    if !bool::from(expected.as_bytes().ct_eq(tag)) {
        return Err(OpenError::SenderMismatch);
    }
    Ok(content)
}

fn open_content(seed: &Secret<32>, ciphertext: &[u8]) -> Result<Bytes, OpenError> {
    let (body, tag) = ciphertext.split_last_chunk::<SIV_TAG>().ok_or(OpenError::Unauthenticated)?;
    let mut body = body.to_vec();
    if siv_open(&content_key_of(seed), &mut body, tag) {
        Ok(body.into())
    } else {
        Err(OpenError::Unauthenticated)
    }
}

fn ephemeral_of(seed: &Secret<32>) -> PrivateKey {
    let r = hkdf_of(&[seed.as_bytes()], b"Sealed Sender v2: r (2023-08)");
    PrivateKey::clamp(r)
}

fn content_key_of(seed: &Secret<32>) -> Secret<32> {
    hkdf_of(&[seed.as_bytes()], b"Sealed Sender v2: K")
}

/// M to C and C to M: the mask is the same.
fn wrap(
    seed: &Secret<32>,
    shared: &SharedSecret,
    ephemeral: &PublicKey,
    recipient: &PublicKey,
) -> Secret<WRAPPED> {
    let pieces = [&shared.as_bytes()[..], &ephemeral.serialize(), &recipient.serialize()];
    let mut out: Secret<WRAPPED> = hkdf_of(&pieces, b"Sealed Sender v2: DH");
    let bytes = out.as_mut_bytes().iter_mut();
    bytes.zip(seed.as_bytes()).for_each(|(mask, byte)| *mask ^= byte);
    out
}

fn auth_tag(
    shared: &SharedSecret,
    ephemeral: &PublicKey,
    wrapped: &[u8; WRAPPED],
    sender: &IdentityKey,
    recipient: &IdentityKey,
) -> Secret<AUTH_TAG> {
    let pieces = [
        &shared.as_bytes()[..],
        &ephemeral.serialize(),
        wrapped,
        &sender.serialize(),
        &recipient.serialize(),
    ];
    hkdf_of(&pieces, b"Sealed Sender v2: DH-sender")
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::address::DeviceId;
    use serde_json::Value;
    use std::{fs, path::Path};

    /// With the random bytes that libsignal drew, the same message comes out. They are here because
    /// they cannot be seen from outside the crate.
    #[test]
    fn sealed_with_the_seed_of_a_vector_it_is_the_vector_to_the_byte() {
        let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
        let pair =
            |value: &Value| IdentityKeyPair::from(PrivateKey::from_bytes(&bytes(value)).unwrap());
        let device = |device: &Value| RecipientDevice {
            device_id: DeviceId::try_from(device[0].as_u64().unwrap() as u32).unwrap(),
            registration_id: device[1].as_u64().unwrap() as u32,
        };
        let recipient = |case: &Value| SealedRecipient {
            service_id: case["service_id"].as_str().unwrap().parse().unwrap(),
            identity: pair(&case["identity_private"]).identity_key(),
            devices: case["devices"].as_array().unwrap().iter().map(device).collect(),
        };
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("test-vectors/libsignal/sealed_sender.json");
        let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let mut count = 0;
        for case in file["v2"].as_array().unwrap() {
            let recipients = case["recipients"].as_array().unwrap();
            let received = bytes(&case["received"][0]);
            let c = Secret::new(received[1..33].try_into().unwrap());
            let ephemeral = PublicKey::from_u(received[49..81].try_into().unwrap());
            let first = pair(&recipients[0]["identity_private"]);
            let shared = first.private_key().agree(&ephemeral).unwrap();
            let seed = wrap(&c, &shared, &ephemeral, first.identity_key().public_key());

            let recipients: Vec<_> = recipients.iter().map(recipient).collect();
            let excluded = case["excluded"].as_array().unwrap().iter();
            let excluded: Vec<ServiceId> =
                excluded.map(|id| id.as_str().unwrap().parse().unwrap()).collect();
            let sender = pair(&case["sender_identity_private"]);
            let content = SealedContent::decode(&bytes(&case["usmc"])).unwrap();
            let envelope = Envelope::derive(seed);
            let mut known = recipients.iter().map(|_| None).collect();
            // Again with what was agreed: the same.
            for _ in 0..2 {
                let sealed = envelope.seal_multi(&content, &sender, &recipients, known, &excluded);
                let (ours, agreed) = sealed.unwrap();
                assert_eq!(ours, bytes(&case["sent_message"]));
                known = agreed.into_iter().map(Some).collect();
            }
            count += 1;
        }
        assert_eq!(count, 2);
    }
}
