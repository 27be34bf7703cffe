//! S§9. The key chain: a message key for every message, from a root to which every epoch of the
//! braid adds its secret. When an epoch is complete is the braid's concern.

use super::SpqrError;
use super::authenticator::EpochSecret;
use super::skipped::SkippedKeys;
use crate::crypto::kdf::{HmacKey, NO_SALT, hkdf};
use crate::crypto::secret::{Secret, secret_role};
use crate::keys::PqMessageKey;
use alloc::{boxed::Box, vec::Vec};

/// Two spaces, as on the wire.
const START: &[u8] = b"Signal PQ Ratchet V1 Chain  Start";
const ADD_EPOCH: &[u8] = b"Signal PQ Ratchet V1 Chain Add Epoch";
const NEXT: &[u8] = b"Signal PQ Ratchet V1 Chain Next";

secret_role! {
    /// From which the keys of the next epoch will be made.
    NextRoot, 32
}
secret_role! {
    /// Head of one side of one epoch.
    SideKey, 32
}

/// Which of the two parties this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// The session's initiator: the key side of epoch 1.
    A2B,
    /// The responder.
    B2A,
}

/// How far one receiving side may be asked to jump, and how many keys it keeps; both in messages,
/// per epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChainLimits {
    /// Largest distance from the newest message to a later one.
    pub(crate) max_jump: u32,
    /// Largest distance from the newest message back to one whose key is kept.
    pub(crate) max_ooo: u32,
}

impl ChainLimits {
    /// What clients pass.
    pub(crate) const DEFAULT: Self = Self { max_jump: 25_000, max_ooo: 2_000 };

    /// Above what anybody has lost of one epoch, though own devices pass 2^32 - 1 (W§11.5): bounds the steps that a
    /// message can ask for before its MAC is looked at, whatever was passed or stored.
    pub(crate) const LARGEST_JUMP: u32 = 1_000_000;

    /// Above what anybody asks for: bounds the memory of a state whatever was passed or stored.
    const LARGEST_OOO: u32 = 1 << 16;

    /// 0 stands for the default (S§9.4).
    pub(super) fn effective(self) -> Self {
        let or = |value, default| if value == 0 { default } else { value };
        Self {
            max_jump: or(self.max_jump, Self::DEFAULT.max_jump),
            max_ooo: or(self.max_ooo, Self::DEFAULT.max_ooo).min(Self::LARGEST_OOO),
        }
    }

    /// The bound on the keys that one receiving side keeps: with the default limits 2,200. A state
    /// has at most three such sides.
    pub(super) fn max_stored(self) -> u64 {
        u64::from(self.max_ooo) * 11 / 10
    }
}

/// Sending half of one epoch.
#[derive(Clone)]
pub(super) struct SendSide {
    pub(super) counter: u32,
    key: SideKey,
    /// Once a newer epoch was used for sending. The key is all zero then: in the place of one in a `None` there would be what was left on
    /// the stack where it was made, and that may be a key.
    is_erased: bool,
}

impl SendSide {
    /// Without a key it is erased.
    pub(super) fn new(counter: u32, key: Option<SideKey>) -> Self {
        let is_erased = key.is_none();
        let key = key.unwrap_or_else(|| SideKey::new(Secret::zeroed()));
        Self { counter, key, is_erased }
    }

    /// The head of its chain, unless that was erased.
    pub(super) fn key(&self) -> Option<&SideKey> {
        (!self.is_erased).then_some(&self.key)
    }

    fn erase(&mut self) {
        *self = Self::new(self.counter, None);
    }
}

/// Receiving half of one epoch.
#[derive(Clone)]
pub(super) struct RecvSide {
    pub(super) counter: u32,
    pub(super) key: SideKey,
    pub(super) skipped: SkippedKeys,
}

/// The keys of one epoch.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) send: SendSide,
    pub(super) recv: RecvSide,
}

/// Links that a chain has at once: two epochs with which messages may come, and the newest.
const LINKS: usize = 3;

impl Link {
    /// This link in another place: the keys are copied, and are wiped here when this one is dropped.
    fn take(&mut self) -> Self {
        let recv = &mut self.recv;
        let skipped = core::mem::take(&mut recv.skipped);
        let recv = RecvSide { counter: recv.counter, key: recv.key.clone(), skipped };
        Self { send: self.send.clone(), recv }
    }
}

/// The chain. Its links are consecutive epochs, oldest first, the last is `current_epoch`.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(super) direction: Direction,
    pub(super) limits: ChainLimits,
    pub(super) current_epoch: u64,
    pub(super) send_epoch: u64,
    pub(super) next_root: NextRoot,
    pub(super) links: Vec<Link>,
}

/// What committing a message will change in a chain.
pub(crate) enum ChainChange {
    None,
    Sent { key_epoch: u64, counter: u32, next: SideKey },
    Taken { key_epoch: u64, index: u32 },
    Advanced { key_epoch: u64, counter: u32, next: SideKey, skipped: SkippedKeys },
}

/// An epoch that committing will append.
pub(crate) struct NewEpoch {
    epoch: u64,
    next_root: NextRoot,
    link: Link,
}

impl SideKey {
    /// HKDF-Expand of the step, ready for its blocks (S§9.3).
    fn expand(&self) -> HmacKey {
        let prk = Secret::new(NO_SALT.begin().chain(self.as_bytes()).finish());
        HmacKey::new(prk.as_bytes())
    }

    /// The next chain key alone, for a message whose key is not kept.
    fn skip(&self, counter: u32) -> Self {
        Self::new(first_block(&self.expand(), counter))
    }

    /// The next chain key and the key of message `counter`.
    fn step(&self, counter: u32) -> (Self, PqMessageKey) {
        let keyed = self.expand();
        let next = first_block(&keyed, counter);
        let key = keyed.begin().chain(next.as_bytes());
        let key = key.chain(&counter.to_be_bytes()).chain(NEXT).chain(&[2]);
        (Self::new(next), PqMessageKey::new(Secret::new(key.finish())))
    }
}

fn first_block(keyed: &HmacKey, counter: u32) -> Secret<32> {
    Secret::new(keyed.begin().chain(&counter.to_be_bytes()).chain(NEXT).chain(&[1]).finish())
}

impl Chain {
    /// `start` (S§9.1).
    pub(super) fn start(auth_key: &[u8], direction: Direction, limits: ChainLimits) -> Self {
        let (next_root, link) = new_link(direction, &hkdf(None, auth_key, START));
        Self {
            direction,
            limits: limits.effective(),
            current_epoch: 0,
            send_epoch: 0,
            next_root,
            links: alloc::vec![link],
        }
    }

    /// `add epoch` (S§9.2), to be committed with [`Self::append`].
    pub(super) fn plan_epoch(&self, new: &EpochSecret) -> Result<NewEpoch, SpqrError> {
        if self.current_epoch.checked_add(1) != Some(new.epoch) {
            return Err(SpqrError::EpochOutOfRange);
        }
        let okm = hkdf(Some(self.next_root.as_bytes()), new.secret.as_bytes(), ADD_EPOCH);
        let (next_root, link) = new_link(self.direction, &okm);
        Ok(NewEpoch { epoch: new.epoch, next_root, link })
    }

    /// `send key` (S§9.3): number and key of the next message of a key epoch.
    pub(super) fn plan_send(
        &self,
        key_epoch: u64,
    ) -> Result<(u32, PqMessageKey, ChainChange), SpqrError> {
        if key_epoch < self.send_epoch {
            return Err(SpqrError::SendKeyEpochDecreased);
        }
        let side = &self.link(key_epoch).ok_or(SpqrError::EpochOutOfRange)?.send;
        let key = side.key().ok_or(SpqrError::StateDecode)?;
        let counter = side.counter.checked_add(1).ok_or(SpqrError::ChainExhausted)?;
        let (next, message_key) = key.step(counter);
        Ok((counter, message_key, ChainChange::Sent { key_epoch, counter, next }))
    }

    /// `receive key` (S§9.4): the key of message `at` of a key epoch.
    pub(super) fn plan_recv(
        &self,
        key_epoch: u64,
        at: u32,
    ) -> Result<(PqMessageKey, ChainChange), SpqrError> {
        let side = &self.link(key_epoch).ok_or(SpqrError::EpochOutOfRange)?.recv;
        let counter = side.counter;
        if at > counter {
            if at - counter > self.limits.max_jump.min(ChainLimits::LARGEST_JUMP) {
                return Err(SpqrError::KeyJump { newest: counter, asked: at });
            }
            let (message_key, next, skipped) = self.advance(side, at);
            return Ok((
                message_key,
                ChainChange::Advanced { key_epoch, counter: at, next, skipped },
            ));
        }
        if u64::from(at) + u64::from(self.limits.max_ooo) < u64::from(counter) {
            return Err(SpqrError::KeyTrimmed { newest: counter, asked: at });
        }
        let message_key =
            side.skipped.key(at).ok_or(SpqrError::KeyAlreadyRequested { asked: at })?;
        Ok((message_key.clone(), ChainChange::Taken { key_epoch, index: at }))
    }

    /// Derives up to message `at`, keeping the keys that may still be asked for.
    fn advance(&self, side: &RecvSide, at: u32) -> (PqMessageKey, SideKey, SkippedKeys) {
        let first_kept = (side.counter + 1).max(at.saturating_sub(self.limits.max_ooo));
        let mut skipped = SkippedKeys::with_capacity((at - first_kept) as usize);
        let mut key = side.key.clone();
        for index in side.counter + 1..first_kept {
            key = key.skip(index);
        }
        for index in first_kept..at {
            let (next, message_key) = key.step(index);
            skipped.push(index, message_key);
            key = next;
        }
        let (next, message_key) = key.step(at);
        (message_key, next, skipped)
    }

    /// What is copied here is wiped with the box that it lies in.
    pub(super) fn append(&mut self, new: &NewEpoch) {
        self.current_epoch = new.epoch;
        self.next_root = new.next_root.clone();
        if self.links.len() == self.links.capacity() {
            let mut larger = Vec::with_capacity(self.links.len() + LINKS);
            larger.extend(self.links.iter_mut().map(Link::take));
            self.links = larger;
        }
        self.links.push(new.link.clone());
    }

    pub(super) fn commit(&mut self, change: ChainChange) {
        match change {
            ChainChange::None => {}
            ChainChange::Sent { key_epoch, counter, next } => {
                self.enter_send_epoch(key_epoch);
                if let Some(link) = self.link_mut(key_epoch) {
                    link.send = SendSide::new(counter, Some(next));
                }
            }
            ChainChange::Taken { key_epoch, index } => {
                if let Some(link) = self.link_mut(key_epoch) {
                    link.recv.skipped.take(index);
                }
            }
            ChainChange::Advanced { key_epoch, counter, next, skipped } => {
                let limits = self.limits;
                if let Some(link) = self.link_mut(key_epoch) {
                    link.recv.advance(counter, next, skipped, limits);
                }
            }
        }
    }

    /// Drops what a party that sends with this key epoch needs no more (S§9.3 step 3).
    fn enter_send_epoch(&mut self, key_epoch: u64) {
        if key_epoch == self.send_epoch {
            return;
        }
        self.send_epoch = key_epoch;
        let position = self.position(key_epoch).unwrap_or(0);
        // To the end and dropped there: draining would leave what comes after them behind.
        let dropped = position.saturating_sub(1);
        self.links.rotate_left(dropped);
        self.links.truncate(self.links.len() - dropped);
        let older = position.min(1);
        for link in self.links.iter_mut().take(older) {
            link.send.erase();
        }
    }

    /// Keys of skipped messages that are stored, over all epochs.
    #[cfg(test)]
    pub(super) fn stored(&self) -> usize {
        self.links.iter().map(|link| link.recv.skipped.len()).sum()
    }

    fn link(&self, epoch: u64) -> Option<&Link> {
        self.links.get(self.position(epoch)?)
    }

    fn link_mut(&mut self, epoch: u64) -> Option<&mut Link> {
        let position = self.position(epoch)?;
        self.links.get_mut(position)
    }

    fn position(&self, epoch: u64) -> Option<usize> {
        let from_end = usize::try_from(self.current_epoch.checked_sub(epoch)?).ok()?;
        self.links.len().checked_sub(from_end.checked_add(1)?)
    }
}

impl RecvSide {
    /// The order of forgetting is that of other implementations (S§9.4, "forward rules").
    fn advance(&mut self, at: u32, next: SideKey, skipped: SkippedKeys, limits: ChainLimits) {
        if u64::from(at) > u64::from(self.counter) + u64::from(limits.max_ooo) {
            self.skipped.clear();
        }
        if skipped.len() > 0 {
            self.skipped.append(skipped);
        }
        if self.skipped.len() as u64 > limits.max_stored() {
            self.skipped.remove_below((at - 1).saturating_sub(limits.max_ooo));
        }
        self.counter = at;
        self.key = next;
    }
}

/// The three parts of an epoch: next root, key of A2B, key of B2A.
fn new_link(direction: Direction, okm: &Secret<96>) -> (NextRoot, Link) {
    let (next_root, keys) = okm.split::<32, 64>();
    let (a2b, b2a) = keys.split();
    let (send, recv) = match direction {
        Direction::A2B => (a2b, b2a),
        Direction::B2A => (b2a, a2b),
    };
    let link = Link {
        send: SendSide::new(0, Some(SideKey::new(send))),
        recv: RecvSide { counter: 0, key: SideKey::new(recv), skipped: SkippedKeys::default() },
    };
    (NextRoot::new(next_root), link)
}

/// The chain that a message is planned on: the one that is there, or a new one that committing keeps.
pub(super) enum Planned<'a> {
    There(&'a Chain),
    New(Box<Chain>),
}

impl Planned<'_> {
    pub(super) fn chain(&self) -> &Chain {
        match self {
            Self::There(chain) => chain,
            Self::New(chain) => chain,
        }
    }

    pub(super) fn into_new(self) -> Option<Box<Chain>> {
        match self {
            Self::There(_) => None,
            Self::New(chain) => Some(chain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_that_was_passed_or_stored_allows_more_than_a_million_steps() {
        let limits = ChainLimits { max_jump: u32::MAX, ..ChainLimits::DEFAULT };
        let chain = Chain::start(&[1; 32], Direction::A2B, limits);
        assert!(chain.plan_recv(0, 25_001).is_ok());
        for asked in [ChainLimits::LARGEST_JUMP + 1, u32::MAX] {
            let refused = chain.plan_recv(0, asked).err();
            assert_eq!(refused, Some(SpqrError::KeyJump { newest: 0, asked }));
        }
    }
}
