//! Somebody outside who does not answer is left alone for a while, so that nobody waits for him in vain.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Closed: he is asked. Open, after so many failures in a row: he is not, until one question tries whether he is back.
pub(super) struct Circuit {
    failures_max: u64,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In a row.
    failures: u64,
    open_until: Option<Instant>,
}

/// What a failure or a success has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Opened,
    Closed,
    Nothing,
}

impl Circuit {
    pub(super) fn new(failures_max: u64, pause: Duration) -> Self {
        Self { failures_max, pause, state: Mutex::default() }
    }

    /// Whether he may be asked. Of those who ask after a pause the first may, and the others wait for what he finds.
    ///
    /// # Errors
    /// Not before this time has passed.
    pub(super) fn may(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.open_until {
            Some(until) if now < until => Err(until.saturating_duration_since(now)),
            Some(_) => {
                state.open_until = now.checked_add(self.pause);
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn good(&self) -> Change {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = std::mem::take(&mut *state).open_until.is_some();
        if was_open { Change::Closed } else { Change::Nothing }
    }

    pub(super) fn bad(&self, now: Instant) -> Change {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        if state.failures < self.failures_max {
            return Change::Nothing;
        }
        let was_open = state.open_until.is_some();
        state.open_until = now.checked_add(self.pause);
        if was_open { Change::Nothing } else { Change::Opened }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    #[test]
    fn failures_in_a_row_open_it_and_one_success_closes_it() {
        let (circuit, now) = (Circuit::new(3, PAUSE), Instant::now());
        assert_eq!((circuit.bad(now), circuit.bad(now)), (Change::Nothing, Change::Nothing));
        assert_eq!(circuit.good(), Change::Nothing);
        assert_eq!((circuit.bad(now), circuit.bad(now)), (Change::Nothing, Change::Nothing));
        assert_eq!(circuit.may(now), Ok(()));
        assert_eq!(circuit.bad(now), Change::Opened);
        assert_eq!(circuit.may(now), Err(PAUSE));
        assert_eq!(circuit.good(), Change::Closed);
        assert_eq!(circuit.may(now), Ok(()));
    }

    #[test]
    fn after_the_pause_one_tries_and_the_others_wait() {
        let (circuit, now) = (Circuit::new(1, PAUSE), Instant::now());
        circuit.bad(now);
        let later = now + PAUSE;
        assert_eq!(circuit.may(later), Ok(()));
        assert_eq!(circuit.may(later), Err(PAUSE));
        // The one that tried has found the same, or was dropped: the next one tries.
        assert_eq!(circuit.bad(later), Change::Nothing);
        assert_eq!(circuit.may(later + PAUSE), Ok(()));
        assert_eq!(circuit.may(later + PAUSE + PAUSE), Ok(()));
    }
}
