//! Messages of sessions that exist: which session takes them, and what is refused (W§11.1–11.2).

use super::codec;
use super::establish::{Consumed, PreKeyKind};
use super::record::{Pending, Place, Session, SessionRecord};
use crate::address::{Address, Timestamp};
use crate::crypto::KeyError;
use crate::identity::{IdentityKey, LocalParty, Trust, UntrustedIdentity};
use crate::message::{Addresses, Envelope, Header, Identities, MessageKind, SignalMessage};
use crate::ratchet::triple::RecvPlan;
use crate::ratchet::{JumpLimit, RatchetError, Refused};
use crate::spqr::SpqrError;
use alloc::{boxed::Box, vec::Vec};
use rand_core::CryptoRng;

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encrypted {
    /// Which of the two it is.
    pub kind: MessageKind,
    /// Its bytes on the wire.
    pub body: Vec<u8>,
}

/// A message that was read. The plaintext can be had once only: store it with the record.
#[derive(PartialEq, Eq)]
pub struct Decrypted {
    /// What the peer encrypted.
    pub plaintext: Vec<u8>,
    /// The identity of the session that took the message: store it with the record.
    pub identity: IdentityKey,
    /// What a new session used up; `None` when the session was there.
    pub consumed: Option<Consumed>,
}

impl core::fmt::Debug for Decrypted {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Decrypted")
            .field("identity", &self.identity)
            .field("consumed", &self.consumed)
            .finish_non_exhaustive()
    }
}

/// A message could not be encrypted. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncryptError {
    /// S1: there is no current session.
    #[error("there is no session: fetch a prekey bundle and begin one")]
    NoSession,
    /// S2: the session was never answered and is too old.
    #[error("the session was not answered for 30 days: fetch a prekey bundle and begin a new one")]
    Unanswered,
    /// S3: the session's identity is not the trusted one.
    #[error(transparent)]
    UntrustedIdentity(#[from] UntrustedIdentity),
    /// S5: the sending chain has reached its last counter.
    #[error("the sending chain is used up: begin a new session")]
    Exhausted,
    /// S4: the stored post-quantum ratchet contradicts itself.
    #[error("the stored session is damaged: restore it, or begin a new one")]
    Damaged,
}

impl From<Refused> for EncryptError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Ratchet(_) | Refused::Pq(SpqrError::ChainExhausted) => Self::Exhausted,
            Refused::Pq(_) => Self::Damaged,
        }
    }
}

/// A message could not be decrypted. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecryptError {
    /// No session takes it; which check failed is not said. Ask the sender to send it again.
    #[error("no session can decrypt the message: ask the sender to send it again")]
    Invalid,
    /// It skips more messages than the limit allows.
    #[error("the message is {ahead} ahead of its chain, at most {limit} are allowed")]
    TooFarAhead {
        /// How many messages it skips.
        ahead: u32,
        /// How many it may.
        limit: u32,
    },
    /// It was read before, or its key was given up. Drop it.
    #[error("message {counter} of its chain was decrypted before, or its key is gone")]
    Duplicate {
        /// Its place in the chain.
        counter: u32,
    },
    /// There is no session of any kind.
    #[error("there is no session: ask the sender to begin one")]
    NoSession,
    /// A first message of version 3, and the policy asks for PQXDH.
    #[error("the peer began a session by X3DH, which was not allowed")]
    X3dhRefused,
    /// A first message names a prekey that was not found.
    #[error("{kind:?} prekey {id} is not there: it was used before, or never ours")]
    NoPreKey {
        /// Which kind.
        kind: PreKeyKind,
        /// Which one.
        id: u32,
    },
    /// The peer's identity is not the trusted one.
    #[error(transparent)]
    UntrustedIdentity(#[from] UntrustedIdentity),
    /// A key in the message cannot be used.
    #[error("a key in the message cannot be used: {0}")]
    Key(#[from] KeyError),
}

/// Why one session did not take a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum TrialError {
    Duplicate { counter: u32 },
    TooFarAhead { ahead: u32, limit: u32 },
    Invalid,
}

impl From<TrialError> for DecryptError {
    fn from(error: TrialError) -> Self {
        match error {
            TrialError::Duplicate { counter } => Self::Duplicate { counter },
            TrialError::TooFarAhead { ahead, limit } => Self::TooFarAhead { ahead, limit },
            TrialError::Invalid => Self::Invalid,
        }
    }
}

/// A message that one session took, not yet committed.
pub(super) struct Opened {
    pub(super) plan: RecvPlan,
    pub(super) plaintext: Vec<u8>,
    identity: IdentityKey,
    /// Read from the archive, when it came from there.
    session: Option<Box<Session>>,
}

impl Session {
    /// Tries a message on this session, changing nothing.
    pub(super) fn open(
        &self,
        local: &LocalParty,
        remote: &Address,
        message: &SignalMessage,
        rng: &mut impl CryptoRng,
    ) -> Result<Opened, TrialError> {
        if message.version() != self.version {
            return Err(TrialError::Invalid);
        }
        let limit = local.jump_limit(&remote.service_id, &self.remote_identity);
        let (ratchet_key, counter) = (message.ratchet_key(), message.counter());
        let plan = self
            .ratchet
            .plan_receive(ratchet_key, counter, message.pq_ratchet(), limit, rng)
            .map_err(|refused| TrialError::of(refused, limit))?;
        let identities =
            Identities { sender: &self.remote_identity, receiver: &self.local_identity };
        let plaintext = message
            .open(&plan.keys, identities, remote, &local.address)
            .ok_or(TrialError::Invalid)?;
        Ok(Opened { plan, plaintext, identity: self.remote_identity, session: None })
    }

    /// What stands around each message until the session is answered.
    fn envelope<'a>(&'a self, pending: &'a Pending) -> Envelope<'a> {
        Envelope {
            version: self.version,
            registration_id: self.local_registration_id,
            one_time: pending.one_time,
            signed: pending.signed,
            kem: pending.kem.as_ref().map(|(id, ciphertext)| (*id, &ciphertext[..])),
            base_key: &self.base_key,
            identity_key: &self.local_identity,
        }
    }
}

impl TrialError {
    /// Why a message was refused under this limit.
    fn of(refused: Refused, limit: JumpLimit) -> Self {
        let limit = limit.messages();
        match refused {
            Refused::Ratchet(RatchetError::Duplicate { counter }) => Self::Duplicate { counter },
            Refused::Ratchet(RatchetError::TooFarAhead { ahead }) => {
                Self::TooFarAhead { ahead, limit }
            }
            Refused::Pq(SpqrError::KeyJump { newest, asked }) => {
                Self::TooFarAhead { ahead: asked.saturating_sub(newest), limit }
            }
            Refused::Ratchet(RatchetError::Key(_) | RatchetError::Exhausted) | Refused::Pq(_) => {
                Self::Invalid
            }
        }
    }
}

impl SessionRecord {
    /// Encrypts for the remote device (W§11.1). Save the record before the message leaves.
    ///
    /// # Errors
    /// [`EncryptError`]; the record is as it was.
    pub fn encrypt(
        &mut self,
        local: &LocalParty,
        remote: &Address,
        plaintext: &[u8],
        trust: Trust,
        rng: &mut impl CryptoRng,
        now: Timestamp,
    ) -> Result<Encrypted, EncryptError> {
        let session = self.current.as_mut().ok_or(EncryptError::NoSession)?;
        if session.pending.as_ref().is_some_and(|pending| pending.expired(now)) {
            return Err(EncryptError::Unanswered);
        }
        trust.check(&session.remote_identity)?;
        let plan = session.ratchet.plan_send(rng)?;
        let double = &session.ratchet.double;
        let header = Header {
            version: session.version,
            ratchet_key: double.sender.ratchet.public(),
            counter: plan.counter,
            previous_counter: double.previous_counter,
            pq_message: &plan.pq_message,
            addresses: session.pending.as_ref().map(|_| Addresses::new(&local.address, remote)),
        };
        let identities =
            Identities { sender: &session.local_identity, receiver: &session.remote_identity };
        let body = header.seal(&plan.keys, identities, plaintext);
        session.ratchet.commit_send(plan);
        Ok(match &session.pending {
            None => Encrypted { kind: MessageKind::Whisper, body },
            Some(pending) => {
                Encrypted { kind: MessageKind::PreKey, body: session.envelope(pending).wrap(body) }
            }
        })
    }

    /// Decrypts an ordinary message (W§11.2): by the current session, else by the archived ones from
    /// the newest on; the one that takes it becomes the current one. Save the record and the identity.
    ///
    /// # Errors
    /// [`DecryptError`] by rows M1 to M13; the record is as it was.
    pub fn decrypt(
        &mut self,
        local: &LocalParty,
        remote: &Address,
        message: &SignalMessage,
        trust: Trust,
        rng: &mut impl CryptoRng,
    ) -> Result<Decrypted, DecryptError> {
        if self.current.is_none() && self.archived.is_empty() {
            return Err(DecryptError::NoSession);
        }
        let mut worst = TrialError::Invalid;
        let places = (0..self.archived.len()).map(Place::Archived);
        for place in core::iter::once(Place::Current).chain(places) {
            match self.try_place(place, local, remote, message, rng, |_| true) {
                Ok(opened) => {
                    trust.check(&opened.identity)?;
                    return Ok(self.commit_opened(place, opened));
                }
                Err(error @ TrialError::Duplicate { .. }) => return Err(error.into()),
                Err(error @ TrialError::TooFarAhead { .. }) => worst = error,
                Err(TrialError::Invalid) => {}
            }
        }
        Err(worst.into())
    }

    /// Tries a message on the session at a place, if the session passes a check. An archived session
    /// is read for this; one that cannot be read, or has another version, does not take the message.
    pub(super) fn try_place(
        &self,
        place: Place,
        local: &LocalParty,
        remote: &Address,
        message: &SignalMessage,
        rng: &mut impl CryptoRng,
        check: impl FnOnce(&Session) -> bool,
    ) -> Result<Opened, TrialError> {
        match place {
            Place::Current => {
                let session = self.current.as_ref().filter(|session| check(session));
                session.ok_or(TrialError::Invalid)?.open(local, remote, message, rng)
            }
            Place::Archived(index) => {
                let archived = self.archived.get(index).ok_or(TrialError::Invalid)?;
                if codec::version_of(&archived.0) != Some(message.version()) {
                    return Err(TrialError::Invalid);
                }
                let session = codec::decode_session(&archived.0).filter(|session| check(session));
                let session = session.ok_or(TrialError::Invalid)?;
                let opened = session.open(local, remote, message, rng)?;
                Ok(Opened { session: Some(session), ..opened })
            }
        }
    }

    /// Commits what [`Self::try_place`] found at the same place, and makes that session the current one.
    pub(super) fn commit_opened(&mut self, place: Place, opened: Opened) -> Decrypted {
        if let (Place::Archived(index), Some(session)) = (place, opened.session) {
            self.archived.remove(index);
            self.promote(session);
        }
        if let Some(session) = &mut self.current {
            session.ratchet.commit_receive(opened.plan);
            session.pending = None;
        }
        Decrypted { plaintext: opened.plaintext, identity: opened.identity, consumed: None }
    }
}
