//! Answers kept for a short while, so that a repeated request gets the first answer and takes nothing again.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::OnceCell;

/// What identifies a request: a hash over the caller, the target and the request id.
pub(super) type RequestKey = [u8; 32];

/// The answers of the last while, at most so many.
pub(super) struct Replay {
    ttl: Duration,
    entries: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    answers: HashMap<RequestKey, Arc<OnceCell<Bytes>>>,
    order: VecDeque<(Instant, RequestKey)>,
}

impl Replay {
    pub(super) fn new(ttl: Duration, entries: usize) -> Self {
        Self { ttl, entries, kept: Mutex::default() }
    }

    /// The answer of this request, made by `first` if there is none yet. The same request at the same time waits
    /// for it. A failure is not kept.
    pub(super) async fn answer<E, F>(
        &self,
        key: RequestKey,
        first: impl FnOnce() -> F,
    ) -> Result<Bytes, E>
    where
        F: Future<Output = Result<Bytes, E>>,
    {
        self.cell(key).get_or_try_init(first).await.cloned()
    }

    fn cell(&self, key: RequestKey) -> Arc<OnceCell<Bytes>> {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.order.len() >= self.entries
            || kept.order.front().is_some_and(|(at, _)| now.duration_since(*at) >= self.ttl)
        {
            let Some((_, oldest)) = kept.order.pop_front() else { break };
            kept.answers.remove(&oldest);
        }
        if let Some(cell) = kept.answers.get(&key) {
            return Arc::clone(cell);
        }
        kept.order.push_back((now, key));
        Arc::clone(kept.answers.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    async fn ask(replay: &Replay, key: u8, made: &AtomicU32) -> Bytes {
        let first =
            || async { Ok::<_, ()>(Bytes::from(made.fetch_add(1, Ordering::SeqCst).to_string())) };
        replay.answer([key; 32], first).await.unwrap()
    }

    #[tokio::test]
    async fn repetition_gets_the_first_answer_and_memory_is_bounded() {
        let (replay, made) = (Replay::new(Duration::from_secs(60), 2), AtomicU32::new(0));
        assert_eq!(ask(&replay, 1, &made).await, "0");
        assert_eq!(ask(&replay, 1, &made).await, "0");
        assert_eq!(ask(&replay, 2, &made).await, "1");
        assert_eq!(ask(&replay, 3, &made).await, "2");
        assert_eq!(ask(&replay, 1, &made).await, "3");
        assert_eq!(replay.kept.lock().unwrap().answers.len(), 2);
    }

    #[tokio::test]
    async fn failure_is_not_kept() {
        let replay = Replay::new(Duration::from_secs(60), 2);
        assert_eq!(replay.answer([1; 32], || async { Err("no") }).await, Err("no"));
        assert_eq!(
            replay.answer([1; 32], || async { Ok::<_, ()>(Bytes::from("yes")) }).await,
            Ok(Bytes::from("yes"))
        );
    }
}
