//! How many wake-ups are on their way at the same time, and whose. Places are few, and endpoints are named by clients: who
//! accepts a connection and says nothing holds a place for as long as a request may last.
//!
//! * A host, or a vendor, has places of its own and a line before them: a slow one makes its own devices wait.
//! * Many names that all lead to silence: a host that has not answered quickly yet, or lately did not, is a newcomer. These
//!   share a few places, so the others find theirs.
//! * Who answers at first and is silent then is a newcomer again, for a while.
//!
//! It does not hold against somebody with so many hosts that answered and then, all at once, fall silent that they fill the
//! places of those that are known: these come free when the requests end. And newcomers can keep each other waiting.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::push::PushService;

/// Of a vendor, whom the operator names.
const VENDOR: usize = 64;
/// Of a host of Web Push: half of what is for all, as most devices of a server may use the same one.
const HOST: usize = 48;
/// Of a host's places a newcomer takes so many at once.
const NEWCOMER: u32 = 12;
/// Of all hosts that are known.
const KNOWN: usize = 96;
/// Of all newcomers.
const NEWCOMERS: usize = 32;
/// Wake-ups that are on their way or in the line: of a vendor or a host that is known, of a newcomer, of all newcomers.
const LINE: usize = 256;
const NEWCOMER_LINE: usize = 32;
const NEWCOMERS_LINE: usize = 256;
/// An answer that takes longer is slow.
const QUICK: Duration = Duration::from_secs(4);
/// Who was slow stays a newcomer for so long.
const PROBATION: Duration = Duration::from_secs(600);
/// Hosts that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Who finds no room in a line comes again after this time.
const AGAIN: Duration = Duration::from_secs(1);
/// And one after the other, so that a line that does not move costs few queries.
const APART: Duration = Duration::from_millis(2);

/// All places.
pub(super) struct Places {
    state: Mutex<State>,
    known: Arc<Semaphore>,
    newcomers: Arc<Semaphore>,
}

struct State {
    lines: HashMap<PushService, Line>,
    /// Hosts that have been asked, and when they were slow if they are newcomers for that.
    asked: LruCache<PushService, Option<Instant>>,
    /// Of newcomers, in all lines.
    newcomers: usize,
    /// When the last newcomer that found no room comes again.
    again: Instant,
}

struct Line {
    places: Arc<Semaphore>,
    length: usize,
    /// When the last one that found no room comes again.
    again: Instant,
}

/// Room in a line, until it is dropped.
pub(super) struct Turn {
    places: Arc<Places>,
    service: PushService,
    own: Arc<Semaphore>,
    standing: Standing,
}

/// A place, until it is dropped.
pub(super) struct Place {
    _own: Option<OwnedSemaphorePermit>,
    _shared: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Vendor,
    Known,
    Newcomer,
}

impl Default for Places {
    fn default() -> Self {
        let state = State {
            lines: HashMap::new(),
            asked: LruCache::new(REMEMBERED),
            newcomers: 0,
            again: Instant::now(),
        };
        Self {
            state: Mutex::new(state),
            known: Arc::new(Semaphore::new(KNOWN)),
            newcomers: Arc::new(Semaphore::new(NEWCOMERS)),
        }
    }
}

impl Places {
    /// Goes into the line.
    ///
    /// # Errors
    /// There is no room; when to come again.
    pub(super) fn line_up(self: &Arc<Self>, service: PushService) -> Result<Turn, Instant> {
        let now = Instant::now();
        let mut state = self.lock();
        let standing = state.standing(&service);
        let (newcomer, longest) = match standing {
            Standing::Newcomer => (1, NEWCOMER_LINE),
            Standing::Known | Standing::Vendor => (0, LINE),
        };
        if state.newcomers + newcomer > NEWCOMERS_LINE {
            return Err(later(&mut state.again, now));
        }
        let line = state.lines.entry(service.clone()).or_insert_with(|| Line::new(standing, now));
        if line.length >= longest {
            return Err(later(&mut line.again, now));
        }
        line.length += 1;
        let own = Arc::clone(&line.places);
        state.newcomers += newcomer;
        drop(state);
        Ok(Turn { places: Arc::clone(self), service, own, standing })
    }

    /// The state is whole between statements, so a poisoned lock does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One after the other.
fn later(again: &mut Instant, now: Instant) -> Instant {
    *again = (*again + APART).max(now + AGAIN);
    *again
}

impl State {
    fn standing(&self, service: &PushService) -> Standing {
        match (service, self.asked.peek(service)) {
            (PushService::Apns | PushService::Fcm, _) => Standing::Vendor,
            (PushService::Web(_), Some(None)) => Standing::Known,
            (PushService::Web(_), _) => Standing::Newcomer,
        }
    }
}

impl Line {
    fn new(standing: Standing, again: Instant) -> Self {
        let places = if standing == Standing::Vendor { VENDOR } else { HOST };
        Self { places: Arc::new(Semaphore::new(places)), length: 0, again }
    }
}

impl Turn {
    /// Waits for it.
    pub(super) async fn place(&self) -> Place {
        let own = async |count| Arc::clone(&self.own).acquire_many_owned(count).await.ok();
        let weight = if self.standing_now() == Standing::Newcomer { NEWCOMER } else { 1 };
        // The semaphores are never closed.
        let _own = own(weight).await;
        let shared = match self.standing_now() {
            Standing::Vendor => return Place { _own, _shared: None },
            Standing::Known => Arc::clone(&self.places.known),
            Standing::Newcomer => Arc::clone(&self.places.newcomers),
        };
        Place { _own, _shared: shared.acquire_owned().await.ok() }
    }

    /// It may be known by now, or no longer.
    fn standing_now(&self) -> Standing {
        self.places.lock().standing(&self.service)
    }

    /// The request has ended, well or not, after this time.
    pub(super) fn ended(&self, after: Duration, now: Instant) {
        let mut state = self.places.lock();
        let asked = state.asked.get_or_insert_mut(self.service.clone(), || None);
        if after > QUICK {
            *asked = Some(now);
        } else if asked.is_some_and(|slow| now.duration_since(slow) > PROBATION) {
            *asked = None;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.newcomers -= usize::from(self.standing == Standing::Newcomer);
        if let Some(line) = state.lines.get_mut(&self.service) {
            line.length -= 1;
            if line.length == 0 {
                state.lines.remove(&self.service);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn host(name: impl ToString) -> PushService {
        PushService::Web(name.to_string())
    }

    /// So many of its devices are to be woken: those that are let go, and how many found no room.
    fn crowd(
        places: &Arc<Places>,
        service: &PushService,
        count: usize,
    ) -> (Vec<(Turn, Place)>, usize) {
        let turns: Vec<_> = (0..count).map(|_| places.line_up(service.clone())).collect();
        let refused = turns.iter().filter(|turn| turn.is_err()).count();
        let on_their_way = turns.into_iter().flatten().filter_map(|turn| {
            let place = turn.place().now_or_never()?;
            Some((turn, place))
        });
        (on_their_way.collect(), refused)
    }

    fn answered(places: &Arc<Places>, service: &PushService, after: Duration) {
        let turn = places.line_up(service.clone()).unwrap_or_else(|_| panic!("no room"));
        turn.ended(after, Instant::now());
    }

    #[test]
    fn silent_host_keeps_nobody_waiting_but_its_own_devices() {
        let places = Arc::new(Places::default());
        let (silent, other) = (host("silent"), host("other"));
        for known in [&silent, &other] {
            answered(&places, known, Duration::ZERO);
        }
        let (held, refused) = crowd(&places, &silent, 10_000);
        assert_eq!((held.len(), refused), (HOST, 10_000 - LINE));
        assert_eq!(crowd(&places, &other, 3).0.len(), 3);
        for vendor in [PushService::Apns, PushService::Fcm] {
            assert_eq!(crowd(&places, &vendor, LINE).0.len(), VENDOR);
        }
        drop(held);
        assert!(places.lock().lines.is_empty());
    }

    #[test]
    fn many_names_that_lead_to_silence_leave_the_places_of_those_that_answer() {
        let places = Arc::new(Places::default());
        let known = host("known");
        answered(&places, &known, Duration::ZERO);
        let crowds = (0..1000).map(|name| crowd(&places, &host(name), 6));
        let held: Vec<_> = crowds.flat_map(|(held, _)| held).collect();
        assert_eq!(held.len(), NEWCOMERS);
        assert_eq!(crowd(&places, &known, HOST).0.len(), HOST);
        drop(held);
        assert_eq!(places.lock().newcomers, 0);
    }

    #[test]
    fn host_that_was_slow_is_a_newcomer_however_quick_it_is_next() {
        let places = Arc::new(Places::default());
        let dying = host("dying");
        answered(&places, &dying, Duration::ZERO);
        assert_eq!(places.lock().standing(&dying), Standing::Known);
        answered(&places, &dying, QUICK * 2);
        answered(&places, &dying, Duration::ZERO);
        assert_eq!(crowd(&places, &dying, LINE).0.len(), HOST / NEWCOMER as usize);
        let later = Instant::now() + PROBATION * 2;
        places.line_up(dying.clone()).unwrap_or_else(|_| panic!()).ended(Duration::ZERO, later);
        assert_eq!(places.lock().standing(&dying), Standing::Known);
    }

    #[test]
    fn those_that_find_no_room_come_again_one_after_the_other() {
        let places = Arc::new(Places::default());
        let vendor = PushService::Fcm;
        let line: Vec<_> = (0..LINE).map(|_| places.line_up(vendor.clone())).collect();
        let times: Vec<_> =
            (0..100).map(|_| places.line_up(vendor.clone()).err().unwrap()).collect();
        assert!(times.windows(2).all(|pair| pair[1] >= pair[0] + APART));
        assert!(times[0] > Instant::now() && line.iter().all(Result::is_ok));
    }
}
