//! Session records, as libsignal stores them (W§17).

use super::{ImportError, pair};
use crate::crypto::secret::Secret;
use crate::crypto::{KemCiphertext, PublicKey};
use crate::identity::{IdentityKey, Trust};
use crate::keys::{ChainKey, MessageSeed, RootKey};
use crate::message::SessionVersion;
use crate::prekey::{KemPreKeyId, PreKeyId, SignedPreKeyId};
use crate::ratchet::TripleRatchet;
use crate::ratchet::double::{
    Chain, DoubleRatchet, MAX_RECEIVER_CHAINS, ReceiverChain, SenderChain,
};
use crate::ratchet::ready::{ReadyKey, ReadyKeys};
use crate::ratchet::skipped::{MAX_SKIPPED, SkippedSeed, SkippedSeeds};
use crate::session::{Archived, MAX_ARCHIVED, Pending, Session, SessionRecord, encode_session};
use crate::spqr::Spqr;
use crate::wire::storage;
use alloc::boxed::Box;
use alloc::vec::Vec;
use prost::Message;

/// Sessions that were taken over.
#[derive(Clone, Debug)]
pub struct ImportedSessions {
    /// All sound sessions of the record; save it.
    pub record: SessionRecord,
    /// The peer's identity in the newest session, to be stored as the trusted one; `None` for a record
    /// without sessions.
    pub remote_identity: Option<IdentityKey>,
    /// How many were left out because they cannot be used. If the current one was among them, the next
    /// message needs a new session.
    pub damaged: usize,
}

impl SessionRecord {
    /// Takes over a session record as libsignal stores it: the current session and the newest 40
    /// archived ones, with the seeds or keys of skipped messages and the state of the post-quantum
    /// ratchet. `local` is our identity, `trust` what is known of the peer's.
    ///
    /// From then on only the new record may be used: each message encrypted by the old one, too, would use
    /// its keys twice.
    ///
    /// # Errors
    /// [`ImportError::Damaged`] when it is no record, or has sessions and none of them can be used;
    /// [`ImportError::ForeignRecord`] and [`ImportError::UntrustedIdentity`] by the newest session.
    pub fn import_libsignal(
        record: &[u8],
        local: &IdentityKey,
        trust: Trust,
    ) -> Result<ImportedSessions, ImportError> {
        let stored = storage::SessionRecord::decode(record).map_err(|_| ImportError::Damaged)?;
        if stored.current.is_none() && stored.archived.is_empty() && !record.is_empty() {
            // Fields of something else can be skipped as unknown ones; a record without sessions is empty.
            return Err(ImportError::Damaged);
        }
        let mut imported =
            ImportedSessions { record: SessionRecord::new(), remote_identity: None, damaged: 0 };
        let mut newest = None;
        let mut read = |stored: &storage::Session| {
            let session = read_session(stored);
            if let Some(session) = &session {
                newest.get_or_insert((session.local_identity, session.remote_identity));
            }
            session
        };
        let sessions = &mut imported.record;
        if let Some(current) = &stored.current {
            sessions.current = read(current).map(Box::new);
            imported.damaged += usize::from(sessions.current.is_none());
        }
        for bytes in &stored.archived {
            if sessions.archived.len() == MAX_ARCHIVED {
                break;
            }
            let session = storage::Session::decode(&bytes[..]).ok();
            match session.as_ref().and_then(&mut read) {
                Some(session) => {
                    let session = Session { pending: None, ..session };
                    sessions.archived.push_back(Archived(encode_session(&session)));
                }
                None => imported.damaged += 1,
            }
        }
        match newest {
            Some((ours, _)) if ours != *local => Err(ImportError::ForeignRecord),
            Some((_, theirs)) => {
                trust.check(&theirs)?;
                Ok(ImportedSessions { remote_identity: Some(theirs), ..imported })
            }
            None if imported.damaged > 0 => Err(ImportError::Damaged),
            None => Ok(imported),
        }
    }
}

/// `None` for a session that could not be used in every respect: nobody honest has stored one.
fn read_session(stored: &storage::Session) -> Option<Session> {
    let version = match stored.version {
        3 => SessionVersion::V3,
        4 => SessionVersion::V4,
        _ => return None,
    };
    let base_key = PublicKey::decode(&stored.base_key).ok()?;
    let pq = Spqr::import(&stored.pq_ratchet).ok()?;
    Some(Session {
        version,
        local_identity: IdentityKey::decode(&stored.local_identity).ok()?,
        remote_identity: IdentityKey::decode(&stored.remote_identity).ok()?,
        local_registration_id: stored.local_registration_id,
        remote_registration_id: stored.remote_registration_id,
        base_key,
        pending: read_pending(stored, version, &base_key)?,
        ratchet: TripleRatchet { double: read_double(stored)?, pq },
    })
}

/// Either there is none, or it is whole and of this session.
fn read_pending(
    stored: &storage::Session,
    version: SessionVersion,
    base_key: &PublicKey,
) -> Option<Option<Pending>> {
    let Some(pending) = &stored.pending_pre_key else { return Some(None) };
    if PublicKey::decode(&pending.base_key).ok()? != *base_key {
        return None;
    }
    let kem = match (&stored.pending_kem_pre_key, version) {
        (Some(kem), SessionVersion::V4) => {
            KemCiphertext::decode(&kem.ciphertext).ok()?;
            Some((KemPreKeyId(kem.pre_key_id), kem.ciphertext.clone()))
        }
        (None, SessionVersion::V3) => None,
        _ => return None,
    };
    Some(Some(Pending {
        one_time: pending.pre_key_id.map(PreKeyId),
        // Stored with a sign, an unsigned number all the same.
        signed: SignedPreKeyId(pending.signed_pre_key_id.cast_unsigned()),
        kem,
        created_secs: pending.created_secs,
    }))
}

fn read_double(stored: &storage::Session) -> Option<DoubleRatchet> {
    let sender = stored.sender.as_ref()?;
    let ratchet = pair(&sender.ratchet_private, &sender.ratchet_key)?;
    let oldest = stored.receivers.len().saturating_sub(MAX_RECEIVER_CHAINS);
    let (mut receivers, mut ready) = (Vec::new(), Vec::new());
    for chain in stored.receivers.get(oldest..)? {
        receivers.push(read_receiver(chain, &mut ready)?);
    }
    Some(DoubleRatchet {
        root: RootKey::new(secret(&stored.root_key)?),
        previous_counter: stored.previous_counter,
        sender: SenderChain { ratchet, chain: read_chain(sender)? },
        receivers,
        ready: ReadyKeys::new(ready),
    })
}

fn read_chain(stored: &storage::Chain) -> Option<Chain> {
    let key = stored.key.as_ref()?;
    Some(Chain { key: ChainKey::new(secret(&key.key)?), index: key.index })
}

/// The newest 2,000 of the skipped messages; seeds go into the chain, keys that are ready to the others.
fn read_receiver(stored: &storage::Chain, ready: &mut Vec<ReadyKey>) -> Option<ReceiverChain> {
    let ratchet_key = PublicKey::decode(&stored.ratchet_key).ok()?;
    let chain = read_chain(stored)?;
    let mut seeds = Vec::new();
    for key in stored.message_keys.iter().take(MAX_SKIPPED) {
        let counter = key.index;
        if counter >= chain.index {
            return None;
        }
        if key.seed.is_empty() {
            ready.push(ReadyKey { ratchet_key, counter, keys: ready_keys(key)? });
        } else {
            seeds.push(SkippedSeed { counter, seed: MessageSeed::new(secret(&key.seed)?) });
        }
    }
    seeds.sort_by_key(|entry| entry.counter);
    let mut skipped = SkippedSeeds::with_capacity(seeds.len());
    let mut below = None;
    for entry in seeds {
        if below.replace(entry.counter) == Some(entry.counter) {
            return None;
        }
        skipped.push(entry);
    }
    Some(ReceiverChain { ratchet_key, chain, skipped })
}

fn ready_keys(stored: &storage::MessageKey) -> Option<Secret<80>> {
    let mut keys = Secret::zeroed();
    let (cipher, rest) = keys.as_mut_bytes().split_at_mut(32);
    let (mac, iv) = rest.split_at_mut(32);
    for (to, from) in [(cipher, &stored.cipher), (mac, &stored.mac), (iv, &stored.iv)] {
        if to.len() != from.len() {
            return None;
        }
        to.copy_from_slice(from);
    }
    Some(keys)
}

pub(super) fn secret<const N: usize>(bytes: &[u8]) -> Option<Secret<N>> {
    let mut secret = Secret::zeroed();
    if bytes.len() != N {
        return None;
    }
    secret.as_mut_bytes().copy_from_slice(bytes);
    Some(secret)
}
