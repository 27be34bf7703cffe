//! S§9.4. Keys of messages that were passed over in one receiving chain. When they are made and
//! which may still be asked for is `chain.rs`'s concern.

use crate::keys::PqMessageKey;
use alloc::vec::Vec;

/// A message key waiting for its message. Without a key: it was taken.
#[derive(Clone)]
struct Entry {
    index: u32,
    key: Option<PqMessageKey>,
}

/// Keys by index. Taking one is a binary search and wipes it where it lies; places of taken keys are
/// given back when they outnumber the others, so that neither order of arrival costs moves.
#[derive(Clone, Default)]
pub(super) struct SkippedKeys {
    /// Ascending indices, each once.
    entries: Vec<Entry>,
    live: usize,
}

impl SkippedKeys {
    /// Room for so many.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { entries: Vec::with_capacity(count), live: 0 }
    }

    /// Adds a key whose index is above all that are there.
    pub(super) fn push(&mut self, index: u32, key: PqMessageKey) {
        self.make_room(1);
        self.entries.push(Entry { index, key: Some(key) });
        self.live += 1;
    }

    /// Keys that are there.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &PqMessageKey)> {
        self.entries.iter().filter_map(|entry| Some((entry.index, entry.key.as_ref()?)))
    }

    pub(super) fn key(&self, index: u32) -> Option<&PqMessageKey> {
        self.entries.get(self.position(index)?)?.key.as_ref()
    }

    /// Wipes the key of this index.
    pub(super) fn take(&mut self, index: u32) {
        let Some(entry) = self.position(index).and_then(|at| self.entries.get_mut(at)) else {
            return;
        };
        if entry.key.is_some() {
            // Overwritten, not moved out: so it is wiped where it lies.
            entry.key = None;
            self.live -= 1;
        }
        while self.entries.last().is_some_and(|entry| entry.key.is_none()) {
            self.entries.pop();
        }
        if self.entries.len() > 2 * self.live + 16 {
            self.rebuild(self.live, |_| true);
        }
    }

    /// Adds keys whose indices are above all that are there.
    pub(super) fn append(&mut self, new: SkippedKeys) {
        if self.entries.is_empty() {
            *self = new;
            return;
        }
        self.make_room(new.entries.len());
        self.live += new.live;
        // Copied, so that each is wiped where it lies when the others are dropped.
        self.entries.extend(new.entries.iter().cloned());
    }

    fn make_room(&mut self, more: usize) {
        let needed = self.entries.len() + more;
        if needed > self.entries.capacity() {
            self.rebuild(needed.max(2 * self.live), |_| true);
        }
    }

    /// Wipes the keys below this index.
    pub(super) fn remove_below(&mut self, index: u32) {
        self.rebuild(self.live, |entry| entry >= index);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Copies what stays into fresh memory and drops, and so wipes, all that was there: moving
    /// entries would leave copies behind.
    fn rebuild(&mut self, capacity: usize, stays: impl Fn(u32) -> bool) {
        let mut entries = Vec::with_capacity(capacity);
        let kept = self.entries.iter().filter(|entry| entry.key.is_some() && stays(entry.index));
        entries.extend(kept.cloned());
        self.live = entries.len();
        self.entries = entries;
    }

    fn position(&self, index: u32) -> Option<usize> {
        self.entries.binary_search_by_key(&index, |entry| entry.index).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::secret::Secret;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn key(index: u32) -> PqMessageKey {
        PqMessageKey::new(Secret::new([index as u8; 32]))
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append(u32, u32),
        Take(u32),
        RemoveBelow(u32),
        Clear,
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u32..5, 0u32..30).prop_map(|(gap, count)| Step::Append(gap, count)),
            20 => (0u32..300).prop_map(Step::Take),
            1 => (0u32..300).prop_map(Step::RemoveBelow),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec(steps(), 0..120)) {
            let (mut kept, mut model, mut next) = (SkippedKeys::default(), BTreeMap::new(), 0);
            for step in steps {
                match step {
                    Step::Append(gap, count) => {
                        let new: Vec<u32> = (next + gap..next + gap + count).collect();
                        next += gap + count;
                        let mut added = SkippedKeys::default();
                        new.iter().for_each(|index| added.push(*index, key(*index)));
                        kept.append(added);
                        model.extend(new.into_iter().map(|index| (index, index as u8)));
                    }
                    Step::Take(index) => {
                        kept.take(index);
                        model.remove(&index);
                    }
                    Step::RemoveBelow(index) => {
                        kept.remove_below(index);
                        model.retain(|other, _| *other >= index);
                    }
                    Step::Clear => {
                        kept.clear();
                        model.clear();
                    }
                }
                prop_assert_eq!(kept.len(), model.len());
                prop_assert!(kept.entries.len() <= 2 * model.len() + 16 + 30);
                let all: BTreeMap<u32, u8> = kept.iter().map(|(index, key)| (index, key.as_bytes()[0])).collect();
                prop_assert_eq!(&all, &model);
                for index in 0..next {
                    prop_assert_eq!(kept.key(index).is_some(), model.contains_key(&index));
                }
            }
        }
    }
}
