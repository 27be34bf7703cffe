//! S§5. The braid: the machine in which the two parties, taking turns as key side and ciphertext
//! side, agree on one secret per epoch. What the secret does to the keys is `chain.rs`'s concern.
//!
//! ```text
//! key side          KeysUnsampled ─ send ─► KeysSampled ─ ct1 ─► HeaderSent ─ ct1 whole ─►
//!   (K0 … K4)       Ct1Received ─ ct2 ─► EkSentCt1Received ─ ct2 whole ─► other side, epoch + 1
//! ciphertext side   NoHeaderReceived ─ header whole ─► HeaderReceived ─ send ─► Ct1Sampled
//!   (C0 … C5)       Ct1Sampled ─ ek whole ─► EkReceivedCt1Sampled ─ ack ─────────────► Ct2Sampled
//!                   Ct1Sampled ─ ack ──────► Ct1Acknowledged ─ ek whole ─────────────► Ct2Sampled
//!                   Ct1Sampled ─ ek whole and ack ───────────────────────────────────► Ct2Sampled
//!                   Ct2Sampled ─ any message of epoch + 1 ─► other side, epoch + 1
//! ```

pub(super) mod ciphertext_side;
pub(super) mod key_side;

use super::SpqrError;
use super::authenticator::{Authenticator, EpochSecret};
use super::chain::Direction;
use super::erasure::Chunk;
use super::message::Payload;
use alloc::boxed::Box;
use ciphertext_side::CiphertextSide;
use key_side::KeySide;
use rand_core::CryptoRng;

/// The state of one party.
#[derive(Clone)]
pub(crate) struct Braid {
    pub(super) epoch: u64,
    pub(super) authenticator: Authenticator,
    pub(super) phase: Phase,
}

/// Whose turn it is to make the key pair, and how far this epoch is.
#[derive(Clone)]
pub(super) enum Phase {
    Key(KeySide),
    Ciphertext(CiphertextSide),
}

/// What committing a message will change in a braid.
pub(crate) enum BraidChange {
    None,
    /// The running encoder moves on.
    ChunkSent,
    /// The running decoder keeps a chunk.
    ChunkHeld(Chunk),
    /// All of it is new.
    Enter(Box<Braid>),
}

/// Change and, where an epoch's secret became known, that secret.
pub(super) type Outcome = (BraidChange, Option<EpochSecret>);

impl Braid {
    /// Epoch 1: the initiator makes the key pair.
    pub(super) fn new(auth_key: &[u8], direction: Direction) -> Self {
        let phase = match direction {
            Direction::A2B => Phase::Key(KeySide::KeysUnsampled),
            Direction::B2A => Phase::Ciphertext(CiphertextSide::waiting()),
        };
        Self { epoch: 1, authenticator: Authenticator::new(auth_key), phase }
    }

    /// What the next message carries (S§5.3). Draws 64 bytes in `KeysUnsampled`, 32 in
    /// `HeaderReceived`, otherwise none.
    pub(super) fn send(&self, rng: &mut impl CryptoRng) -> (Payload, Outcome) {
        match &self.phase {
            Phase::Key(side) => side.send(self, rng),
            Phase::Ciphertext(side) => side.send(self, rng),
        }
    }

    /// Takes what a message carries (S§5.4).
    pub(super) fn recv(&self, epoch: u64, payload: &Payload) -> Result<Outcome, SpqrError> {
        if epoch < self.epoch {
            return Ok((BraidChange::None, None));
        }
        if epoch > self.epoch {
            return self.recv_later(epoch);
        }
        match &self.phase {
            Phase::Key(side) => side.recv(self, payload),
            Phase::Ciphertext(side) => side.recv(self, payload),
        }
    }

    /// A message of the next epoch tells the ciphertext side that the key side has the secret.
    fn recv_later(&self, epoch: u64) -> Result<Outcome, SpqrError> {
        let is_next = self.epoch.checked_add(1) == Some(epoch);
        match &self.phase {
            Phase::Ciphertext(CiphertextSide::Ct2Sampled { .. }) if is_next => {
                let phase = Phase::Key(KeySide::KeysUnsampled);
                let authenticator = self.authenticator.clone();
                Ok((BraidChange::enter(Self { epoch, authenticator, phase }), None))
            }
            _ => Err(SpqrError::EpochOutOfRange),
        }
    }

    /// This braid in another phase of the same epoch.
    fn in_phase(&self, phase: Phase) -> Self {
        Self { epoch: self.epoch, authenticator: self.authenticator.clone(), phase }
    }

    pub(super) fn commit(&mut self, change: BraidChange) {
        match (change, &mut self.phase) {
            (BraidChange::None, _) => {}
            // Swapped: the old state is wiped in the box, which moving the new one out of it would not do.
            (BraidChange::Enter(mut braid), _) => core::mem::swap(self, &mut *braid),
            (BraidChange::ChunkSent, Phase::Key(side)) => side.advance_encoder(),
            (BraidChange::ChunkSent, Phase::Ciphertext(side)) => side.advance_encoder(),
            (BraidChange::ChunkHeld(chunk), Phase::Key(side)) => side.hold(chunk),
            (BraidChange::ChunkHeld(chunk), Phase::Ciphertext(side)) => side.hold(chunk),
        }
    }

    /// The short name of S§5.2.
    pub(super) fn phase_name(&self) -> &'static str {
        match &self.phase {
            Phase::Key(side) => side.name(),
            Phase::Ciphertext(side) => side.name(),
        }
    }
}

impl BraidChange {
    fn enter(braid: Braid) -> Self {
        Self::Enter(Box::new(braid))
    }
}
