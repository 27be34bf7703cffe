//! Sender keys, as libsignal stores them (W§17): one kind of record for our own key and for a peer's.

use super::session::secret;
use super::{ImportError, pair};
use crate::crypto::{PublicKey, SigningKey, VerificationKey};
use crate::group::{MAX_STATES, ReceivingChain, SenderKey, SenderKeyRecord, State};
use crate::keys::{ChainKey, MessageSeed};
use crate::ratchet::double::Chain;
use crate::ratchet::skipped::{MAX_SKIPPED, SkippedSeed, SkippedSeeds};
use crate::wire::storage;
use alloc::boxed::Box;
use prost::Message;

/// The only version of a group message (W§10.1), and 0 in what stored none: it means the same (W§12).
const VERSIONS: [u32; 2] = [0, 3];

impl SenderKeyRecord {
    /// Takes over a peer's sender keys in one distribution: the five newest chains, with the seeds of
    /// skipped messages.
    ///
    /// # Errors
    /// [`ImportError::Damaged`].
    pub fn import_libsignal(record: &[u8]) -> Result<Self, ImportError> {
        let stored = storage::SenderKeyRecord::decode(record).map_err(|_| ImportError::Damaged)?;
        let mut record = Self::new();
        for stored in stored.states.iter().take(MAX_STATES) {
            let state = read_state(stored).ok_or(ImportError::Damaged)?;
            if record.states.iter().any(|it| it.chain_id == state.chain_id) {
                return Err(ImportError::Damaged);
            }
            record.states.push(Box::new(state));
        }
        Ok(record)
    }
}

impl SenderKey {
    /// Takes over our own sender key of one distribution, named by a UUID of 16 bytes.
    ///
    /// From then on only the new key may be used: two that encrypt on would use message keys twice.
    ///
    /// # Errors
    /// [`ImportError::Damaged`], also when the record is a peer's.
    pub fn import_libsignal(record: &[u8], distribution_id: [u8; 16]) -> Result<Self, ImportError> {
        let stored = storage::SenderKeyRecord::decode(record).map_err(|_| ImportError::Damaged)?;
        let newest = stored.states.first();
        newest.and_then(|it| read_own(it, distribution_id)).ok_or(ImportError::Damaged)
    }
}

fn read_own(stored: &storage::SenderKeyState, distribution_id: [u8; 16]) -> Option<SenderKey> {
    let keys = stored.signing_key.as_ref()?;
    let signing = pair(&keys.private, &keys.public)?;
    Some(SenderKey {
        distribution_id,
        chain_id: stored.chain_id,
        chain: read_chain(stored)?,
        signing_public: *signing.public(),
        signing: SigningKey::new(signing.private().clone()),
    })
}

fn read_state(stored: &storage::SenderKeyState) -> Option<State> {
    let chain = read_chain(stored)?;
    let excess = stored.message_keys.len().saturating_sub(MAX_SKIPPED);
    let mut skipped = SkippedSeeds::with_capacity(stored.message_keys.len());
    let mut next = 0;
    for key in stored.message_keys.get(excess..)? {
        // Oldest first, and all before the chain.
        if key.iteration < next || key.iteration >= chain.index {
            return None;
        }
        next = key.iteration + 1;
        let seed = MessageSeed::new(secret(&key.seed)?);
        skipped.push(SkippedSeed { counter: key.iteration, seed });
    }
    let public = PublicKey::decode(&stored.signing_key.as_ref()?.public).ok()?;
    Some(State {
        chain_id: stored.chain_id,
        receiving: ReceivingChain { chain, skipped },
        signing: VerificationKey::new(public),
    })
}

fn read_chain(stored: &storage::SenderKeyState) -> Option<Chain> {
    if !VERSIONS.contains(&stored.message_version) {
        return None;
    }
    let key = stored.chain_key.as_ref()?;
    Some(Chain { key: ChainKey::new(secret(&key.seed)?), index: key.iteration })
}
