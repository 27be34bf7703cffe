//! Whether the store is behind: its oldest submission waits for longer than it may. Then further ones are refused at once, before
//! their bodies are read; their senders come again, and those that wait are served.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The submissions that wait for the store.
pub(super) struct Pressure {
    longest: Duration,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

impl Pressure {
    pub(super) fn new(longest_ms: u64) -> Self {
        Self { longest: Duration::from_millis(longest_ms), waiting: Mutex::default() }
    }

    /// One waits from now on, until the answer is dropped.
    pub(super) fn enter(&self) -> Entered<'_> {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next = number.wrapping_add(1);
        waiting.since.insert(number, Instant::now());
        Entered { pressure: self, number }
    }

    pub(super) fn is_behind(&self) -> bool {
        let oldest = self.lock().since.first_key_value().map(|(_, since)| *since);
        oldest.is_some_and(|since| since.elapsed() > self.longest)
    }

    /// The map is whole between statements, so a poisoned lock does no harm.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that waits.
pub(super) struct Entered<'a> {
    pressure: &'a Pressure,
    number: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.pressure.lock().since.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_those_that_wait_decides() {
        let pressure = Pressure::new(20);
        assert!(!pressure.is_behind());
        let first = pressure.enter();
        std::thread::sleep(Duration::from_millis(25));
        let _second = pressure.enter();
        assert!(pressure.is_behind());
        drop(first);
        assert!(!pressure.is_behind());
    }
}
