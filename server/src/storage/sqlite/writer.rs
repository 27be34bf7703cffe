//! The one writing thread: it takes what is waiting, up to a bound, into one transaction, commits, and only then
//! answers. No timer: while one commit waits for the disk, the next batch gathers. No SQL of the rows here.

use std::collections::BTreeSet;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::metrics;
use crate::storage::{MailboxId, StoreError};

/// Commands in one commit.
const BATCH_COMMANDS: usize = 256;
/// Bytes of bodies in one commit.
const BATCH_BYTES: usize = 1024 * 1024;
/// Commands that may wait.
const QUEUE: usize = 4096;
/// How long acknowledged envelopes may wait for another write to go along with.
const DELETE_DELAY: Duration = Duration::from_millis(20);
/// Acknowledged envelopes that may wait, and then go in one transaction. Those that find no room are delivered and acknowledged
/// again.
const DELETES: usize = 20_000;

/// Acknowledged envelopes.
type Deletes = BTreeSet<(MailboxId, i64)>;

/// The queue before the writing thread.
pub(super) struct Writer {
    queue: SyncSender<Entry>,
    deletes: Arc<Mutex<Deletes>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Entry {
    Command(Box<dyn Command>),
    /// Acknowledged envelopes are waiting.
    Deletes,
    Stop,
}

/// A write and the one who waits for its answer.
trait Command: Send {
    fn weight(&self) -> usize;
    fn execute(&mut self, db: &Connection) -> Result<(), ()>;
    fn answer(self: Box<Self>, commit: Commit);
}

#[derive(Clone, Copy)]
enum Commit {
    Done,
    Failed,
}

struct Call<F, T> {
    weight: usize,
    work: F,
    result: Result<T, StoreError>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Command for Call<F, T>
where
    F: FnMut(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn weight(&self) -> usize {
        self.weight
    }

    fn execute(&mut self, db: &Connection) -> Result<(), ()> {
        self.result = (self.work)(db).map_err(StoreError::Database);
        self.result.as_ref().map(drop).map_err(drop)
    }

    fn answer(self: Box<Self>, commit: Commit) {
        let result = match (commit, self.result) {
            (Commit::Failed, Ok(_)) => Err(StoreError::NotCommitted),
            (_, result) => result,
        };
        // The caller may have gone away: the write stands.
        let _ = self.answer.send(result);
    }
}

impl Writer {
    /// Starts the thread. `delete` removes one mailbox's acknowledged envelopes.
    pub(super) fn start(
        db: Connection,
        delete: fn(&Connection, MailboxId, &[i64]) -> rusqlite::Result<()>,
    ) -> std::io::Result<Self> {
        let (queue, entries) = sync_channel(QUEUE);
        let deletes = Arc::default();
        let writing = Writing { db, entries, deletes: Arc::clone(&deletes), delete };
        let thread =
            std::thread::Builder::new().name("store-writer".into()).spawn(move || writing.run())?;
        Ok(Self { queue, deletes, thread: Mutex::new(Some(thread)) })
    }

    /// Runs `work` in the next transaction and answers after its commit. When something of the transaction fails
    /// `work` runs a second time, from the same state, and an error of its own leaves nothing behind.
    pub(super) async fn call<T, F>(&self, weight: usize, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let call = Call { weight, work, result: Err(StoreError::NotCommitted), answer };
        self.queue.try_send(Entry::Command(Box::new(call))).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Stopping,
        })?;
        result.await.unwrap_or(Err(StoreError::Stopping))
    }

    /// Notes acknowledged envelopes for one of the next transactions.
    pub(super) fn delete(&self, mailbox: MailboxId, seqs: Vec<i64>) {
        let first = {
            let mut deletes = lock(&self.deletes);
            let first = deletes.is_empty();
            put(&mut deletes, seqs.into_iter().map(|seq| (mailbox, seq)));
            first
        };
        if first {
            // A full queue is as good: its commands take the deletions along.
            let _ = self.queue.try_send(Entry::Deletes);
        }
    }

    /// Commits what is waiting and ends the thread. Blocks; the second call does nothing.
    pub(super) fn stop(&self) {
        let Some(thread) = lock(&self.thread).take() else { return };
        // Waits for a place if the queue is full. An error means that the thread has ended already.
        let _ = self.queue.send(Entry::Stop);
        if thread.join().is_err() {
            tracing::error!("the writing thread ended by a panic");
        }
    }
}

struct Writing {
    db: Connection,
    entries: Receiver<Entry>,
    deletes: Arc<Mutex<Deletes>>,
    delete: fn(&Connection, MailboxId, &[i64]) -> rusqlite::Result<()>,
}

enum Next {
    Go,
    Stop,
}

impl Writing {
    fn run(self) {
        loop {
            let mut batch = Vec::new();
            let next = self.gather(&mut batch);
            if !batch.is_empty() || !lock(&self.deletes).is_empty() {
                self.write(batch);
            }
            if matches!(next, Next::Stop) {
                break;
            }
        }
        if let Err(error) = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "last checkpoint");
        }
    }

    /// Waits for the first command, then takes what else is there.
    fn gather(&self, batch: &mut Vec<Box<dyn Command>>) -> Next {
        let mut weight = 0;
        let mut deadline = None;
        while batch.len() < BATCH_COMMANDS && weight < BATCH_BYTES {
            let entry = if batch.is_empty() {
                self.first(deadline)
            } else {
                self.entries.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            };
            match entry {
                Ok(Entry::Command(command)) => {
                    weight += command.weight();
                    batch.push(command);
                }
                Ok(Entry::Deletes) => deadline = deadline.or(Some(Instant::now() + DELETE_DELAY)),
                Ok(Entry::Stop) | Err(RecvTimeoutError::Disconnected) => return Next::Stop,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        Next::Go
    }

    /// Waits for the first command of a batch.
    fn first(&self, deadline: Option<Instant>) -> Result<Entry, RecvTimeoutError> {
        match deadline {
            None => self.entries.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => {
                self.entries.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
        }
    }

    fn write(&self, mut batch: Vec<Box<dyn Command>>) {
        let deletes = std::mem::take(&mut *lock(&self.deletes));
        let begun = Instant::now();
        let commit = match self.transaction(&mut batch, &deletes) {
            Ok(()) => {
                metrics::committed(batch.len(), begun.elapsed());
                Commit::Done
            }
            Err(error) => {
                metrics::STORE_FAILED.add(1);
                tracing::error!(%error, commands = batch.len(), "a transaction failed");
                self.abandon(deletes);
                Commit::Failed
            }
        };
        for command in batch {
            command.answer(commit);
        }
    }

    fn transaction(
        &self,
        batch: &mut [Box<dyn Command>],
        deletes: &Deletes,
    ) -> rusqlite::Result<()> {
        self.execute("BEGIN IMMEDIATE")?;
        if batch.iter_mut().any(|command| command.execute(&self.db).is_err()) {
            // Hardly ever: all of them once more, so that the failing ones leave nothing behind.
            self.rollback()?;
            self.execute("BEGIN IMMEDIATE")?;
            self.execute_apart(batch)?;
        }
        let places: Vec<(MailboxId, i64)> = deletes.iter().copied().collect();
        for own in places.chunk_by(|place, next| place.0 == next.0) {
            let Some((mailbox, _)) = own.first() else { continue };
            let seqs: Vec<i64> = own.iter().map(|(_, seq)| *seq).collect();
            (self.delete)(&self.db, *mailbox, &seqs)?;
        }
        self.execute("COMMIT")
    }

    /// Each command in a savepoint of its own.
    fn execute_apart(&self, batch: &mut [Box<dyn Command>]) -> rusqlite::Result<()> {
        for command in batch {
            self.execute("SAVEPOINT command")?;
            if command.execute(&self.db).is_err() {
                self.execute("ROLLBACK TO command")?;
            }
            // Fails if the database gave up the whole transaction (disk full, I/O error).
            self.execute("RELEASE command")?;
        }
        Ok(())
    }

    /// The database may have ended the transaction itself.
    fn rollback(&self) -> rusqlite::Result<()> {
        if self.db.is_autocommit() { Ok(()) } else { self.execute("ROLLBACK") }
    }

    /// Nothing of the batch stays; the deletions are tried again with the next.
    fn abandon(&self, deletes: Deletes) {
        if let Err(error) = self.rollback() {
            tracing::error!(%error, "rollback");
        }
        put(&mut lock(&self.deletes), deletes);
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.db.prepare_cached(sql)?.execute([]).map(drop)
    }
}

/// As many as there is room for.
fn put(waiting: &mut Deletes, places: impl IntoIterator<Item = (MailboxId, i64)>) {
    let room = DELETES.saturating_sub(waiting.len());
    waiting.extend(places.into_iter().take(room));
}

/// A poisoned lock guards a plain set or handle that is whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(path: &std::path::Path) -> Writer {
        let db = Connection::open(path).unwrap();
        db.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT;")
            .unwrap();
        Writer::start(db, |_, _, _| Ok(())).unwrap()
    }

    #[tokio::test]
    async fn failing_command_does_not_hurt_the_others_of_its_batch() {
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(&folder.path().join("db"));
        let insert =
            |n: i64| writer.call(1, move |db| db.execute("INSERT INTO t VALUES (?1)", [n]));
        let twice = writer.call(1, |db| {
            db.execute("INSERT INTO t VALUES (7)", [])?;
            db.execute("INSERT INTO t VALUES (1)", [])
        });
        let (first, failing, last) = tokio::join!(insert(1), twice, insert(2));
        assert_eq!((first.unwrap(), last.unwrap()), (1, 1));
        assert!(matches!(failing, Err(StoreError::Database(_))));
        let rows = writer.call(1, |db| {
            db.query_row("SELECT group_concat(n) FROM t", [], |r| r.get::<_, String>(0))
        });
        assert_eq!(rows.await.unwrap(), "1,2");
    }

    #[tokio::test]
    async fn stopping_commits_what_was_taken_and_refuses_what_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Arc::new(writer(&folder.path().join("db")));
        let calls: Vec<_> = (0..600)
            .map(|n| {
                let writer = Arc::clone(&writer);
                tokio::spawn(async move {
                    writer.call(1, move |db| db.execute("INSERT INTO t VALUES (?1)", [n])).await
                })
            })
            .collect();
        let mut stored = 0;
        for call in calls {
            stored += call.await.unwrap().unwrap();
        }
        let stopping = Arc::clone(&writer);
        tokio::task::spawn_blocking(move || stopping.stop()).await.unwrap();
        let late = writer.call(1, |db| db.execute("INSERT INTO t VALUES (9999)", [])).await;
        assert!(matches!(late, Err(StoreError::Stopping)));
        let db = Connection::open(folder.path().join("db")).unwrap();
        let count: i64 = db.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
        assert_eq!((stored, count), (600usize, 600i64));
    }

    #[tokio::test]
    async fn full_queue_refuses_at_once_and_works_again_when_it_has_drained() {
        use futures_util::FutureExt;
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(&folder.path().join("db"));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let blocking = writer.call(1, move |_| Ok(held.recv().is_ok()));
        let mut blocking = std::pin::pin!(blocking);
        assert!(blocking.as_mut().now_or_never().is_none());
        let mut sent = 0;
        let refused = loop {
            match writer.call(1, |_| Ok(())).now_or_never() {
                None => sent += 1,
                Some(answer) => break answer,
            }
        };
        assert!(matches!(refused, Err(StoreError::Busy)));
        assert!(sent <= QUEUE + BATCH_COMMANDS);
        release.send(()).unwrap();
        assert!(blocking.await.unwrap());
        writer.stop();
    }

    #[tokio::test]
    async fn full_disk_fails_what_does_not_fit_and_nothing_is_half_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let db = Connection::open(&path).unwrap();
        let schema =
            "PRAGMA journal_mode=WAL; CREATE TABLE t (n INTEGER PRIMARY KEY, body BLOB) STRICT;
                      PRAGMA max_page_count = 20;";
        db.execute_batch(schema).unwrap();
        let writer = Writer::start(db, |_, _, _| Ok(())).unwrap();
        let insert = |n: i64, size: i64| {
            let sql = "INSERT INTO t VALUES (?1, zeroblob(?2))";
            writer.call(1, move |db| db.execute(sql, [n, size]))
        };
        let (small, large, other) =
            tokio::join!(insert(1, 10), insert(2, 10_000_000), insert(3, 10));
        let later = insert(4, 10).await;
        assert!(large.is_err() && later.is_ok());
        let answered: Vec<i64> = [(1, small), (2, large), (3, other), (4, later)]
            .iter()
            .filter(|(_, a)| a.is_ok())
            .map(|(n, _)| *n)
            .collect();
        writer.stop();
        let db = Connection::open(&path).unwrap();
        let mut query = db.prepare("SELECT n FROM t ORDER BY n").unwrap();
        let stored: Vec<i64> =
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(stored, answered);
    }
}
