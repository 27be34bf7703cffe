//! DR §3.3–3.5, W§7.3, 8.3, 8.7: chains and root. Yields message seeds; keys, MAC and AES belong to
//! `message/signal.rs`, the post-quantum half to `triple.rs`.

use super::ready::ReadyKeys;
use super::skipped::{MAX_SKIPPED, SkippedSeed, SkippedSeeds};
use crate::crypto::curve::{KeyError, KeyPair, PublicKey};
use crate::keys::{ChainKey, MessageSeed, RootKey};
use crate::spqr::ChainLimits;
use crate::stored::{Reader, Writer};
use alloc::vec::Vec;
use rand_core::CryptoRng;

/// Receiving chains kept per session; the oldest goes first. The peers keep as many.
pub(crate) const MAX_RECEIVER_CHAINS: usize = 5;

/// How far ahead of a chain a message may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum JumpLimit {
    /// As on the wire (W§8.7).
    Peer,
    /// One's own device may have been away for long (W§11.5). The peers have no limit for it. Ours is more than one device
    /// ever misses of another: the steps are taken before the MAC is checked, for whoever says to be that device.
    OwnDevice,
}

impl JumpLimit {
    /// How many messages may be skipped.
    pub(crate) const fn messages(self) -> u32 {
        match self {
            Self::Peer => 25_000,
            Self::OwnDevice => ChainLimits::LARGEST_JUMP,
        }
    }
}

/// A message does not fit the chains. The state is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RatchetError {
    /// Its key was used already, or given up.
    Duplicate { counter: u32 },
    /// It skips more messages than the limit allows.
    TooFarAhead { ahead: u32 },
    /// The ratchet key cannot be agreed with.
    Key(KeyError),
    /// The chain has reached its last counter (W§8.2).
    Exhausted,
}

/// A chain and the counter of its next message.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) key: ChainKey,
    pub(crate) index: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct SenderChain {
    pub(crate) ratchet: KeyPair,
    pub(crate) chain: Chain,
}

#[derive(Clone, Debug)]
pub(crate) struct ReceiverChain {
    pub(crate) ratchet_key: PublicKey,
    pub(crate) chain: Chain,
    pub(crate) skipped: SkippedSeeds,
}

/// The classic half of a session. `Clone` is for the archive alone; messages plan and commit.
#[derive(Clone, Debug)]
pub(crate) struct DoubleRatchet {
    pub(crate) root: RootKey,
    pub(crate) previous_counter: u32,
    pub(crate) sender: SenderChain,
    /// Oldest first.
    pub(crate) receivers: Vec<ReceiverChain>,
    /// Empty but in imported sessions.
    pub(crate) ready: ReadyKeys,
}

/// What receiving one message will change.
pub(crate) enum ReceivePlan {
    /// The message was skipped earlier: its seed goes.
    Skipped { receiver: usize, position: usize },
    /// The same, and its keys were stored ready-made.
    Ready { position: usize },
    /// The chain moves on.
    Advance { receiver: usize, moved: Moved },
    /// A new ratchet key: both chains and the root are new (W§8.3).
    Ratchet { root: RootKey, previous_counter: u32, sender: SenderChain, receiver: ReceiverChain },
}

/// A receiving chain moved past one message.
pub(crate) struct Moved {
    pub(crate) chain: Chain,
    pub(crate) skipped: SkippedSeeds,
}

impl DoubleRatchet {
    /// Alice's first state (W§7.3). Draws 32 bytes.
    pub(crate) fn initiator(
        root: &RootKey,
        chain: ChainKey,
        signed_prekey: &PublicKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, KeyError> {
        let ratchet = KeyPair::generate(rng);
        let (root, sending) = root.kdf_rk(&ratchet.private().agree(signed_prekey)?);
        Ok(Self {
            root,
            previous_counter: 0,
            sender: SenderChain { ratchet, chain: Chain { key: sending, index: 0 } },
            receivers: alloc::vec![ReceiverChain {
                ratchet_key: *signed_prekey,
                chain: Chain { key: chain, index: 0 },
                skipped: SkippedSeeds::default(),
            }],
            ready: ReadyKeys::default(),
        })
    }

    /// Bob's first state (W§7.3).
    pub(crate) fn responder(root: RootKey, chain: ChainKey, signed_prekey: KeyPair) -> Self {
        Self {
            root,
            previous_counter: 0,
            sender: SenderChain { ratchet: signed_prekey, chain: Chain { key: chain, index: 0 } },
            receivers: Vec::new(),
            ready: ReadyKeys::default(),
        }
    }

    /// The seed of the next message to send and the chain behind it.
    pub(crate) fn plan_send(&self) -> Result<(MessageSeed, Chain), RatchetError> {
        self.sender.chain.step()
    }

    pub(crate) fn commit_send(&mut self, next: Chain) {
        self.sender.chain = next;
    }

    /// Finds the seed of a received message and what taking it will change. Draws 32 bytes when the
    /// ratchet key is new.
    pub(crate) fn plan_receive(
        &self,
        ratchet_key: &PublicKey,
        counter: u32,
        limit: JumpLimit,
        rng: &mut impl CryptoRng,
    ) -> Result<(MessageSeed, ReceivePlan), RatchetError> {
        let known = self.receivers.iter().position(|chain| chain.ratchet_key == *ratchet_key);
        match known.and_then(|receiver| Some((receiver, self.receivers.get(receiver)?))) {
            None => self.plan_dh_step(ratchet_key, counter, limit, rng),
            Some((receiver, chain)) if counter < chain.chain.index => {
                let position =
                    chain.skipped.position(counter).ok_or(RatchetError::Duplicate { counter })?;
                let seed = chain.skipped.seed_at(position);
                let seed = seed.ok_or(RatchetError::Duplicate { counter })?.clone();
                Ok((seed, ReceivePlan::Skipped { receiver, position }))
            }
            Some((receiver, chain)) => {
                let (seed, moved) = chain.chain.advance_to(counter, limit)?;
                Ok((seed, ReceivePlan::Advance { receiver, moved }))
            }
        }
    }

    /// W§8.3: the receiving half under our present ratchet key, the sending half under a fresh one.
    fn plan_dh_step(
        &self,
        ratchet_key: &PublicKey,
        counter: u32,
        limit: JumpLimit,
        rng: &mut impl CryptoRng,
    ) -> Result<(MessageSeed, ReceivePlan), RatchetError> {
        let ours = self.sender.ratchet.private();
        let dh = ours.agree(ratchet_key).map_err(RatchetError::Key)?;
        let (root, receiving) = self.root.kdf_rk(&dh);
        let (seed, moved) = Chain { key: receiving, index: 0 }.advance_to(counter, limit)?;

        let ratchet = KeyPair::generate(rng);
        let dh = ratchet.private().agree(ratchet_key).map_err(RatchetError::Key)?;
        let (root, sending) = root.kdf_rk(&dh);
        let plan = ReceivePlan::Ratchet {
            root,
            previous_counter: self.sender.chain.index.saturating_sub(1),
            sender: SenderChain { ratchet, chain: Chain { key: sending, index: 0 } },
            receiver: ReceiverChain {
                ratchet_key: *ratchet_key,
                chain: moved.chain,
                skipped: moved.skipped,
            },
        };
        Ok((seed, plan))
    }

    /// Carries a plan out. Called once everything about the message was verified; cannot fail.
    pub(crate) fn commit_receive(&mut self, plan: ReceivePlan) {
        match plan {
            ReceivePlan::Skipped { receiver, position } => {
                if let Some(chain) = self.receivers.get_mut(receiver) {
                    chain.skipped.remove(position);
                }
            }
            ReceivePlan::Ready { position } => self.ready.remove(position),
            ReceivePlan::Advance { receiver, moved } => {
                if let Some(chain) = self.receivers.get_mut(receiver) {
                    chain.chain = moved.chain;
                    chain.skipped.append(moved.skipped);
                }
            }
            ReceivePlan::Ratchet { root, previous_counter, sender, receiver } => {
                self.root = root;
                self.previous_counter = previous_counter;
                self.sender = sender;
                if self.receivers.len() == MAX_RECEIVER_CHAINS {
                    self.receivers.rotate_left(1);
                    self.receivers.truncate(MAX_RECEIVER_CHAINS - 1);
                    self.ready.keep_only(&self.receivers);
                }
                self.make_room();
                self.receivers.push(receiver);
            }
        }
    }

    /// Room for one more receiving chain. Growing by itself the list would leave the keys of the others behind: they are
    /// copied, and wiped where they lie.
    fn make_room(&mut self) {
        if self.receivers.len() < self.receivers.capacity() {
            return;
        }
        let mut larger = Vec::with_capacity(MAX_RECEIVER_CHAINS);
        larger.extend(self.receivers.iter_mut().map(|old| ReceiverChain {
            ratchet_key: old.ratchet_key,
            chain: old.chain.clone(),
            skipped: core::mem::take(&mut old.skipped),
        }));
        self.receivers = larger;
    }
}

impl Chain {
    /// Writes `key 32, index 4`.
    pub(crate) fn write(&self, out: &mut Writer) {
        out.bytes(self.key.as_bytes());
        out.u32(self.index);
    }

    /// Reads what [`Chain::write`] wrote.
    pub(crate) fn read(input: &mut Reader<'_>) -> Option<Self> {
        let key = ChainKey::new(input.secret()?);
        Some(Self { key, index: input.u32()? })
    }

    /// The seed of the next message and the chain behind it.
    pub(crate) fn step(&self) -> Result<(MessageSeed, Self), RatchetError> {
        let index = self.index.checked_add(1).ok_or(RatchetError::Exhausted)?;
        let (seed, key) = self.key.kdf_ck();
        Ok((seed, Self { key, index }))
    }

    /// Moves past `counter`, which is not below the index: the seed there, the chain behind it and
    /// the seeds of the messages in between, at most [`MAX_SKIPPED`] of them.
    pub(crate) fn advance_to(
        &self,
        counter: u32,
        limit: JumpLimit,
    ) -> Result<(MessageSeed, Moved), RatchetError> {
        let ahead = counter - self.index;
        if ahead > limit.messages() {
            return Err(RatchetError::TooFarAhead { ahead });
        }
        let next = counter.checked_add(1).ok_or(RatchetError::Exhausted)?;
        let forgotten = ahead.saturating_sub(MAX_SKIPPED as u32);
        let kept_from = self.index + forgotten;
        let mut key = self.key.clone();
        for _ in self.index..kept_from {
            key = key.skip();
        }
        let mut skipped = SkippedSeeds::with_capacity((counter - kept_from) as usize);
        for counter in kept_from..counter {
            let (seed, after) = key.kdf_ck();
            skipped.push(SkippedSeed { counter, seed });
            key = after;
        }
        let (seed, key) = key.kdf_ck();
        Ok((seed, Moved { chain: Chain { key, index: next }, skipped }))
    }
}
