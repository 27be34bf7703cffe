//! How much may come for an account: a burst, then so many bytes an hour. Only what was taken in counts, so nobody who may not
//! write to an account can use it up. In memory, by node.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::storage::AccountId;

/// Accounts that are remembered, those for which something came last.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(131_072).unwrap();
const HOUR_SECS: f64 = 3600.0;
const KIB: f64 = 1024.0;

/// What came for accounts not long ago.
pub(super) struct Inbound {
    burst: f64,
    per_sec: f64,
    levels: Mutex<LruCache<AccountId, Level>>,
}

#[derive(Clone, Copy)]
struct Level {
    bytes: f64,
    at: Instant,
}

impl Inbound {
    pub(super) fn new(burst_kib: u64, kib_per_hour: u64) -> Self {
        Self {
            burst: burst_kib as f64 * KIB,
            per_sec: kib_per_hour as f64 * KIB / HOUR_SECS,
            levels: Mutex::new(LruCache::new(REMEMBERED)),
        }
    }

    /// Whether more may come.
    ///
    /// # Errors
    /// Not before this time has passed.
    pub(super) fn check(&self, account: AccountId, now: Instant) -> Result<(), Duration> {
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let level = levels.peek(&account).map_or(0.0, |level| self.left(*level, now));
        drop(levels);
        if level <= self.burst {
            return Ok(());
        }
        let secs = ((level - self.burst) / self.per_sec).clamp(0.0, HOUR_SECS);
        Err(Duration::from_secs_f64(secs))
    }

    /// So much has come.
    pub(super) fn add(&self, account: AccountId, bytes: usize, now: Instant) {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let before = levels.get(&account).map_or(0.0, |level| self.left(*level, now));
        levels.put(account, Level { bytes: before + bytes as f64, at: now });
    }

    fn left(&self, level: Level, now: Instant) -> f64 {
        let gone = now.saturating_duration_since(level.at).as_secs_f64() * self.per_sec;
        (level.bytes - gone).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOB: AccountId = AccountId([1; 16]);

    #[test]
    fn burst_is_all_there_is_at_once_and_comes_back_with_time() {
        let (inbound, now) = (Inbound::new(10, 3600), Instant::now());
        for _ in 0..10 {
            assert_eq!(inbound.check(BOB, now), Ok(()));
            inbound.add(BOB, 1024, now);
        }
        // The last one may go over it.
        assert_eq!(inbound.check(BOB, now), Ok(()));
        inbound.add(BOB, 3 * 1024, now);
        let wait = inbound.check(BOB, now).unwrap_err();
        assert_eq!(wait.as_secs_f64().round(), 3.0);
        assert_eq!(inbound.check(AccountId([2; 16]), now), Ok(()));
        assert_eq!(inbound.check(BOB, now + wait), Ok(()));
        assert!(inbound.check(BOB, now + wait / 2).is_err());
    }
}
