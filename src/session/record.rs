//! The record of one remote device: at most one current session and the archived ones (W§11).

use super::codec;
use crate::address::Timestamp;
use crate::crypto::{PublicKey, SecretBytes};
use crate::identity::IdentityKey;
use crate::message::SessionVersion;
use crate::prekey::{KemPreKeyId, PreKeyId, SignedPreKeyId};
use crate::ratchet::TripleRatchet;
use alloc::{boxed::Box, collections::VecDeque, vec::Vec};

/// Archived sessions kept per record; the oldest goes first. The peers keep as many.
pub(crate) const MAX_ARCHIVED: usize = 40;

/// How long a session that nobody answered is used for sending (S2): 30 days, in seconds.
const UNANSWERED_LIFETIME_SECS: u64 = 30 * 24 * 60 * 60;

/// One session with one remote device.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) version: SessionVersion,
    pub(crate) local_identity: IdentityKey,
    pub(crate) remote_identity: IdentityKey,
    pub(crate) local_registration_id: u32,
    pub(crate) remote_registration_id: u32,
    /// The initiator's base key, which names the session.
    pub(crate) base_key: PublicKey,
    /// Only at the initiator, until the first answer.
    pub(crate) pending: Option<Pending>,
    pub(crate) ratchet: TripleRatchet,
}

/// What an initiator repeats around its messages until it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) one_time: Option<PreKeyId>,
    pub(crate) signed: SignedPreKeyId,
    /// Id and serialized ciphertext, in version 4.
    pub(crate) kem: Option<(KemPreKeyId, Vec<u8>)>,
    pub(crate) created_secs: u64,
}

impl Pending {
    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        self.created_secs.saturating_add(UNANSWERED_LIFETIME_SECS) < now.as_secs()
    }
}

/// An archived session stays encoded until a message asks for it: a record is loaded for every
/// message, its archive hardly ever read.
#[derive(Clone)]
pub(crate) struct Archived(pub(crate) SecretBytes);

/// All sessions with one remote device.
///
/// Load it, call one operation, save [`SessionRecord::encode`] in the same transaction as what the
/// operation gave you. `Clone` copies secrets: it is there for tests and rollback, not for messages.
#[derive(Clone, Default)]
pub struct SessionRecord {
    pub(crate) current: Option<Box<Session>>,
    /// Newest first.
    pub(crate) archived: VecDeque<Archived>,
}

/// What can be told of a record without touching a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// The initiator's base key, which names the session: a record tells its sessions apart by it.
    pub base_key: PublicKey,
    /// How the current session was begun.
    pub version: SessionVersion,
    /// Whether the post-quantum ratchet is on in it; what is sent has its keys mixed in, unless
    /// [`Self::post_quantum_open`].
    pub post_quantum_ratchet: bool,
    /// Whether the peer may still turn out to have no such ratchet: we began the session with a policy that allows it and have
    /// heard nothing yet. Until then our messages go without its keys (S§3.2), and the first answer decides.
    pub post_quantum_open: bool,
    /// How far it has come: the epoch that the two agree on next, from 1. Both sides' numbers differ
    /// by at most one; a pair that talks in turns completes one in 87 messages (S§12).
    pub post_quantum_epoch: Option<u64>,
    /// The peer's identity in it.
    pub remote_identity: IdentityKey,
    /// The peer's registration id in it.
    pub remote_registration_id: u32,
    /// We began it and have not heard back: messages still carry the prekey part.
    pub awaiting_reply: bool,
}

impl SessionRecord {
    /// A record without any session.
    pub fn new() -> Self {
        Self::default()
    }

    /// The current session, or `None`.
    pub fn info(&self) -> Option<SessionInfo> {
        self.current.as_ref().map(|session| SessionInfo {
            base_key: session.base_key,
            version: session.version,
            post_quantum_ratchet: !session.ratchet.pq.is_off(),
            post_quantum_open: session.ratchet.pq.is_open(),
            post_quantum_epoch: session.ratchet.pq.epoch(),
            remote_identity: session.remote_identity,
            remote_registration_id: session.remote_registration_id,
            awaiting_reply: session.pending.is_some(),
        })
    }

    /// How many archived sessions there are: at most 40.
    pub fn archived_sessions(&self) -> usize {
        self.archived.len()
    }

    /// Whether [`SessionRecord::encrypt`] would find a session at this time.
    pub fn can_encrypt(&self, now: Timestamp) -> bool {
        self.current
            .as_ref()
            .is_some_and(|session| session.pending.as_ref().is_none_or(|it| !it.expired(now)))
    }

    /// Whether this is the key under which our current session sends: the peer that reports a
    /// decryption error with it means this session (W§10.6).
    pub fn is_current_ratchet_key(&self, key: &PublicKey) -> bool {
        self.current
            .as_ref()
            .is_some_and(|session| session.ratchet.double.sender.ratchet.public() == key)
    }

    /// Archives the current session, so that the next message needs a new one. Messages of the old
    /// one that are still on their way can be read. Nothing to archive is no error.
    pub fn archive_current(&mut self) {
        if let Some(mut session) = self.current.take() {
            session.pending = None;
            self.archived.truncate(MAX_ARCHIVED - 1);
            self.archived.push_front(Archived(codec::encode_session(&session)));
        }
    }

    /// Archives the current session and puts another in its place, which stays in its box: moved out of it, its keys would
    /// stay behind.
    pub(crate) fn promote(&mut self, session: Box<Session>) {
        self.archive_current();
        self.current = Some(session);
    }

    /// Where the session with this version and base key is.
    pub(crate) fn find(&self, version: SessionVersion, base_key: &PublicKey) -> Option<Place> {
        if let Some(session) = &self.current
            && (session.version, &session.base_key) == (version, base_key)
        {
            return Some(Place::Current);
        }
        self.archived
            .iter()
            .position(|archived| codec::named(&archived.0, version, base_key))
            .map(Place::Archived)
    }
}

/// Where in a record a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Current,
    /// Index into the archive.
    Archived(usize),
}

impl core::fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SessionRecord")
            .field("info", &self.info())
            .field("archived", &self.archived.len())
            .finish()
    }
}
