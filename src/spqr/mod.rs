//! S§3. SPQR, the sparse post-quantum ratchet: negotiation, and one message in or out.
//! Mixing its keys with the double ratchet's, and the MAC, are `ratchet/`'s concern.
//!
//! ```text
//! mod.rs ─► message.rs   the bytes                               S§4
//!        ─► braid/       agrees on one secret per epoch          S§5 ─► mlkem.rs S§7, erasure.rs S§8, gf.rs
//!        ─► chain.rs     a key for every message                 S§9 ─► skipped.rs
//! state/    our stored form        import.rs  that of others     S§10
//! ```
//!
//! An operation plans: it borrows the state and gives, besides its result, a [`Change`]. The state is
//! as it was until [`Spqr::commit`] takes the change, after the MAC around the message was verified.

mod authenticator;
mod braid;
mod chain;
mod erasure;
mod error;
#[cfg(all(feature = "std", any(test, fuzzing)))]
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests, like those in tests/"
)]
pub mod fuzzing;
mod gf;
mod import;
mod message;
mod mlkem;
mod skipped;
mod state;

#[cfg(test)]
mod model;
#[cfg(test)]
mod vectors;

pub(crate) use chain::{ChainLimits, Direction};
pub(crate) use error::SpqrError;

use crate::crypto::secret::SecretBytes;
use crate::keys::{PqMessageKey, PqrKey};
use alloc::{boxed::Box, vec::Vec};
use authenticator::EpochSecret;
use braid::{Braid, BraidChange};
use chain::{Chain, ChainChange, NewEpoch, Planned};
use message::{Message, Payload};
use rand_core::CryptoRng;

/// The oldest version that may be agreed on with the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MinVersion {
    /// A peer without SPQR is taken: the ratchet is then switched off for good.
    V0,
    /// SPQR or nothing.
    V1,
}

/// State of the ratchet of one session. `Clone` copies secrets: it is for archives, not for messages.
#[derive(Clone)]
pub(crate) enum Spqr {
    /// Version 0: sends nothing, gives no key.
    Off,
    /// Version 1.
    On(Box<V1>),
}

/// State of version 1.
#[derive(Clone)]
pub(crate) struct V1 {
    braid: Braid,
    /// There from the first key on.
    chain: Option<Chain>,
    /// There until the first message of the peer.
    negotiation: Option<Negotiation>,
}

/// What the first message of the peer will be judged by.
#[derive(Clone)]
struct Negotiation {
    auth_key: SecretBytes,
    direction: Direction,
    min_version: MinVersion,
    limits: ChainLimits,
}

/// A message to send.
pub(crate) struct SendStep {
    /// Field 5; empty means absent. At most 52 bytes.
    pub(crate) message: Vec<u8>,
    /// Salt of the message's keys.
    pub(crate) key: Option<PqMessageKey>,
    /// To be committed before the message leaves.
    pub(crate) change: Change,
}

/// A message received.
pub(crate) struct RecvStep {
    /// Salt of the message's keys.
    pub(crate) key: Option<PqMessageKey>,
    /// To be committed once the MAC around the message is verified.
    pub(crate) change: Change,
}

/// What committing changes, and nothing else: most messages move one chain key and one chunk.
pub(crate) enum Change {
    /// Nothing.
    None,
    /// The peer has no SPQR.
    SwitchOff,
    /// One message of version 1.
    Step(Step),
}

/// The change of one message of version 1.
pub(crate) struct Step {
    braid: BraidChange,
    new_chain: Option<Box<Chain>>,
    new_epoch: Option<Box<NewEpoch>>,
    chain: ChainChange,
    negotiation: Outlook,
}

/// Whether the negotiation goes on after a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlook {
    Unchanged,
    Over,
}

impl Spqr {
    /// `init` with version 1 (S§3.1). Draws nothing.
    pub(crate) fn new(
        direction: Direction,
        min_version: MinVersion,
        auth_key: &PqrKey,
        limits: ChainLimits,
    ) -> Self {
        Self::seeded(direction, min_version, auth_key.as_bytes(), limits)
    }

    fn seeded(
        direction: Direction,
        min_version: MinVersion,
        auth_key: &[u8],
        limits: ChainLimits,
    ) -> Self {
        let braid = Braid::new(auth_key, direction);
        let auth_key = SecretBytes::from_vec(auth_key.to_vec());
        let negotiation = Some(Negotiation { auth_key, direction, min_version, limits });
        Self::On(Box::new(V1 { braid, chain: None, negotiation }))
    }

    /// Whether this is version 0: not in use.
    pub(crate) fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// The epoch that is being agreed on, from 1; `None` when it is not in use.
    pub(crate) fn epoch(&self) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::On(v1) => Some(v1.braid.epoch),
        }
    }

    /// Whether nothing was received yet, so that the version is open.
    pub(crate) fn is_negotiating(&self) -> bool {
        matches!(self, Self::On(v1) if v1.negotiation.is_some())
    }

    /// Whether it may yet be switched off, so that messages go without a key (S§3.2 step 4).
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::On(v1) if v1.is_open())
    }

    /// `send` (S§3.2): the next message and its key. Draws 64 or 32 bytes in two of eleven phases,
    /// otherwise none.
    ///
    /// # Errors
    /// Only with a broken stored state, or after 2^32 messages in one epoch: begin a new session.
    pub(crate) fn send(&self, rng: &mut impl CryptoRng) -> Result<SendStep, SpqrError> {
        match self {
            Self::Off => Ok(SendStep { message: Vec::new(), key: None, change: Change::None }),
            Self::On(v1) => v1.send(rng),
        }
    }

    /// `recv` (S§3.3) after the rules that today's clients put before it (W§9): a message that is not
    /// empty has a header, even where SPQR is off; a version above 1 is skipped only while the
    /// version is open or SPQR is off.
    ///
    /// # Errors
    /// [`SpqrError`]: drop the message; the state stays as it is.
    pub(crate) fn recv(&self, message: &[u8]) -> Result<RecvStep, SpqrError> {
        if !message.is_empty() && !message::has_header(message) {
            return Err(SpqrError::MessageDecode);
        }
        if version(message) > 1 && !self.is_off() && !self.is_negotiating() {
            return Err(SpqrError::VersionMismatch);
        }
        self.recv_lenient(message)
    }

    /// `recv` to the letter of S§3.3.
    fn recv_lenient(&self, message: &[u8]) -> Result<RecvStep, SpqrError> {
        match (version(message), self) {
            (2.., _) | (_, Self::Off) => Ok(RecvStep { key: None, change: Change::None }),
            (1, Self::On(v1)) => v1.recv(message),
            (0, Self::On(v1)) => {
                v1.judge_version_0()?;
                Ok(RecvStep { key: None, change: Change::SwitchOff })
            }
        }
    }

    /// Makes a planned change. It belongs to the state that it was planned on.
    pub(crate) fn commit(&mut self, change: Change) {
        match (change, &mut *self) {
            (Change::SwitchOff, _) => *self = Self::Off,
            (Change::Step(step), Self::On(v1)) => v1.commit(step),
            (Change::None, _) | (Change::Step(_), Self::Off) => {}
        }
    }
}

impl V1 {
    fn send(&self, rng: &mut impl CryptoRng) -> Result<SendStep, SpqrError> {
        let (payload, (braid, secret)) = self.braid.send(rng);
        let epoch = self.braid.epoch;
        let Some(planned) = self.chain_to_send()? else {
            return Ok(keyless(epoch, payload, braid));
        };
        let new_epoch = add_epoch(planned.chain(), secret)?;
        let key_epoch = epoch.checked_sub(1).ok_or(SpqrError::StateDecode)?;
        let (index, key, chain) = planned.chain().plan_send(key_epoch)?;
        Ok(SendStep {
            message: Message { epoch, index, payload }.encode(),
            key: Some(key),
            change: Change::Step(Step {
                braid,
                new_chain: planned.into_new(),
                new_epoch,
                chain,
                negotiation: Outlook::Unchanged,
            }),
        })
    }

    fn recv(&self, message: &[u8]) -> Result<RecvStep, SpqrError> {
        let Message { epoch, index, payload } = Message::decode(message)?;
        let (braid, secret) = self.braid.recv(epoch, &payload)?;
        let planned = self.chain_to_recv()?;
        let new_epoch = add_epoch(planned.chain(), secret)?;
        let (key, chain) = match (epoch - 1, index) {
            // What a peer sends that would take version 0 and has not heard from us yet.
            (0, 0) => (None, ChainChange::None),
            (key_epoch, index) => {
                let (key, chain) = planned.chain().plan_recv(key_epoch, index)?;
                (Some(key), chain)
            }
        };
        let new_chain = planned.into_new();
        let negotiation = Outlook::Over;
        let step = Step { braid, new_chain, new_epoch, chain, negotiation };
        Ok(RecvStep { key, change: Change::Step(step) })
    }

    /// No chain before the first message of a peer that may turn out to have no SPQR: it could not
    /// read a message with a key mixed in.
    fn chain_to_send(&self) -> Result<Option<Planned<'_>>, SpqrError> {
        if self.is_open() { Ok(None) } else { self.chain_to_recv().map(Some) }
    }

    fn is_open(&self) -> bool {
        let open = |it: &Negotiation| it.min_version == MinVersion::V0;
        self.chain.is_none() && self.negotiation.as_ref().is_some_and(open)
    }

    fn chain_to_recv(&self) -> Result<Planned<'_>, SpqrError> {
        match (&self.chain, &self.negotiation) {
            (Some(chain), _) => Ok(Planned::There(chain)),
            (None, Some(open)) => {
                let chain = Chain::start(&open.auth_key, open.direction, open.limits);
                Ok(Planned::New(Box::new(chain)))
            }
            (None, None) => Err(SpqrError::ChainNotAvailable),
        }
    }

    fn judge_version_0(&self) -> Result<(), SpqrError> {
        match &self.negotiation {
            None => Err(SpqrError::VersionMismatch),
            Some(Negotiation { min_version: MinVersion::V1, .. }) => Err(SpqrError::MinimumVersion),
            Some(Negotiation { min_version: MinVersion::V0, .. }) => Ok(()),
        }
    }

    fn commit(&mut self, step: Step) {
        self.braid.commit(step.braid);
        if let Some(chain) = step.new_chain {
            // Copied: what is moved out of a box is not wiped with it.
            self.chain = Some(Chain::clone(&chain));
        }
        if let Some(chain) = &mut self.chain {
            if let Some(new) = step.new_epoch {
                chain.append(&new);
            }
            chain.commit(step.chain);
        }
        if step.negotiation == Outlook::Over {
            self.negotiation = None;
        }
    }
}

/// Index 0 says that there is no key.
fn keyless(epoch: u64, payload: Payload, braid: BraidChange) -> SendStep {
    SendStep {
        message: Message { epoch, index: 0, payload }.encode(),
        key: None,
        change: Change::Step(Step {
            braid,
            new_chain: None,
            new_epoch: None,
            chain: ChainChange::None,
            negotiation: Outlook::Unchanged,
        }),
    }
}

/// The epoch is there before the key of the message is taken (S§13.11). The key itself is of an
/// older epoch, so it is looked up in the links that are already there.
fn add_epoch(
    chain: &Chain,
    secret: Option<EpochSecret>,
) -> Result<Option<Box<NewEpoch>>, SpqrError> {
    secret.map(|secret| chain.plan_epoch(&secret).map(Box::new)).transpose()
}

/// An empty message is of version 0.
fn version(message: &[u8]) -> u8 {
    message.first().copied().unwrap_or(0)
}

impl core::fmt::Debug for Spqr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Off => f.write_str("Spqr(V0)"),
            Self::On(v1) => write!(f, "Spqr({} {})", v1.braid.phase_name(), v1.braid.epoch),
        }
    }
}
