//! The proof of work that a server may ask for before it registers anybody (docs/server-api.md).

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::error::RegisterError;

/// Before the registration in the hash that the work is done on.
const LABEL: &[u8] = b"tuckseal-registration-work-v1";
/// 2^24 hashes take seconds on a phone. A server that asks for more would keep us busy for nothing.
const MAX_BITS: u32 = 24;
/// Hashes between two looks at the clock.
const STRIDE: u64 = 4096;

/// What to send as `work`: empty if nothing is asked for. Takes 2^bits hashes in the mean.
///
/// # Errors
/// [`RegisterError::TooMuchWork`], [`RegisterError::WorkTooSlow`].
pub(crate) fn solve(
    registration: &[u8],
    bits: u32,
    time: Duration,
) -> Result<Vec<u8>, RegisterError> {
    if bits == 0 {
        return Ok(Vec::new());
    }
    if bits > MAX_BITS {
        return Err(RegisterError::TooMuchWork { bits, limit: MAX_BITS });
    }
    let begun = Instant::now();
    let inner = Sha256::new_with_prefix(LABEL).chain_update(registration).finalize();
    let inner = Sha256::new_with_prefix(inner);
    for work in 0_u64.. {
        if work.is_multiple_of(STRIDE) && begun.elapsed() >= time {
            break;
        }
        let hash = inner.clone().chain_update(work.to_be_bytes()).finalize();
        if hash.first_chunk().is_some_and(|head| u32::from_be_bytes(*head).leading_zeros() >= bits)
        {
            return Ok(work.to_be_bytes().to_vec());
        }
    }
    Err(RegisterError::WorkTooSlow { bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn more_work_than_the_limit_is_refused_and_work_ends_with_its_time() {
        let refused = |bits, time| solve(b"registration", bits, time).unwrap_err();
        for bits in [25, u32::MAX] {
            let error = refused(bits, MINUTE);
            assert!(matches!(error, RegisterError::TooMuchWork { limit: 24, .. }), "{error}");
        }
        let error = refused(24, Duration::ZERO);
        assert!(matches!(error, RegisterError::WorkTooSlow { bits: 24 }), "{error}");
        assert!(solve(b"registration", 0, Duration::ZERO).unwrap().is_empty());
    }
}
