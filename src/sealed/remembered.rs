//! A bounded map that forgets what was not asked for lately. Not part of any specification: it
//! saves work that was done before (the checks and agreements of W§13–15).

use alloc::collections::BTreeMap;

/// Two generations: what is asked for moves to the younger one; when that is full, it becomes the
/// older one, and what was in the older one is gone.
pub(super) struct Remembered<V> {
    recent: BTreeMap<[u8; 32], V>,
    older: BTreeMap<[u8; 32], V>,
    /// Entries of one generation at most.
    generation: usize,
}

impl<V> Remembered<V> {
    /// For `capacity` entries, rounded up to an even number; 0 remembers nothing.
    pub(super) fn new(capacity: usize) -> Self {
        Self { recent: BTreeMap::new(), older: BTreeMap::new(), generation: capacity.div_ceil(2) }
    }

    pub(super) fn get(&mut self, key: &[u8; 32]) -> Option<&mut V> {
        if let Some(value) = self.older.remove(key) {
            self.insert(*key, value);
        }
        self.recent.get_mut(key)
    }

    pub(super) fn insert(&mut self, key: [u8; 32], value: V) {
        if self.generation == 0 {
            return;
        }
        self.older.remove(&key);
        if self.recent.len() >= self.generation && !self.recent.contains_key(&key) {
            self.older = core::mem::take(&mut self.recent);
        }
        self.recent.insert(key, value);
    }

    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> [u8; 32] {
        [number; 32]
    }

    #[test]
    fn never_more_than_its_capacity_and_always_the_last_half() {
        let mut map = Remembered::new(10);
        for number in 0..100 {
            map.insert(key(number), number);
            assert!(map.len() <= 10);
            for recent in number.saturating_sub(4)..=number {
                assert_eq!(map.get(&key(recent)), Some(&mut { recent }));
            }
        }
        assert_eq!(map.get(&key(0)), None);
    }

    #[test]
    fn what_is_asked_for_stays() {
        let mut map = Remembered::new(4);
        map.insert(key(0), 0);
        for number in 1..50 {
            map.insert(key(number), number);
            assert_eq!(map.get(&key(0)), Some(&mut 0));
        }
    }

    #[test]
    fn a_key_has_one_value_the_last() {
        let mut map = Remembered::new(2);
        map.insert(key(1), 1);
        map.insert(key(2), 2);
        map.insert(key(1), 3);
        assert_eq!(map.get(&key(1)), Some(&mut 3));
        map.insert(key(1), 4);
        assert_eq!(map.get(&key(1)), Some(&mut 4));
        assert_eq!(map.get(&key(2)), Some(&mut 2));
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn without_capacity_nothing_is_remembered() {
        let mut map = Remembered::new(0);
        map.insert(key(1), 1);
        assert_eq!(map.get(&key(1)), None);
        assert_eq!(map.len(), 0);
    }
}
