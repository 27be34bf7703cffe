//! How long to wait before the next attempt: exponential, capped, with full jitter.

use std::time::Duration;

use rand_core::CryptoRng;

const BASE_MS: u64 = 250;
const CAP_MS: u64 = 30_000;

/// A random time up to `BASE * 2^attempt`, at most 30 s; `attempt` counts from 0.
pub(crate) fn delay(attempt: u32, rng: &mut (impl CryptoRng + ?Sized)) -> Duration {
    let ceiling = BASE_MS.saturating_mul(1 << attempt.min(16)).min(CAP_MS);
    // The bias of the remainder is below one in 2^49.
    Duration::from_millis(rng.next_u64() % (ceiling + 1))
}

/// A time that is no shorter than `least`, which others were told as well: up to as long again, so that not all come at once.
pub(crate) fn after(
    least: Duration,
    attempt: u32,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Duration {
    let least_ms = u64::try_from(least.as_millis()).unwrap_or(u64::MAX);
    let apart = Duration::from_millis(rng.next_u64() % least_ms.saturating_add(1).max(1));
    least.saturating_add(apart).max(delay(attempt, rng))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    #[test]
    fn time_that_was_told_is_waited_for_and_spread() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let least = Duration::from_secs(4);
        let waits: Vec<_> = (0..500).map(|_| after(least, 0, &mut rng)).collect();
        let (shortest, longest) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*shortest >= least && *shortest < least + least / 10);
        assert!(*longest <= 2 * least && *longest > 2 * least - least / 10);
        assert!(after(Duration::ZERO, 0, &mut rng) <= Duration::from_millis(250));
    }

    #[test]
    fn delays_spread_up_to_a_growing_ceiling_and_never_past_the_cap() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        for (attempt, ceiling) in [(0, 250), (3, 2_000), (7, 30_000), (u32::MAX, 30_000)] {
            let longest = (0..500).map(|_| delay(attempt, &mut rng)).max().unwrap();
            assert!(longest <= Duration::from_millis(ceiling), "{attempt}");
            assert!(longest > Duration::from_millis(ceiling * 9 / 10), "{attempt}");
        }
    }
}
