//! What the server remembers, as one trait. Rules belong to `service`, SQL to the implementations.
//!
//! Every write is answered after it is durable. A write that returns an error has changed nothing.

mod attachments;
mod device_rows;
mod key_rows;
pub mod postgres;
mod read_only;
mod rows;
pub mod sqlite;

pub use attachments::{
    AttachmentBucket, AttachmentFolder, AttachmentName, AttachmentStore, BucketError, BucketUpload,
    Content, FileUpload, Pieces, Stored, Upload, Uploaded,
};
pub use device_rows::{DeviceEntry, LinkAnswer, LinkRow, LinkState, Linked, Linking, OpeningLink};
pub use key_rows::{
    Fetch, Keep, KemUse, KeyCollision, KeyKind, KeySet, KeyState, MakeAnswer, Pace, PreKeyRow,
    PutKeys, Taken, TakenDevice, Waiting,
};
pub use read_only::ReadOnly;
pub use rows::{
    AccountId, AccountRow, Append, AppendAnswer, Authority, Backlog, Claim, DeviceRow, Life,
    Located, Location, MailboxId, MailboxState, Mismatch, NewMessage, NodeId, Placed, PushRow,
    Quota, ReadLimit, Recipient, RegisterAnswer, Registering, ReportAnswer, Reporting,
    StoredEnvelope,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// An answer of the store that is not there yet.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Accounts, keys and mailboxes. One node may hold many handles; clones share one store.
pub trait Store: Send + Sync + 'static {
    /// Makes the account and the device, or renews them when name and identity key are those that are there.
    ///
    /// A registration with the keys of the one before keeps the prekeys as they are (it is a repetition);
    /// other keys replace all prekeys of the device. Either way the token is the new one, other devices stay, and links
    /// that are open end.
    fn register(&self, registering: Registering) -> Answer<'_, RegisterAnswer>;

    /// The account of a public id.
    fn account(&self, account: AccountId) -> Answer<'_, Option<AccountRow>>;

    /// The account id of a name.
    fn account_of_name(&self, username: String) -> Answer<'_, Option<AccountId>>;

    /// One device of an account.
    fn device(&self, account: AccountId, device: u8) -> Answer<'_, Option<DeviceRow>>;

    /// Opens a link in place of the account's one that is open. False if the device that asks is gone.
    fn open_link(&self, opening: OpeningLink) -> Answer<'_, bool>;

    /// The account of a linking token that has not expired, used or not.
    fn link_of_token(&self, token_hash: [u8; 32], now_ms: i64) -> Answer<'_, Option<LinkRow>>;

    /// How far a link is that has not expired.
    fn link(&self, id: [u8; 16], now_ms: i64) -> Answer<'_, Option<LinkState>>;

    /// Makes a further device with the lowest number from 2 that is free: its keys, its mailbox, and the link used, or
    /// nothing of it. The number of its mailbox was never one before.
    fn link_device(&self, linking: Linking) -> Answer<'_, LinkAnswer>;

    /// The devices of an account, in order.
    fn devices(&self, account_row: i64) -> Answer<'_, Vec<DeviceEntry>>;

    /// Names a device. False if there is none.
    fn name_device(&self, account_row: i64, device: u8, name: Bytes) -> Answer<'_, bool>;

    /// Takes a device away with all that it has: keys, mailbox and envelopes, registration for push; with it go the links
    /// of the account that are open and the answers kept about its devices. None if there is none.
    fn remove_device(&self, account_row: i64, device: u8) -> Answer<'_, Option<MailboxId>>;

    /// Forgets a slice of the links that have expired. Says how many: more may be left when it is not 0.
    fn purge_links(&self, now_ms: i64) -> Answer<'_, u64>;

    /// Adds prekeys to a device: all of them or none.
    fn put_keys(&self, mailbox: MailboxId, keys: KeySet) -> Answer<'_, PutKeys>;

    /// How many prekeys a device has left, and its fixed ones.
    fn key_state(&self, mailbox: MailboxId) -> Answer<'_, Option<KeyState>>;

    /// Takes one bundle for each wanted device of the account, all in one transaction: a one-time prekey is
    /// given out exactly once, lowest id first, as long as the device's budget lasts. A request whose answer was kept
    /// gets that.
    fn take(&self, fetch: Fetch) -> Answer<'_, Taken>;

    /// Forgets a slice of the answers that were kept before this time. Says how many: more may be left when it is not 0.
    fn purge_answers(&self, before_ms: i64) -> Answer<'_, u64>;

    /// Stores a submission: for each recipient all of its devices or nothing. Answers in the order of the recipients.
    fn append(&self, append: Append) -> Answer<'_, Vec<AppendAnswer>>;

    /// Where the devices are that a submission is for, under the same rules. Nothing is stored. Answers in the order of the
    /// recipients.
    fn locate(&self, recipients: Vec<Recipient>) -> Answer<'_, Vec<Located>>;

    /// The envelopes after `cursor` that have not expired at `now_ms`, oldest first, up to the limit.
    fn read_after(
        &self,
        mailbox: MailboxId,
        cursor: i64,
        limit: ReadLimit,
        now_ms: i64,
    ) -> Answer<'_, Backlog>;

    /// Forgets acknowledged envelopes, soon. A crash before that means that they are delivered again.
    fn delete(&self, mailbox: MailboxId, seqs: Vec<i64>);

    /// Waits until the deletions that were asked for before this call are carried out, but for those that the database refuses:
    /// these are tried again later.
    fn settle(&self) -> Answer<'_, ()>;

    /// The device knows of `count` dropped envelopes.
    fn told_dropped(&self, mailbox: MailboxId, count: u64) -> Answer<'_, ()>;

    /// Drops what has expired at `now_ms` (or later, but no later than a quarter of its life and an hour after that) and
    /// submissions accepted before `submissions_before_ms`, a bounded slice of each. Says how many rows went: more may be
    /// left when it is not 0.
    fn purge(&self, now_ms: i64, submissions_before_ms: i64) -> Answer<'_, u64>;

    /// A connection of this node takes the mailbox. Submissions that commit later are placed with that node;
    /// those that committed earlier are read. None if the mailbox is known to be gone.
    fn claim(&self, mailbox: MailboxId, node: NodeId) -> Answer<'_, Option<Claim>>;

    /// Gives the mailbox up, if no later connection has it.
    fn release(&self, mailbox: MailboxId, epoch: i64) -> Answer<'_, ()>;

    /// Where the device is woken, as it was registered, in place of what was there; none: nowhere. A device that is gone is
    /// woken nowhere.
    fn put_push(&self, mailbox: MailboxId, registration: Option<Bytes>) -> Answer<'_, ()>;

    /// The registration has ended; one that took its place stays.
    fn end_push(&self, mailbox: MailboxId, registration: Bytes) -> Answer<'_, ()>;

    /// Those of these mailboxes whose device is registered for push, and what waits in them at `now_ms`.
    fn to_push(&self, mailboxes: Vec<MailboxId>, now_ms: i64) -> Answer<'_, Vec<PushRow>>;

    /// Counts a report, if its token has not counted before.
    fn report(&self, reporting: Reporting) -> Answer<'_, ReportAnswer>;

    /// Forgets used report tokens that have expired by this day, and counts of days before the other, a bounded slice of
    /// each. Says how many rows went: more may be left when it is not 0.
    fn purge_reports(&self, today: i64, counted_before: i64) -> Answer<'_, u64>;

    /// How far these mailboxes have come. Unknown ones are left out.
    fn states(&self, mailboxes: Vec<MailboxId>) -> Answer<'_, Vec<MailboxState>>;

    /// Whether the store answers.
    fn check(&self) -> Answer<'_, ()>;

    /// Finishes what was accepted and closes. Later writes fail with [`StoreError::Stopping`].
    fn close(&self) -> Answer<'_, ()>;
}

/// Why the store did not do it. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// More writes are waiting than the queue holds.
    #[error("the write queue is full; try again shortly")]
    Busy,
    /// It is read alone.
    #[error(
        "the server takes nothing in now, its operator has switched it to reading alone; try again later"
    )]
    ReadOnly,
    /// The store is closing.
    #[error("the store is closing; try another node or wait for the restart")]
    Stopping,
    /// The database refused, the disk is full or broken.
    #[error("the database failed; check the disk of the data directory")]
    Database(#[from] rusqlite::Error),
    /// PostgreSQL refused or the connection broke.
    #[error("PostgreSQL failed; check its log and the connection to it")]
    Postgres(#[from] tokio_postgres::Error),
    /// PostgreSQL does not answer.
    #[error("PostgreSQL cannot be reached; check that it runs")]
    Unreachable(#[source] Box<deadpool_postgres::PoolError>),
    /// PostgreSQL does not answer on a connection that is open. Whether it has done what it was asked to is not known.
    #[error("PostgreSQL has not answered in time; check its host and what stands before it")]
    NoAnswer,
    /// The clocks of this node and of PostgreSQL differ by so many seconds.
    #[error(
        "the clock of this node differs from that of PostgreSQL by {0} seconds, so nothing is taken for expired; set the clocks right"
    )]
    Clocks(u64),
    /// A row does not hold what it should.
    #[error("the database is damaged; restore it from a backup")]
    Damaged,
    /// The transaction that this write was part of did not commit.
    #[error("the transaction did not commit; the log tells why")]
    NotCommitted,
    /// The statement that this reading was part of failed.
    #[error("the mailbox was not read; the log tells why")]
    NotRead,
}

impl From<deadpool_postgres::PoolError> for StoreError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => {
                Self::Busy
            }
            deadpool_postgres::PoolError::Closed => Self::Stopping,
            error => Self::Unreachable(Box::new(error)),
        }
    }
}
