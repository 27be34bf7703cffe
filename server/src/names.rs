//! Names of machines of others are looked up on threads of their own: the system's look-up blocks as long as a name server
//! keeps silent, and cannot be given up, and tokio's blocking threads are few and read the database. It stays the system's: a
//! resolver in the process would not go by all that the operator has set up for names (nsswitch).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Look-ups at the same time. A thread ends when no name waits.
const THREADS: usize = 8;
/// Names that wait for a thread.
const WAITING: usize = 128;
/// Whoever asks waits no longer.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 5_000 });
/// What was found last is good for so long when nothing else is found in time: who makes name servers keep silent holds all
/// threads, and those whose names are known go on.
const GOOD: Duration = Duration::from_secs(3600);
/// Names whose addresses are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

type LookUp = fn(&str) -> io::Result<Vec<SocketAddr>>;
type Found = Option<Vec<SocketAddr>>;

/// Looks names up.
#[derive(Clone)]
pub(crate) struct Names {
    state: Arc<Mutex<State>>,
    look_up: LookUp,
}

/// Why a name has no address now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    /// Name servers say so, or that they cannot say.
    #[error("the name was not found")]
    NotFound,
    /// Name servers keep silent.
    #[error("the name was not found in time")]
    Late,
    /// Too many names wait.
    #[error("too many names are looked up")]
    Busy,
}

struct State {
    threads: usize,
    waiting: VecDeque<String>,
    /// Who waits for each name that waits or is looked up: it is looked up once for all of them.
    asking: HashMap<String, Vec<oneshot::Sender<Found>>>,
    found: LruCache<String, (Instant, Vec<SocketAddr>)>,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }
}

impl Names {
    fn new(look_up: LookUp) -> Self {
        let state = State {
            threads: 0,
            waiting: VecDeque::new(),
            asking: HashMap::new(),
            found: LruCache::new(REMEMBERED),
        };
        Self { state: Arc::new(Mutex::new(state)), look_up }
    }

    /// The addresses, with port 0.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Vec<SocketAddr>, NameError> {
        let error = match self.ask(name).map(|found| timeout(PATIENCE, found)) {
            Some(found) => match found.await {
                Ok(Ok(Some(addresses))) => return Ok(addresses),
                Ok(_) => NameError::NotFound,
                Err(_) => NameError::Late,
            },
            None => NameError::Busy,
        };
        self.lock().before(name).ok_or(error)
    }

    /// None if too many names wait.
    fn ask(&self, name: &str) -> Option<oneshot::Receiver<Found>> {
        let (tell, found) = oneshot::channel();
        let mut state = self.lock();
        if let Some(asking) = state.asking.get_mut(name) {
            asking.retain(|one| !one.is_closed());
            asking.push(tell);
            return Some(found);
        }
        state.forget_given_up();
        if state.waiting.len() >= WAITING || !self.has_thread(&mut state) {
            return None;
        }
        state.waiting.push_back(name.into());
        state.asking.insert(name.into(), vec![tell]);
        Some(found)
    }

    /// One more, if there may be.
    fn has_thread(&self, state: &mut State) -> bool {
        if state.threads < THREADS {
            let names = self.clone();
            let thread = std::thread::Builder::new().name("names".into());
            state.threads += usize::from(thread.spawn(move || names.work()).is_ok());
        }
        state.threads > 0
    }

    /// Until no name waits.
    fn work(&self) {
        while let Some(name) = self.next() {
            let found = (self.look_up)(&name).ok();
            let mut state = self.lock();
            if let Some(found) = &found {
                state.found.put(name.clone(), (Instant::now(), found.clone()));
            }
            for one in state.asking.remove(&name).unwrap_or_default() {
                // Nobody may be waiting any more.
                let _ = one.send(found.clone());
            }
        }
    }

    fn next(&self) -> Option<String> {
        let mut state = self.lock();
        state.forget_given_up();
        let name = state.waiting.pop_front();
        state.threads -= usize::from(name.is_none());
        name
    }

    /// The state is whole between statements, so a poisoned lock does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Names for which nobody waits any more.
    fn forget_given_up(&mut self) {
        let Self { waiting, asking, .. } = self;
        waiting.retain(|name| {
            let waited = asking.get(name).is_some_and(|all| all.iter().any(|one| !one.is_closed()));
            if !waited {
                asking.remove(name);
            }
            waited
        });
    }

    /// What was found not long ago.
    fn before(&mut self, name: &str) -> Option<Vec<SocketAddr>> {
        let (at, addresses) = self.found.get(name)?;
        (at.elapsed() < GOOD).then(|| addresses.clone())
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let addresses = names.addresses(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    /// Under this domain name servers keep silent.
    const SILENT: &str = ".silent.example";

    fn silence() -> ! {
        loop {
            std::thread::park();
        }
    }

    fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
        match name {
            "known.example" => Ok(vec![([9, 9, 9, 9], 0).into()]),
            name if name.ends_with(SILENT) => silence(),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    #[test]
    fn silent_name_servers_stop_no_work_of_the_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let names = Names::new(look_up);
        runtime.block_on(async {
            let known = names.addresses("known.example").await;
            assert_eq!(known, Ok(vec![([9, 9, 9, 9], 0).into()]));
            assert_eq!(names.addresses("no.example").await, Err(NameError::NotFound));
            let silent: Vec<String> =
                (0..THREADS + WAITING + 1).map(|n| format!("{n}{SILENT}")).collect();
            let late = join_all(silent.iter().map(|name| names.addresses(name)));
            let reading = tokio::task::spawn_blocking(|| "read");
            let (late, read) = tokio::join!(late, reading);
            assert_eq!(read.unwrap(), "read");
            assert!(
                late.iter().all(|answer| matches!(answer, Err(NameError::Late | NameError::Busy)))
            );
            // All threads are held, and what was found before is still good.
            assert_eq!(names.lock().threads, THREADS);
            assert_eq!(names.addresses("known.example").await, known);
            assert_eq!(names.addresses("other.example").await, Err(NameError::Late));
        });
    }

    #[tokio::test]
    async fn name_is_looked_up_once_for_all_who_ask_and_a_thread_ends_when_nobody_does() {
        static LOOK_UPS: AtomicUsize = AtomicUsize::new(0);
        let names = Names::new(|_| {
            LOOK_UPS.fetch_add(1, Ordering::SeqCst);
            silence()
        });
        let answers = join_all((0..20).map(|_| names.addresses("a.silent.example"))).await;
        assert!(answers.iter().all(|answer| *answer == Err(NameError::Late)));
        assert_eq!((LOOK_UPS.load(Ordering::SeqCst), names.lock().threads), (1, 1));
        let names = Names::new(look_up);
        for _ in 0..3 {
            names.addresses("known.example").await.unwrap();
        }
        let ended = async {
            while names.lock().threads > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), ended).await.expect("a thread stays");
    }
}
