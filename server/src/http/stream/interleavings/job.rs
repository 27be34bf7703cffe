//! A task that is driven by hand: it goes on when the search says so, up to its next call of the store.

use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::digest;
use super::steps::Step;
use super::store::{Mailboxes, Task};

pub(super) struct Job<T> {
    task: Task,
    future: Pin<Box<dyn Future<Output = T>>>,
    /// Where it began and what it was answered since: two that agree go on alike.
    history: u64,
    woken: Arc<Woken>,
}

/// Whether one that waits for something else than the store may go on.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<T> Job<T> {
    pub(super) fn new(
        task: Task,
        beginning: impl Hash,
        future: impl Future<Output = T> + 'static,
    ) -> Self {
        let (future, woken) = (Box::pin(future), Arc::default());
        Self { task, future, history: digest(&beginning), woken }
    }

    /// It need not wait for anything.
    pub(super) fn woken(self) -> Self {
        self.woken.0.store(true, Ordering::Relaxed);
        self
    }

    /// Up to its next call or its end.
    pub(super) fn go_on(&mut self, store: &Mailboxes) -> Poll<T> {
        self.history = digest(&(self.history, store.answered(self.task)));
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.woken));
        store.run(self.task, || self.future.as_mut().poll(&mut Context::from_waker(&waker)))
    }

    /// What it does next. None while it waits for another task.
    pub(super) fn next(&self, store: &Mailboxes) -> Option<Step> {
        if store.is_asked(self.task) {
            return Some(Step::Commit(self.task));
        }
        let may_go_on = store.answered(self.task).is_some() || self.is_woken();
        may_go_on.then_some(Step::Resume(self.task))
    }

    pub(super) fn state(&self) -> (u64, bool) {
        (self.history, self.is_woken())
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Relaxed)
    }
}
