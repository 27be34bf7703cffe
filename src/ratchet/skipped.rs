//! Seeds of messages that were skipped in one receiving chain, and their bound (W§8.7).

use crate::keys::MessageSeed;
use crate::stored::{Reader, Writer};
use alloc::vec::Vec;

/// Seeds kept per receiving chain; the oldest go first. The peers keep as many.
pub(crate) const MAX_SKIPPED: usize = 2_000;

/// A seed waiting for its message.
#[derive(Clone, Debug)]
pub(crate) struct SkippedSeed {
    pub(crate) counter: u32,
    pub(crate) seed: MessageSeed,
}

/// The seeds in ascending order of their counters: chains only move forward, so new ones go last.
///
/// A seed that is removed or moved is overwritten where it lay: elements are rotated to the end and
/// dropped there, and a full buffer is copied and wiped rather than reallocated.
#[derive(Clone, Debug, Default)]
pub(crate) struct SkippedSeeds(Vec<SkippedSeed>);

impl SkippedSeeds {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SkippedSeed> {
        self.0.iter()
    }

    /// Where the seed of this counter lies.
    pub(crate) fn position(&self, counter: u32) -> Option<usize> {
        self.0.binary_search_by_key(&counter, |entry| entry.counter).ok()
    }

    pub(crate) fn seed_at(&self, position: usize) -> Option<&MessageSeed> {
        self.0.get(position).map(|entry| &entry.seed)
    }

    /// Takes out and wipes the seed at a position that [`Self::position`] gave.
    pub(crate) fn remove(&mut self, position: usize) {
        if let Some(tail) = self.0.get_mut(position..) {
            tail.rotate_left(1);
            self.0.truncate(self.0.len() - 1);
        }
    }

    /// Adds seeds with ascending counters above all that are there, dropping the oldest over the bound.
    pub(crate) fn append(&mut self, new: SkippedSeeds) {
        let excess = (self.0.len() + new.0.len()).saturating_sub(MAX_SKIPPED);
        let dropped = excess.min(self.0.len());
        self.0.rotate_left(dropped);
        self.0.truncate(self.0.len() - dropped);
        if self.0.is_empty() {
            *self = new;
            return;
        }
        self.make_room(new.0.len());
        // Copied, so that each is wiped where it lies when the others are dropped.
        self.0.extend(new.0.iter().cloned());
    }

    /// Adds one seed with a counter above all that are there; the caller keeps the bound.
    pub(crate) fn push(&mut self, entry: SkippedSeed) {
        self.make_room(1);
        self.0.push(entry);
    }

    /// Room for so many more, in another buffer if this one is full.
    fn make_room(&mut self, more: usize) {
        let needed = self.0.len() + more;
        if needed > self.0.capacity() {
            let mut larger =
                Vec::with_capacity(needed.max((self.0.len() * 2).clamp(4, MAX_SKIPPED)));
            larger.extend(self.0.iter().cloned());
            self.0 = larger;
        }
    }

    /// Writes `count 2, each counter 4, seed 32`.
    pub(crate) fn write(&self, out: &mut Writer) {
        out.u16(self.0.len() as u16);
        for entry in self.iter() {
            out.u32(entry.counter);
            out.bytes(entry.seed.as_bytes());
        }
    }

    /// Reads seeds of a chain that stands at `index`: below it, ascending, not too many.
    pub(crate) fn read(input: &mut Reader<'_>, index: u32) -> Option<Self> {
        let count = usize::from(input.u16()?);
        if count > MAX_SKIPPED {
            return None;
        }
        let mut skipped = Self::with_capacity(count);
        let mut above = None;
        for _ in 0..count {
            let counter = input.u32()?;
            if counter >= index || above.is_some_and(|last| counter <= last) {
                return None;
            }
            above = Some(counter);
            skipped.push(SkippedSeed { counter, seed: MessageSeed::new(input.secret()?) });
        }
        Some(skipped)
    }

    /// Room for `n` seeds at once.
    pub(crate) fn with_capacity(n: usize) -> Self {
        Self(Vec::with_capacity(n.min(MAX_SKIPPED)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::secret::Secret;

    fn seeds(counters: core::ops::Range<u32>) -> SkippedSeeds {
        let mut all = SkippedSeeds::default();
        for counter in counters {
            all.push(SkippedSeed {
                counter,
                seed: MessageSeed::new(Secret::new([counter as u8; 32])),
            });
        }
        all
    }

    #[test]
    fn oldest_seeds_are_dropped_at_the_bound() {
        let mut kept = seeds(0..1_500);
        kept.append(seeds(2_000..3_000));
        assert_eq!(kept.len(), MAX_SKIPPED);
        assert_eq!(kept.position(499), None);
        assert_eq!(kept.position(500), Some(0));
        assert_eq!(kept.position(2_999), Some(MAX_SKIPPED - 1));
    }

    #[test]
    fn removal_keeps_the_others_in_order() {
        let mut kept = seeds(0..10);
        kept.remove(kept.position(4).unwrap());
        assert_eq!(kept.position(4), None);
        let left: Vec<u32> = kept.iter().map(|entry| entry.counter).collect();
        assert_eq!(left, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
        assert_eq!(kept.seed_at(4).unwrap().as_bytes(), &[5; 32]);
    }
}
