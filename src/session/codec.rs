//! The stored form of a record: a fixed layout of our own, big-endian, parsed once when loaded.
//!
//! ```text
//! record   | format 1 | current: length 4, session | archived: count 1, each length 4, session |
//! session  | version 1 | base key 32 | local identity 32 | remote identity 32
//!          | local registration id 4 | remote registration id 4 | previous counter 4 | root 32
//!          | sending: ratchet private 32, public 32, chain key 32, index 4
//!          | receiving: count 1, each ratchet key 32, chain key 32, index 4,
//!          |            skipped: count 2, each counter 4, seed 32
//!          | ready keys of an import: count 2, each ratchet key 32, counter 4, keys 80
//!          | post-quantum ratchet: length 4 (0: off), as in spqr/state/
//!          | pending: 0, or 1, flags 1, one-time id 4, signed id 4, created 8, KEM id 4, ciphertext 1569 |
//! ```

use super::record::{Archived, MAX_ARCHIVED, Pending, Session, SessionRecord};
use crate::crypto::secret::Secret;
use crate::crypto::{KemPublicKey, KeyPair, PrivateKey, PublicKey, SecretBytes};
use crate::identity::IdentityKey;
use crate::keys::{ChainKey, RootKey};
use crate::message::SessionVersion;
use crate::prekey::{KemPreKeyId, PreKeyId, SignedPreKeyId};
use crate::ratchet::TripleRatchet;
use crate::ratchet::double::{
    Chain, DoubleRatchet, MAX_RECEIVER_CHAINS, ReceiverChain, SenderChain,
};
use crate::ratchet::ready::{MAX_READY, READY_LEN, ReadyKeys};
use crate::ratchet::skipped::{MAX_SKIPPED, SkippedSeeds};
use crate::spqr::Spqr;
use crate::stored::{Reader, Writer};
use alloc::boxed::Box;

const FORMAT: u8 = 1;
/// A KEM ciphertext is as long as a KEM public key.
const KEM_CIPHERTEXT_LEN: usize = KemPublicKey::SERIALIZED_LEN;
const HAS_ONE_TIME: u8 = 1;
const HAS_KEM: u8 = 2;

/// Stored bytes are not a record that this crate wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Written by a newer release.
    #[error("the session record has format {found}, which this release does not know")]
    Format {
        /// The number that stood there.
        found: u8,
    },
    /// Cut off, too long, or with a value that cannot be.
    #[error("the stored session record is damaged: restore it, or begin a new session")]
    Damaged,
}

/// What stands before the receiving chains.
const HEAD_LEN: usize = 1 + 3 * 32 + 3 * 4 + 32 + 100;
/// A receiving chain without skipped seeds.
const RECEIVER_LEN: usize = 32 + 36 + 2;

/// Most bytes of a session's stored form: what does not grow, 36 for each skipped seed, and in an
/// imported session 116 for each key that came ready.
const MAX_SESSION_LEN: usize = 2 * 1024
    + MAX_RECEIVER_CHAINS * (RECEIVER_LEN + 36 * MAX_SKIPPED)
    + READY_LEN * MAX_READY
    + Spqr::MAX_ENCODED_LEN;

impl SessionRecord {
    /// Most bytes of a record, whatever the peer sends: about 72 MB, 41 imported sessions in each of which
    /// every chain has all the skipped messages that are kept. Of a session that was begun here at most
    /// 0.6 MB: only an import brings keys that came ready. Without skipped messages a session has at most
    /// 8 KB.
    pub const MAX_ENCODED_LEN: usize = 6 + (1 + MAX_ARCHIVED) * (4 + MAX_SESSION_LEN);

    /// The bytes to store: secrets, so keep them encrypted at rest. Wiped when dropped.
    pub fn encode(&self) -> SecretBytes {
        let current = self.current.as_deref();
        let archived: usize = self.archived.iter().map(|session| 4 + session.0.len()).sum();
        let mut out = Writer::with_capacity(6 + current.map_or(0, max_session_len) + archived);
        out.u8(FORMAT);
        out.sized(|out| current.into_iter().for_each(|session| write_session(out, session)));
        out.u8(self.archived.len() as u8);
        for session in &self.archived {
            out.u32(session.0.len() as u32);
            out.bytes(&session.0);
        }
        out.0
    }

    /// Reads what [`SessionRecord::encode`] wrote. Archived sessions are read only when a message
    /// asks for them.
    ///
    /// # Errors
    /// [`RecordError`]; nothing was changed.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut input = Reader(bytes);
        match input.u8() {
            Some(FORMAT) => {}
            Some(found) => return Err(RecordError::Format { found }),
            None => return Err(RecordError::Damaged),
        }
        read_record(&mut input).filter(|_| input.0.is_empty()).ok_or(RecordError::Damaged)
    }
}

fn read_record(input: &mut Reader<'_>) -> Option<SessionRecord> {
    let current = match input.u32()? {
        0 => None,
        len => Some(decode_session(input.bytes(len as usize)?)?),
    };
    let count = usize::from(input.u8()?);
    if count > MAX_ARCHIVED {
        return None;
    }
    let mut archived = alloc::collections::VecDeque::with_capacity(count);
    for _ in 0..count {
        let len = input.u32()? as usize;
        archived.push_back(Archived(SecretBytes::from_vec(input.bytes(len)?.to_vec())));
    }
    Some(SessionRecord { current, archived })
}

/// Whether an encoded session has this version and base key.
pub(super) fn named(session: &[u8], version: SessionVersion, base_key: &PublicKey) -> bool {
    matches!(session.split_first(), Some((first, rest))
        if *first == version as u8 && rest.starts_with(base_key.as_u()))
}

/// The version of an encoded session.
pub(super) fn version_of(session: &[u8]) -> Option<SessionVersion> {
    match session.first()? {
        3 => Some(SessionVersion::V3),
        4 => Some(SessionVersion::V4),
        _ => None,
    }
}

pub(crate) fn encode_session(session: &Session) -> SecretBytes {
    let mut out = Writer::with_capacity(max_session_len(session));
    write_session(&mut out, session);
    out.0
}

/// Not less than what [`write_session`] writes.
fn max_session_len(session: &Session) -> usize {
    let pq_len = session.ratchet.pq.max_encoded_len();
    let receivers = &session.ratchet.double.receivers;
    let receivers: usize = receivers.iter().map(|it| RECEIVER_LEN + 36 * it.skipped.len()).sum();
    let ready = session.ratchet.double.ready.encoded_len();
    let pending = match &session.pending {
        None => 1,
        Some(pending) => 18 + pending.kem.as_ref().map_or(0, |(_, bytes)| 4 + bytes.len()),
    };
    HEAD_LEN + 1 + receivers + ready + 4 + pq_len + pending
}

fn write_session(out: &mut Writer, session: &Session) {
    let double = &session.ratchet.double;
    out.u8(session.version as u8);
    out.bytes(session.base_key.as_u());
    out.bytes(session.local_identity.public_key().as_u());
    out.bytes(session.remote_identity.public_key().as_u());
    out.u32(session.local_registration_id);
    out.u32(session.remote_registration_id);
    out.u32(double.previous_counter);
    out.bytes(double.root.as_bytes());
    let sender = &double.sender;
    out.bytes(&*sender.ratchet.private().to_bytes());
    out.bytes(sender.ratchet.public().as_u());
    sender.chain.write(out);
    out.u8(double.receivers.len() as u8);
    for receiver in &double.receivers {
        out.bytes(receiver.ratchet_key.as_u());
        receiver.chain.write(out);
        receiver.skipped.write(out);
    }
    double.ready.write(out);
    out.sized(|out| session.ratchet.pq.write(out));
    write_pending(out, session.pending.as_ref());
}

fn write_pending(out: &mut Writer, pending: Option<&Pending>) {
    let Some(pending) = pending else { return out.u8(0) };
    let one_time = if pending.one_time.is_some() { HAS_ONE_TIME } else { 0 };
    let kem = if pending.kem.is_some() { HAS_KEM } else { 0 };
    out.u8(1);
    out.u8(one_time | kem);
    out.u32(pending.one_time.map_or(0, |id| id.0));
    out.u32(pending.signed.0);
    out.u64(pending.created_secs);
    if let Some((id, ciphertext)) = &pending.kem {
        out.u32(id.0);
        out.bytes(ciphertext);
    }
}

/// In its box at once: it is large, and moves cost as much as reading.
pub(super) fn decode_session(bytes: &[u8]) -> Option<Box<Session>> {
    let mut input = Reader(bytes);
    let session = read_session(&mut input)?;
    input.0.is_empty().then_some(session)
}

/// Keys stay where they are stored until the session is there to be filled, so that they move once.
fn read_session(input: &mut Reader<'_>) -> Option<Box<Session>> {
    let version = version_of(&[input.u8()?])?;
    let [base_key, local_identity, remote_identity] =
        [input.array()?, input.array()?, input.array()?];
    let local_registration_id = input.u32()?;
    let remote_registration_id = input.u32()?;
    let previous_counter = input.u32()?;
    let root = input.array()?;
    let (private, public) = (input.clamped()?, input.array()?);
    let (chain_key, index) = (input.array()?, input.u32()?);
    let count = usize::from(input.u8()?);
    if count > MAX_RECEIVER_CHAINS {
        return None;
    }
    let receivers = input.repeated(count, RECEIVER_LEN, read_receiver)?;
    let ready = ReadyKeys::read(input)?;
    let pq_len = input.u32()? as usize;
    let pq = Spqr::decode(input.bytes(pq_len)?).ok()?;
    let pending = read_pending(input)?;
    Some(Box::new(Session {
        version,
        local_identity: IdentityKey::new(PublicKey::from_u(*local_identity)),
        remote_identity: IdentityKey::new(PublicKey::from_u(*remote_identity)),
        local_registration_id,
        remote_registration_id,
        base_key: PublicKey::from_u(*base_key),
        pending,
        ratchet: TripleRatchet {
            double: DoubleRatchet {
                root: RootKey::new(Secret::new(*root)),
                previous_counter,
                sender: SenderChain {
                    ratchet: KeyPair::from_stored(
                        PrivateKey::clamp(Secret::new(*private)),
                        PublicKey::from_u(*public),
                    ),
                    chain: Chain { key: ChainKey::new(Secret::new(*chain_key)), index },
                },
                receivers,
                ready,
            },
            pq,
        },
    }))
}

fn read_receiver(input: &mut Reader<'_>) -> Option<ReceiverChain> {
    let (ratchet_key, chain_key, index) = (input.array()?, input.array()?, input.u32()?);
    let skipped = SkippedSeeds::read(input, index)?;
    Some(ReceiverChain {
        ratchet_key: PublicKey::from_u(*ratchet_key),
        chain: Chain { key: ChainKey::new(Secret::new(*chain_key)), index },
        skipped,
    })
}

fn read_pending(input: &mut Reader<'_>) -> Option<Option<Pending>> {
    match input.u8()? {
        0 => return Some(None),
        1 => {}
        _ => return None,
    }
    let flags = input.u8()?;
    if flags & !(HAS_ONE_TIME | HAS_KEM) != 0 {
        return None;
    }
    let one_time = input.u32()?;
    let signed = SignedPreKeyId(input.u32()?);
    let created_secs = input.u64()?;
    let kem = if flags & HAS_KEM != 0 {
        Some((KemPreKeyId(input.u32()?), input.bytes(KEM_CIPHERTEXT_LEN)?.to_vec()))
    } else {
        None
    };
    let one_time = match (flags & HAS_ONE_TIME, one_time) {
        (0, 0) => None,
        (0, _) => return None,
        (_, id) => Some(PreKeyId(id)),
    };
    Some(Some(Pending { one_time, signed, kem, created_secs }))
}
