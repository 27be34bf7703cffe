//! W§12: the keys of one group message, and the receiving end of one chain. How a chain steps, and
//! how many skipped seeds are kept, is as in a session (W§8.2, 8.7): that is in `ratchet/`.

use crate::crypto::cipher::{cbc_append, cbc_open};
use crate::crypto::kdf::hkdf;
use crate::crypto::secret::Secret;
use crate::keys::MessageSeed;
use crate::ratchet::double::{Chain, Moved};
use crate::ratchet::skipped::SkippedSeeds;
use crate::ratchet::{JumpLimit, RatchetError};
use alloc::vec::Vec;

/// IV and cipher key of exactly one message. Nothing in the ciphertext is authentic but by the
/// signature around it.
pub(super) struct GroupMessageKeys {
    iv: Secret<16>,
    cipher: Secret<32>,
}

impl GroupMessageKeys {
    pub(super) fn derive(seed: &MessageSeed) -> Self {
        let (iv, cipher) = hkdf::<48>(None, seed.as_bytes(), b"WhisperGroup").split();
        Self { iv, cipher }
    }

    /// Appends the encrypted body: one key, one message.
    pub(super) fn seal(self, out: &mut Vec<u8>, plaintext: &[u8]) {
        cbc_append(out, &self.cipher, &self.iv, plaintext);
    }

    /// The plaintext, or `None` when length or padding is wrong.
    pub(super) fn open(self, body: &[u8]) -> Option<Vec<u8>> {
        cbc_open(&self.cipher, &self.iv, body)
    }
}

/// A chain that a peer sends with, and the seeds of its messages that have not come.
pub(crate) struct ReceivingChain {
    pub(crate) chain: Chain,
    pub(crate) skipped: SkippedSeeds,
}

/// What receiving one message will change.
pub(super) enum ReceivePlan {
    /// The message was skipped earlier: its seed goes.
    Skipped { position: usize },
    /// The chain moves on.
    Advance(Moved),
}

impl ReceivingChain {
    /// Finds the seed of a message and what taking it will change.
    pub(super) fn plan(&self, iteration: u32) -> Result<(MessageSeed, ReceivePlan), RatchetError> {
        if iteration >= self.chain.index {
            let (seed, moved) = self.chain.advance_to(iteration, JumpLimit::Peer)?;
            return Ok((seed, ReceivePlan::Advance(moved)));
        }
        let position = self.skipped.position(iteration);
        let seed = position.and_then(|position| self.skipped.seed_at(position));
        match (position, seed) {
            (Some(position), Some(seed)) => Ok((seed.clone(), ReceivePlan::Skipped { position })),
            _ => Err(RatchetError::Duplicate { counter: iteration }),
        }
    }

    /// Carries a plan out. Called once the message was decrypted; cannot fail.
    pub(super) fn commit(&mut self, plan: ReceivePlan) {
        match plan {
            ReceivePlan::Skipped { position } => self.skipped.remove(position),
            ReceivePlan::Advance(moved) => {
                self.chain = moved.chain;
                self.skipped.append(moved.skipped);
            }
        }
    }
}
