//! Budgets by key: a burst, then so many an hour. Memory is bounded by the keys that are below their burst.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

const HOUR: Duration = Duration::from_secs(3600);
/// Keys after which those with a full budget are forgotten at once.
const KEYS: usize = 100_000;

/// A budget for each key.
pub struct Budget<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
}

impl<K: Hash + Eq + Clone> Budget<K> {
    /// `burst` at once, refilled at `per_hour`. Both are 1 or more; larger than 2^32 - 1 counts as that.
    #[must_use]
    pub fn new(burst: u64, per_hour: u64) -> Self {
        let burst =
            NonZeroU32::new(u32::try_from(burst).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
        let nanos = (HOUR.as_nanos() / u128::from(per_hour.max(1))).max(1);
        let period = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // The period is not zero, so there is a quota.
        let quota = Quota::with_period(period)
            .unwrap_or(Quota::per_hour(NonZeroU32::MIN))
            .allow_burst(burst);
        Self { limiter: RateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Spends one.
    ///
    /// # Errors
    /// The budget is used up; the time says when there is one again.
    pub fn spend(&self, key: &K) -> Result<(), Duration> {
        if self.limiter.len() > KEYS {
            self.forget_full();
        }
        self.limiter.check_key(key).map_err(|refused| refused.wait_time_from(self.clock.now()))
    }

    /// Spends several at once.
    ///
    /// # Errors
    /// The budget does not reach; the time says when it might. More than a whole burst never fits: then an hour.
    pub fn spend_many(&self, key: &K, count: u32) -> Result<(), Duration> {
        let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_key_n(key, count) {
            Ok(spent) => spent.map_err(|refused| refused.wait_time_from(self.clock.now())),
            Err(_) => Err(HOUR),
        }
    }

    /// Forgets the keys whose budget is full again.
    pub fn forget_full(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_all_there_is_at_once_and_keys_do_not_share_it() {
        let budget = Budget::new(3, 1);
        let spent: Vec<bool> = (0..4).map(|_| budget.spend(&1).is_ok()).collect();
        assert_eq!(spent, [true, true, true, false]);
        assert!(budget.spend(&2).is_ok());
        assert!(budget.spend(&1).unwrap_err() > Duration::from_secs(3000));
    }

    #[test]
    fn keys_with_a_full_budget_are_forgotten() {
        let budget = Budget::new(1, 3_600_000_000);
        (0..1000).for_each(|key| assert!(budget.spend(&key).is_ok()));
        std::thread::sleep(Duration::from_millis(20));
        budget.forget_full();
        assert_eq!(budget.limiter.len(), 0);
    }
}
