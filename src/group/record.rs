//! W§12, the receiving side: what is known of one sender in one distribution, and what it decrypts.
//! The stored form is in `codec.rs`.

use super::chain::{GroupMessageKeys, ReceivingChain};
use super::message::{SenderKeyDistributionMessage, SenderKeyMessage};
use crate::crypto::{InvalidSignature, VerificationKey};
use crate::keys::ChainKey;
use crate::ratchet::double::Chain;
use crate::ratchet::skipped::SkippedSeeds;
use crate::ratchet::{JumpLimit, RatchetError};
use alloc::{boxed::Box, vec::Vec};

/// Chains kept per sender and distribution; the oldest goes first. The peers keep as many.
pub(crate) const MAX_STATES: usize = 5;

/// One chain of a sender.
///
/// All are of message version 3, the only one that a message can have (G2).
pub(crate) struct State {
    pub(crate) chain_id: u32,
    pub(crate) receiving: ReceivingChain,
    pub(crate) signing: VerificationKey,
}

#[allow(clippy::vec_box, reason = "no chain key stays behind where a state was moved from")]
pub(crate) type States = Vec<Box<State>>;

/// The chains of one sender in one distribution, five at most: keep a record for each pair of an
/// [`Address`](crate::Address) and a distribution id.
///
/// Whose key it is was decided when the distribution message came through that sender's session:
/// group messages carry no identity, so there is no trust to ask for here. Forget the record when
/// that device's identity changes.
#[derive(Default)]
pub struct SenderKeyRecord {
    /// Newest first.
    pub(crate) states: States,
}

/// A group message could not be decrypted. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupDecryptError {
    /// G1: the sender's key of this chain never came, or was given up.
    #[error("chain {chain_id} of the sender is not known: ask for its distribution message")]
    UnknownChain {
        /// The chain that the message names.
        chain_id: u32,
    },
    /// G3: not written by the holder of the chain's signing key, or changed on its way. Drop it.
    #[error(transparent)]
    Signature(#[from] InvalidSignature),
    /// G4: it was read before, or its key was given up. Drop it.
    #[error("message {iteration} of its chain was decrypted before, or its key is gone")]
    Duplicate {
        /// Its place in the chain.
        iteration: u32,
    },
    /// G5: it skips more messages than the limit allows.
    #[error("the message is {ahead} ahead of its chain, at most {limit} are allowed")]
    TooFarAhead {
        /// How many messages it skips.
        ahead: u32,
        /// How many it may.
        limit: u32,
    },
    /// G6: signed by the sender, and not a ciphertext of this place in the chain.
    #[error("the signed message does not decrypt: ask the sender for its distribution message")]
    Invalid,
    /// G7: the chain has reached its last iteration.
    #[error("the sender's chain is used up: ask for a new distribution message")]
    Exhausted,
}

impl From<RatchetError> for GroupDecryptError {
    fn from(error: RatchetError) -> Self {
        match error {
            RatchetError::Duplicate { counter } => Self::Duplicate { iteration: counter },
            RatchetError::TooFarAhead { ahead } => {
                Self::TooFarAhead { ahead, limit: JumpLimit::Peer.messages() }
            }
            RatchetError::Exhausted => Self::Exhausted,
            RatchetError::Key(_) => Self::Invalid,
        }
    }
}

impl SenderKeyRecord {
    /// A record without any chain.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a sender's key, which came through its session. A chain that is known already stays
    /// where it is; one under the same id with another signing key is given up (W§12). Save the
    /// record.
    pub fn process(&mut self, message: &SenderKeyDistributionMessage) {
        let (chain_id, signing_key) = (message.chain_id(), message.signing_key());
        let known = self
            .states
            .iter()
            .position(|state| state.chain_id == chain_id && state.signing.key() == signing_key);
        if let Some(at) = known {
            if let Some(head) = self.states.get_mut(..=at) {
                head.rotate_right(1);
            }
            return;
        }
        self.states.retain(|state| state.chain_id != chain_id);
        self.states.truncate(MAX_STATES - 1);
        let chain =
            Chain { key: ChainKey::new(message.chain_key().clone()), index: message.iteration() };
        let state = State {
            chain_id,
            receiving: ReceivingChain { chain, skipped: SkippedSeeds::default() },
            signing: VerificationKey::new(*signing_key),
        };
        self.states.insert(0, Box::new(state));
    }

    /// Decrypts a message of this sender: the signature first, then the chain, then the body. Save
    /// the record with the plaintext, which can be had once only.
    ///
    /// # Errors
    /// [`GroupDecryptError`] by rows G1 to G7; the record is as it was.
    pub fn decrypt(&mut self, message: &SenderKeyMessage) -> Result<Vec<u8>, GroupDecryptError> {
        let chain_id = message.chain_id();
        let state = self
            .states
            .iter_mut()
            .find(|state| state.chain_id == chain_id)
            .ok_or(GroupDecryptError::UnknownChain { chain_id })?;
        message.verify(&mut state.signing)?;
        let (seed, plan) = state.receiving.plan(message.iteration())?;
        let plaintext = GroupMessageKeys::derive(&seed)
            .open(message.ciphertext())
            .ok_or(GroupDecryptError::Invalid)?;
        state.receiving.commit(plan);
        Ok(plaintext)
    }

    /// The ids of the chains that are known, the newest first.
    pub fn chain_ids(&self) -> impl Iterator<Item = u32> {
        self.states.iter().map(|state| state.chain_id)
    }
}

impl core::fmt::Debug for SenderKeyRecord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SenderKeyRecord").field("states", &self.states.len()).finish()
    }
}
