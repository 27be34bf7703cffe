//! The connections of a node. Nothing that is asked of PostgreSQL is waited for without an end: a host that hangs, or a proxy
//! whose far side is gone, leaves connections open on which nothing comes back.

use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::storage::StoreError;

/// Somewhat longer than PostgreSQL lets a statement take. Transactions are short, or wait for one lock.
const DEADLINE: Duration = Duration::from_secs(18);
/// Attempts of a transaction that PostgreSQL gave up for another one's sake.
const ATTEMPTS: usize = 4;

/// Clones share them.
#[derive(Clone)]
pub(super) struct Connections(Pool);

impl Connections {
    pub(super) fn new(pool: Pool) -> Self {
        Self(pool)
    }

    /// Does it on one of them. Whether it was done is not known when the time is over: as where a connection broke.
    pub(super) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut db = self.0.get().await?;
        if let Ok(done) = timeout(DEADLINE, work(&mut db)).await {
            return done;
        }
        drop(Object::take(db));
        // The others may have gone the same way, and would be found out one after the other.
        self.0.retain(|_, _| false);
        Err(StoreError::NoAnswer)
    }

    pub(super) fn close(&self) {
        self.0.close();
    }
}

/// The same several times, if PostgreSQL gives it up for another one's sake.
pub(super) async fn repeat<T, F>(work: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut attempts = Attempts::default();
    loop {
        let done = work().await;
        if !attempts.again(&done) {
            return done;
        }
    }
}

/// PostgreSQL ends one of two transactions that wait for each other; it has done nothing and may come again.
#[derive(Default)]
pub(super) struct Attempts(usize);

impl Attempts {
    /// Whether it was given up for another one's sake and should be tried again.
    pub(super) fn again<T>(&mut self, done: &Result<T, StoreError>) -> bool {
        let Err(StoreError::Postgres(error)) = done else { return false };
        let given_up = [
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            // Another node took the partition away.
            SqlState::CHECK_VIOLATION,
            // Another node stored the same submission at the same time.
            SqlState::UNIQUE_VIOLATION,
            // A device registered again or went since it was looked up.
            SqlState::NOT_NULL_VIOLATION,
            SqlState::FOREIGN_KEY_VIOLATION,
        ];
        self.0 += 1;
        self.0 < ATTEMPTS && error.code().is_some_and(|code| given_up.contains(code))
    }
}
