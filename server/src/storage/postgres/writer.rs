//! Group commit: the submissions that are waiting, up to a bound, go into one transaction, and are answered after its
//! commit. While one commit waits for the disk, the next batch gathers. There is no timer but when many have just been
//! answered: they are waited for, a moment, since a commit costs the same whatever its size.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::TaskTracker;

use super::append::{self, Appended};
use super::connections::{Attempts, Connections, repeat};
use super::mailbox;
use super::partitions::{Partitions, is_missing};
use super::place::is_changed;
use super::recipients::Accounts;
use crate::metrics;
use crate::storage::{Append, AppendAnswer, MailboxId, StoreError};

/// Writing tasks. One commits while the other gathers; both commit at the same time only when there is much to write:
/// a batch costs the same whatever its size, and small ones beside each other are twice the work.
const WRITERS: usize = 2;
/// Submissions that are much.
const MUCH: usize = 128;
/// Submissions in one commit.
const BATCH: usize = 256;
/// Bytes of bodies in one commit.
const BATCH_BYTES: usize = 1024 * 1024;
/// Submissions that are about to come and are worth waiting for.
const MANY: usize = 8;
/// How long a batch waits for them.
const PAUSE: Duration = Duration::from_millis(1);
/// Submissions that may wait.
const QUEUE: usize = 4096;
/// How long acknowledged envelopes may wait for others to go along with.
const DELETE_DELAY: Duration = Duration::from_millis(20);
/// Acknowledged envelopes that may wait. Those that find no room are delivered and acknowledged again.
const DELETES: usize = 500_000;
/// After so long those are tried again that PostgreSQL refused to delete.
const DELETE_AGAIN: Duration = Duration::from_secs(20);
/// Of these, in one transaction: it holds the mailboxes' locks for some ten milliseconds.
const DELETE_SLICE: usize = 4000;

type Answers = Result<Vec<AppendAnswer>, StoreError>;

struct Job {
    append: Append,
    answer: oneshot::Sender<Answers>,
}

/// The queue before the writing tasks, and what is to be deleted.
pub(super) struct Writer {
    /// None once the store is closed.
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    jobs: Arc<Jobs>,
    deletes: Arc<Deletes>,
    tasks: TaskTracker,
}

impl Writer {
    pub(super) fn start(db: &Connections, accounts: Arc<Accounts>) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let jobs = Arc::new(Jobs::new(jobs));
        let tasks = TaskTracker::new();
        let database =
            Arc::new(Database { db: db.clone(), partitions: Partitions::default(), accounts });
        for _ in 0..WRITERS {
            tasks.spawn(write(Arc::clone(&database), Arc::clone(&jobs)));
        }
        let deletes = Arc::new(Deletes::new(db.clone()));
        let deleting = Arc::clone(&deletes);
        tasks.spawn(async move { deleting.run().await });
        Self { queue: Mutex::new(Some(queue)), jobs, deletes, tasks }
    }

    pub(super) async fn append(&self, append: Append) -> Answers {
        let (answer, answers) = oneshot::channel();
        let queue = lock(&self.queue).clone().ok_or(StoreError::Stopping)?;
        let _open = self.jobs.open();
        queue.try_send(Job { append, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Stopping,
        })?;
        drop(queue);
        answers.await.unwrap_or(Err(StoreError::Stopping))
    }

    pub(super) fn delete(&self, mailbox: MailboxId, seqs: Vec<i64>) {
        self.deletes.add(mailbox, seqs);
    }

    pub(super) async fn settle(&self) -> Result<(), StoreError> {
        self.deletes.carry_out().await
    }

    /// Commits what is waiting and ends the tasks.
    pub(super) async fn stop(&self) {
        lock(&self.queue).take();
        self.deletes.stop();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn write(database: Arc<Database>, jobs: Arc<Jobs>) {
    while let Some(Batch { jobs: batch, turn: _turn, .. }) = jobs.gather().await {
        let (appends, waiting): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|job| (job.append, job.answer)).unzip();
        let begun = Instant::now();
        match database.commit(&appends).await {
            Ok(answers) => {
                metrics::committed(answers.len(), begun.elapsed());
                jobs.stored();
                for (waiting, answers) in waiting.into_iter().zip(answers) {
                    // The caller may have gone away: the write stands.
                    let _ = waiting.send(Ok(answers));
                }
            }
            Err(error) => {
                metrics::STORE_FAILED.add(1);
                tracing::error!(error = &error as &dyn std::error::Error, "a transaction failed");
                for waiting in waiting {
                    let _ = waiting.send(Err(StoreError::NotCommitted));
                }
            }
        }
    }
}

/// What waits to be written.
struct Jobs {
    queue: AsyncMutex<mpsc::Receiver<Job>>,
    /// Of a batch that is not much: it waits for the one before, and grows meanwhile.
    turn: Arc<Semaphore>,
    /// Submissions without an answer yet.
    open: AtomicUsize,
    /// So many were open when the last batch was done. Those who hand in one after the other come again at once.
    expected: AtomicUsize,
}

impl Jobs {
    fn new(queue: mpsc::Receiver<Job>) -> Self {
        Self {
            queue: AsyncMutex::new(queue),
            turn: Arc::new(Semaphore::new(1)),
            open: AtomicUsize::new(0),
            expected: AtomicUsize::new(0),
        }
    }

    /// One more is open, as long as the answer is held.
    fn open(&self) -> Open<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(&self.open)
    }

    /// A batch is stored, and its answers are about to go out.
    fn stored(&self) {
        self.expected.store(self.open.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Waits for the first job and for the turn, and takes what is there by then. None when the queue is closed and empty.
    async fn gather(&self) -> Option<Batch> {
        let mut queue = self.queue.lock().await;
        let mut batch = Batch::default();
        batch.add(queue.recv().await?);
        while batch.has_room() {
            let job = match queue.try_recv() {
                Ok(job) => Some(job),
                Err(_) if batch.turn.is_some() || batch.jobs.len() >= MUCH => break,
                Err(_) => tokio::select! {
                    biased;
                    // The semaphore is never closed.
                    permit = Arc::clone(&self.turn).acquire_owned() => {
                        batch.turn = permit.ok();
                        continue;
                    }
                    job = queue.recv() => job,
                },
            };
            let Some(job) = job else { break };
            batch.add(job);
        }
        let expected = self.expected.load(Ordering::Relaxed).min(MUCH);
        if expected >= MANY && batch.jobs.len() < expected {
            // Whether all came or the time is over: it goes.
            let _ = timeout(PAUSE, batch.fill(&mut queue, expected)).await;
        }
        Some(batch)
    }
}

/// One of those that are open.
struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What goes into one commit.
#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    bytes: usize,
    turn: Option<OwnedSemaphorePermit>,
}

impl Batch {
    fn add(&mut self, job: Job) {
        self.bytes += weigh(&job);
        self.jobs.push(job);
    }

    fn has_room(&self) -> bool {
        self.jobs.len() < BATCH && self.bytes < BATCH_BYTES
    }

    /// Until it has so many, or the queue is closed. Nothing is lost when it is cancelled.
    async fn fill(&mut self, queue: &mut mpsc::Receiver<Job>, count: usize) {
        while self.jobs.len() < count
            && self.has_room()
            && let Some(job) = queue.recv().await
        {
            self.add(job);
        }
    }
}

fn weigh(job: &Job) -> usize {
    let messages = job.append.recipients.iter().flat_map(|to| &to.messages);
    messages.map(|message| message.content.len()).sum::<usize>() + job.append.shared.len()
}

/// Where batches go, and what the writing tasks remember of it.
struct Database {
    db: Connections,
    partitions: Partitions,
    accounts: Arc<Accounts>,
}

impl Database {
    async fn commit(&self, batch: &[Append]) -> Result<Vec<Vec<AppendAnswer>>, StoreError> {
        let mut attempts = Attempts::default();
        loop {
            self.partitions.cover(&self.db, batch).await?;
            let append = async |db: &mut _| append::append(db, &self.accounts, batch).await;
            let done = self.db.run(append).await;
            if done.as_ref().is_err_and(is_missing) {
                self.partitions.forget();
            }
            if done.as_ref().is_err_and(is_changed) {
                self.accounts.forget(batch.iter().flat_map(|new| &new.recipients));
            }
            if !attempts.again(&done) {
                let Appended { mut answers, over } = done?;
                append::keep_quotas(&self.db, &over, &mut answers).await;
                return Ok(answers);
            }
        }
    }
}

/// Acknowledged envelopes, deleted together a little later.
struct Deletes {
    db: Connections,
    waiting: Mutex<Waiting>,
    /// Held while some are being deleted.
    deleting: AsyncMutex<()>,
    added: Notify,
    stopped: Notify,
}

#[derive(Default)]
struct Waiting {
    next: BTreeSet<(MailboxId, i64)>,
    /// PostgreSQL has refused to delete these. Trying at once again would keep the others.
    put_off: BTreeSet<(MailboxId, i64)>,
}

impl Waiting {
    /// As many as there is room for.
    fn add(&mut self, places: impl IntoIterator<Item = (MailboxId, i64)>) {
        let room = DELETES.saturating_sub(self.next.len() + self.put_off.len());
        self.next.extend(places.into_iter().take(room));
    }

    /// The next slice after this place.
    fn take(&mut self, after: Bound<(MailboxId, i64)>) -> Option<Vec<(MailboxId, i64)>> {
        let slice = self.next.range((after, Bound::Unbounded)).take(DELETE_SLICE);
        let slice: Vec<(MailboxId, i64)> = slice.copied().collect();
        for place in &slice {
            self.next.remove(place);
        }
        (!slice.is_empty()).then_some(slice)
    }
}

impl Deletes {
    fn new(db: Connections) -> Self {
        Self {
            db,
            waiting: Mutex::default(),
            deleting: AsyncMutex::default(),
            added: Notify::new(),
            stopped: Notify::new(),
        }
    }

    fn add(&self, mailbox: MailboxId, seqs: Vec<i64>) {
        lock(&self.waiting).add(seqs.into_iter().map(|seq| (mailbox, seq)));
        self.added.notify_one();
    }

    fn stop(&self) {
        self.stopped.notify_one();
    }

    async fn run(&self) {
        let mut again = interval(DELETE_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                () = self.added.notified() => {
                    tokio::time::sleep(DELETE_DELAY).await;
                    false
                }
                _ = again.tick() => {
                    self.take_up();
                    false
                }
                () = self.stopped.notified() => {
                    self.take_up();
                    true
                }
            };
            if let Err(error) = self.carry_out().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "acknowledged envelopes");
            }
            if last {
                return;
            }
        }
    }

    /// What was put off has its turn again.
    fn take_up(&self) {
        let mut waiting = lock(&self.waiting);
        let put_off = std::mem::take(&mut waiting.put_off);
        waiting.next.extend(put_off);
    }

    /// Deletes what is waiting, after what is being deleted. A slice that PostgreSQL refuses is put off: nobody waits for it, and
    /// the rest has its turn.
    async fn carry_out(&self) -> Result<(), StoreError> {
        let _deleting = self.deleting.lock().await;
        let mut after = Bound::Unbounded;
        while let Some(slice) = self.take(after) {
            after = slice.last().map_or(after, |last| Bound::Excluded(*last));
            let delete = repeat(|| self.db.run(async |db| mailbox::delete(db, &slice).await));
            match delete.await {
                Ok(()) => {}
                Err(StoreError::Postgres(error)) if is_refused(&error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "acknowledged envelopes are deleted later");
                    lock(&self.waiting).put_off.extend(slice);
                }
                Err(error) => {
                    lock(&self.waiting).add(slice);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn take(&self, after: Bound<(MailboxId, i64)>) -> Option<Vec<(MailboxId, i64)>> {
        lock(&self.waiting).take(after)
    }
}

/// Whether PostgreSQL is there and does not do it.
fn is_refused(error: &tokio_postgres::Error) -> bool {
    // Class 57P: it goes down, or comes up.
    error.code().is_some_and(|code| !code.code().starts_with("57P"))
}

/// A poisoned lock guards a plain value that is whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
