//! What an encrypted message says (`proto/content.proto`): our own format, between tuckseal clients.
//! `data.rs` has what people write, `notice.rs` what devices tell each other, `link.rs` what a new device is given.
//!
//! A content of a newer release is no error: its body is [`Body::Unsupported`], the rest is read.

mod data;
mod link;
mod notice;

pub use data::{
    AttachmentPointer, Data, GroupChange, GroupContext, Location, LocationError, MAX_NAME_BYTES,
};
pub use link::LinkOffer;
pub use notice::{Contact, ReadMark, Receipt, ReceiptKind, Sync, Transcript, Typing};

use crate::address::Timestamp;
use crate::message::DecryptionErrorMessage;
use crate::padding::{content_len, pad_content, unpad};
use crate::wire::content as stored;
use crate::wire::{DecodeError, in_field};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use stored::content::Body as StoredBody;

/// Longest encoded content that is read, in bytes: far more than a relay carries.
pub const MAX_CONTENT_BYTES: usize = 256 * 1024;
/// The revision of the schema that this release knows.
const REVISION: u32 = 0;
/// Field numbers of Content that this release knows.
const KNOWN_FIELDS: [u32; 13] = [1, 2, 5, 6, 7, 8, 16, 17, 18, 19, 20, 21, 22];
/// More numbers than a reader keeps of one stream.
const MAX_HAVE: usize = 1024;
/// Longest report token that is read, in bytes: a relay makes shorter ones. An empty one is none.
pub const MAX_REPORT_TOKEN_BYTES: usize = 128;
/// More messages than a reader names as failed.
const MAX_FAILED: usize = 64;

/// What is inside one encrypted message.
#[derive(Clone, PartialEq, Default)]
pub struct Content {
    /// What it says.
    pub body: Body,
    /// Position in the sender device's stream to this recipient device, from 1, without holes. 0: outside
    /// the order.
    pub sequence: u64,
    /// Names the stream; another one than before begins at 1 again.
    pub stream: u64,
    /// The sender's clock. Names the message in receipts: a sender never uses one twice.
    pub timestamp: Timestamp,
    /// How to reach the sender.
    pub profile: Option<Profile>,
    /// An encoded [`crate::SenderKeyDistributionMessage`]: the sender's key for a group.
    pub sender_key: Option<Bytes>,
    /// "I could not decrypt this message of yours."
    pub decryption_error: Option<DecryptionErrorMessage>,
    /// What has not come, so that it can be sent again.
    pub retry: Option<Retry>,
    /// With this the reader can report the sender to the relay, which made it; nobody else can read it. At most
    /// [`MAX_REPORT_TOKEN_BYTES`], not empty.
    pub report_token: Option<Bytes>,
}

/// What a content says.
#[derive(Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Body {
    /// Nothing: the content is there for its other fields.
    #[default]
    Nothing,
    /// Something for people.
    Data(Data),
    /// Something that the sender's own other device did.
    Sync(Sync),
    /// Messages of ours arrived or were read.
    Receipt(Receipt),
    /// The sender is writing, or has stopped.
    Typing(Typing),
    /// Something that a newer release, or other software, can read: show that it came. The whole encoded
    /// content is kept for the day when this app can read it. Nothing is written for it.
    Unsupported(Bytes),
}

/// How to reach somebody without saying who is asking.
#[derive(Clone, PartialEq, Eq)]
pub struct Profile {
    /// Shown to the relay instead of a token.
    pub access_key: [u8; 16],
    /// What the sender calls themselves: a hint, not a proof.
    pub name: String,
}

/// What of a sender's stream has not come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Retry {
    /// The stream as the one who asks knows it; 0: none.
    pub stream: u64,
    /// The first number in it that is lacking.
    pub next: u64,
    /// Larger ones that are not: at most 1024.
    pub have: Vec<u64>,
    /// First 16 bytes of the SHA-256 of each session message that could not be read: at most 64.
    pub failed: Vec<[u8; 16]>,
}

impl Content {
    /// A content that says this, and nothing else.
    pub fn new(body: Body, timestamp: Timestamp) -> Self {
        Self { body, timestamp, ..Self::default() }
    }

    /// Whether a reader takes what is written of it. Ask before it is stored or encrypted: what has too much in it
    /// is written all the same, and lost at every recipient.
    ///
    /// # Errors
    /// [`DecodeError`] as [`Content::decode`] will find it: [`DecodeError::Field`] names what is too long or too many.
    pub fn check(&self) -> Result<(), DecodeError> {
        Self::decode(&self.encode()).map(drop)
    }

    /// Writes it, without padding. What nobody takes is written, too: see [`Content::check`].
    pub fn encode(&self) -> Vec<u8> {
        self.stored().encode_to_vec()
    }

    /// Writes it and pads it (W§18.2): what a session encrypts. The steps are those of
    /// [`ENVELOPE_SIZES`](crate::ENVELOPE_SIZES): 479, 3,519, 15,839, 64,959 and 95,999 bytes.
    pub fn encode_padded(&self) -> Vec<u8> {
        let stored = self.stored();
        let mut out = Vec::with_capacity(content_len(stored.encoded_len()));
        stored.encode_raw(&mut out);
        pad_content(&mut out);
        out
    }

    fn stored(&self) -> stored::Content {
        let body = match &self.body {
            Body::Nothing | Body::Unsupported(_) => None,
            Body::Data(data) => Some(StoredBody::Data(data.into())),
            Body::Sync(sync) => Some(StoredBody::Sync(sync.into())),
            Body::Receipt(receipt) => Some(StoredBody::Receipt(receipt.into())),
            Body::Typing(typing) => Some(StoredBody::Typing((*typing).into())),
        };
        stored::Content {
            body,
            sender_key_distribution_message: self.sender_key.clone(),
            decryption_error_message: self.decryption_error.map(|error| error.encode().into()),
            sequence: self.sequence,
            timestamp: self.timestamp.as_millis(),
            profile: self.profile.as_ref().map(|profile| stored::Profile {
                access_key: Bytes::copy_from_slice(&profile.access_key),
                name: profile.name.clone(),
            }),
            stream: self.stream,
            retry: self.retry.as_ref().map(|retry| stored::Retry {
                stream: retry.stream,
                next: retry.next,
                have: retry.have.clone(),
                failed: retry.failed.iter().map(|it| Bytes::copy_from_slice(it)).collect(),
            }),
            needs_revision: REVISION,
            report_token: self.report_token.clone(),
        }
    }

    /// Reads what a session decrypted, padded or not, whatever the step of the padding.
    ///
    /// # Errors
    /// [`DecodeError`] as for [`Content::decode`].
    pub fn decode_padded(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(unpad(bytes))
    }

    /// Reads a content without padding.
    ///
    /// # Errors
    /// [`DecodeError`] when it is longer than [`MAX_CONTENT_BYTES`], malformed, or has a value that cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_CONTENT_BYTES {
            return Err(DecodeError::TooLong { limit: MAX_CONTENT_BYTES, found: bytes.len() });
        }
        let content = stored::Content::decode(bytes)?;
        let body = match content.body {
            _ if content.needs_revision > REVISION => None,
            None if has_unknown_field(bytes) => None,
            None => Some(Body::Nothing),
            Some(StoredBody::Data(data)) => Some(Body::Data(data.try_into()?)),
            Some(StoredBody::Sync(sync)) => Sync::read(sync)?.map(Body::Sync),
            Some(StoredBody::Receipt(receipt)) => Receipt::read(receipt)?.map(Body::Receipt),
            Some(StoredBody::Typing(typing)) => Some(Body::Typing(typing.try_into()?)),
        };
        let error = content.decryption_error_message;
        Ok(Self {
            body: body.unwrap_or_else(|| Body::Unsupported(Bytes::copy_from_slice(bytes))),
            sequence: content.sequence,
            stream: content.stream,
            timestamp: Timestamp::from_millis(content.timestamp),
            profile: content.profile.map(Profile::try_from).transpose()?,
            sender_key: content.sender_key_distribution_message,
            decryption_error: error.map(|it| DecryptionErrorMessage::decode(&it)).transpose()?,
            retry: content.retry.map(Retry::try_from).transpose()?,
            report_token: content.report_token.map(report_token).transpose()?,
        })
    }
}

/// Whether a content has a field that this release does not know. What cannot be parsed was refused before.
fn has_unknown_field(mut bytes: &[u8]) -> bool {
    while let Ok((tag, wire_type)) = decode_key(&mut bytes) {
        if !KNOWN_FIELDS.contains(&tag) {
            return true;
        }
        if skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).is_err() {
            return false;
        }
    }
    false
}

impl TryFrom<stored::Profile> for Profile {
    type Error = DecodeError;

    fn try_from(profile: stored::Profile) -> Result<Self, DecodeError> {
        let access_key = exact(&profile.access_key, "access_key")?;
        Ok(Self { access_key, name: profile.name })
    }
}

impl TryFrom<stored::Retry> for Retry {
    type Error = DecodeError;

    fn try_from(retry: stored::Retry) -> Result<Self, DecodeError> {
        let failed = at_most(MAX_FAILED, retry.failed, "failed")?;
        let failed = failed.iter().map(|it| exact(it, "failed")).collect::<Result<_, _>>()?;
        let have = at_most(MAX_HAVE, retry.have, "have")?;
        Ok(Self { stream: retry.stream, next: retry.next, have, failed })
    }
}

fn report_token(token: Bytes) -> Result<Bytes, DecodeError> {
    let good = (1..=MAX_REPORT_TOKEN_BYTES).contains(&token.len());
    if good { Ok(token) } else { Err(DecodeError::Field { field: "report_token" }) }
}

// What the files of this folder check with.

fn exact<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::Field { field })
}

fn at_most<T>(limit: usize, list: Vec<T>, field: &'static str) -> Result<Vec<T>, DecodeError> {
    if list.len() > limit { Err(DecodeError::Field { field }) } else { Ok(list) }
}

// What people write is not for logs, nor what lets others read or write in somebody's name.

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("body", &self.body)
            .field("sequence", &self.sequence)
            .field("stream", &self.stream)
            .field("timestamp", &self.timestamp)
            .field("decryption_error", &self.decryption_error)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Data(data) => data.fmt(f),
            Self::Sync(sync) => f.debug_tuple("Sync").field(sync).finish(),
            Self::Receipt(receipt) => receipt.fmt(f),
            Self::Typing(typing) => f.debug_tuple("Typing").field(typing).finish(),
            Self::Unsupported(encoded) => write!(f, "Unsupported({} bytes)", encoded.len()),
        }
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn text() -> Content {
        Content { sequence: 7, ..Content::new(Body::Data(Data::text("hi")), NOW) }
    }

    /// Appends a field that no release has.
    fn with_unknown_field(mut encoded: Vec<u8>) -> Vec<u8> {
        prost::encoding::string::encode(99, &String::from("new"), &mut encoded);
        encoded
    }

    #[test]
    fn every_field_number_of_the_schema_is_known() {
        let all = Content {
            sequence: 1,
            stream: 1,
            profile: Some(Profile { access_key: [1; 16], name: "a".into() }),
            sender_key: Some(Bytes::from_static(b"key")),
            decryption_error: Some(DecryptionErrorMessage {
                ratchet_key: None,
                timestamp: NOW,
                device_id: 1,
            }),
            retry: Some(Retry { stream: 1, next: 2, have: vec![3], failed: vec![[4; 16]] }),
            report_token: Some(Bytes::from_static(&[5; 128])),
            ..Content::new(Body::Nothing, NOW)
        };
        let mut stored = all.stored();
        stored.needs_revision = 1;
        for body in [
            StoredBody::Data(Default::default()),
            StoredBody::Sync(Default::default()),
            StoredBody::Receipt(Default::default()),
            StoredBody::Typing(Default::default()),
        ] {
            stored.body = Some(body);
            assert!(!has_unknown_field(&stored.encode_to_vec()));
        }
        assert_eq!(Content::decode(&all.encode()), Ok(all));
    }

    #[test]
    fn a_body_of_the_future_is_kept_as_unsupported_and_the_rest_is_read() {
        let nothing = Content { sequence: 7, ..Content::new(Body::Nothing, NOW) };
        let new = with_unknown_field(nothing.encode());
        let read = Content::decode(&new).unwrap();
        assert_eq!(read.body, Body::Unsupported(new.into()));
        assert_eq!((read.sequence, read.timestamp), (7, NOW));

        let mut stored = text().stored();
        stored.needs_revision = REVISION + 1;
        let new = stored.encode_to_vec();
        assert_eq!(Content::decode(&new).unwrap().body, Body::Unsupported(new.into()));

        let receipt = stored::Receipt { kind: 9, timestamps: vec![1] };
        stored = stored::Content { body: Some(StoredBody::Receipt(receipt)), ..Default::default() };
        let new = stored.encode_to_vec();
        assert_eq!(Content::decode(&new).unwrap().body, Body::Unsupported(new.into()));
    }

    #[test]
    fn an_unknown_field_beside_a_known_body_is_passed_over() {
        assert_eq!(Content::decode(&with_unknown_field(text().encode())), Ok(text()));
    }

    #[test]
    fn padding_of_any_step_and_none_is_read() {
        let encoded = text().encode();
        assert_eq!(Content::decode_padded(&encoded), Ok(text()));
        assert_eq!(text().encode_padded().len(), 479);
        assert_eq!(Content::decode_padded(&text().encode_padded()), Ok(text()));
        let wide = [&encoded[..], &[0x80], &[0; 159]].concat();
        assert_eq!(Content::decode_padded(&wide), Ok(text()));
    }

    #[test]
    fn what_is_too_much_or_of_a_wrong_length_is_refused() {
        let field = |field| Err(DecodeError::Field { field });
        let decode = |content: stored::Content| Content::decode(&content.encode_to_vec());
        let data =
            |data| stored::Content { body: Some(StoredBody::Data(data)), ..Default::default() };

        let long = vec![0; MAX_CONTENT_BYTES + 1];
        let too_long = DecodeError::TooLong { limit: MAX_CONTENT_BYTES, found: long.len() };
        assert_eq!(Content::decode(&long), Err(too_long));
        let profile = stored::Profile { access_key: vec![1; 15].into(), name: String::new() };
        let content = stored::Content { profile: Some(profile), ..Default::default() };
        assert_eq!(decode(content), field("access_key"));
        let retry = stored::Retry { have: vec![1; 1025], ..Default::default() };
        let content = stored::Content { retry: Some(retry), ..Default::default() };
        assert_eq!(decode(content), field("have"));
        let retry = stored::Retry { failed: vec![Bytes::new()], ..Default::default() };
        let content = stored::Content { retry: Some(retry), ..Default::default() };
        assert_eq!(decode(content), field("failed"));
        for length in [0, 129] {
            let report_token = Some(vec![5; length].into());
            let content = stored::Content { report_token, ..Default::default() };
            assert_eq!(decode(content), field("report_token"));
        }
        let attachments = vec![stored::AttachmentPointer::default(); 33];
        let content = stored::DataMessage { attachments, ..Default::default() };
        assert_eq!(decode(data(content)), field("attachments"));
        let members = vec![Bytes::from_static(&[1; 16]); 1001];
        let state = stored::GroupState { name: String::new(), members };
        let change = Some(stored::group_context::Change::State(state));
        let group = stored::GroupContext { id: vec![1; 16].into(), revision: 1, change };
        let content = stored::DataMessage { group: Some(group), ..Default::default() };
        assert_eq!(decode(data(content)), field("members"));
        let timestamps = vec![1; 1001];
        let receipt = StoredBody::Receipt(stored::Receipt { kind: 0, timestamps });
        let content = stored::Content { body: Some(receipt), ..Default::default() };
        assert_eq!(decode(content), field("timestamps"));
        let location = stored::Location { precision_m: 0, ..Default::default() };
        let content = stored::DataMessage { location: Some(location), ..Default::default() };
        assert_eq!(decode(data(content)), field("location"));
    }
}
