//! The store in one SQLite file: WAL, `synchronous=FULL`, one writing thread, a few reading connections.
//!
//! `writer` commits, `readers` read; `accounts`, `devices`, `links`, `keys` and `mailbox` hold the statements of their tables.

mod accepted;
mod accounts;
mod backup;
mod devices;
mod keys;
mod links;
mod mailbox;
mod push;
mod readers;
mod reports;
mod schema;
mod walk;
mod writer;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use accepted::Accepted;
pub use backup::{BackupError, backup};
use readers::Readers;
pub use schema::OpenError;
use walk::Walk;
use writer::Writer;

use super::{
    AccountId, AccountRow, Answer, Append, AppendAnswer, Backlog, Claim, DeviceEntry, DeviceRow,
    Fetch, KeySet, KeyState, LinkAnswer, LinkRow, LinkState, Linking, Located, MailboxId,
    MailboxState, NodeId, OpeningLink, PushRow, PutKeys, ReadLimit, Recipient, RegisterAnswer,
    Registering, ReportAnswer, Reporting, Store, Taken,
};

/// About what a command without bodies writes, in bytes.
const SMALL: usize = 256;
/// Rows that one purge takes of each table.
const SLICE: i64 = 500;
/// Rows that it looks at where a walk goes through a table.
const WALK: i64 = 2000;

/// The store. Clones share it.
#[derive(Clone)]
pub struct SqliteStore {
    writer: Arc<Writer>,
    readers: Readers,
    accepted: Arc<Accepted>,
    walk: Arc<Walk>,
}

impl SqliteStore {
    /// Opens the file, makes it if it is not there, brings its schema up to date and starts the writing thread.
    ///
    /// # Errors
    /// The file cannot be opened, is no database, or was written by a newer server.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let db = schema::open(path)?;
        let readers = Readers::open(path)?;
        let accepted = Arc::new(Accepted::load(&db)?);
        let writer = Arc::new(Writer::start(db, mailbox::delete)?);
        Ok(Self { writer, readers, accepted, walk: Arc::default() })
    }
}

impl SqliteStore {
    /// The schema of a file, which is left as it is.
    ///
    /// # Errors
    /// The file cannot be read, is no database, or was written by a newer server.
    pub fn version(path: &Path) -> Result<u32, OpenError> {
        schema::version(path)
    }
}

impl Store for SqliteStore {
    fn register(&self, registering: Registering) -> Answer<'_, RegisterAnswer> {
        let weight = SMALL + keys::weight(&registering.keys);
        Box::pin(self.writer.call(weight, move |db| accounts::register(db, &registering)))
    }

    fn account(&self, account: AccountId) -> Answer<'_, Option<AccountRow>> {
        Box::pin(self.readers.read(move |db| accounts::account(db, account)))
    }

    fn account_of_name(&self, username: String) -> Answer<'_, Option<AccountId>> {
        Box::pin(self.readers.read(move |db| accounts::account_of_name(db, &username)))
    }

    fn device(&self, account: AccountId, device: u8) -> Answer<'_, Option<DeviceRow>> {
        Box::pin(self.readers.read(move |db| accounts::device(db, account, device)))
    }

    fn open_link(&self, opening: OpeningLink) -> Answer<'_, bool> {
        Box::pin(self.writer.call(SMALL, move |db| links::open(db, &opening)))
    }

    fn link_of_token(&self, token_hash: [u8; 32], now_ms: i64) -> Answer<'_, Option<LinkRow>> {
        Box::pin(self.readers.read(move |db| links::of_token(db, &token_hash, now_ms)))
    }

    fn link(&self, id: [u8; 16], now_ms: i64) -> Answer<'_, Option<LinkState>> {
        Box::pin(self.readers.read(move |db| links::state(db, &id, now_ms)))
    }

    fn link_device(&self, linking: Linking) -> Answer<'_, LinkAnswer> {
        let weight = SMALL + keys::weight(&linking.keys);
        Box::pin(self.writer.call(weight, move |db| links::link(db, &linking)))
    }

    fn devices(&self, account_row: i64) -> Answer<'_, Vec<DeviceEntry>> {
        Box::pin(self.readers.read(move |db| devices::list(db, account_row)))
    }

    fn name_device(&self, account_row: i64, device: u8, name: Bytes) -> Answer<'_, bool> {
        let write = move |db: &_| devices::name(db, account_row, device, &name);
        Box::pin(self.writer.call(SMALL, write))
    }

    fn remove_device(&self, account_row: i64, device: u8) -> Answer<'_, Option<MailboxId>> {
        Box::pin(self.writer.call(SMALL, move |db| devices::remove(db, account_row, device)))
    }

    fn purge_links(&self, now_ms: i64) -> Answer<'_, u64> {
        Box::pin(self.writer.call(SMALL, move |db| links::purge(db, now_ms)))
    }

    fn put_keys(&self, mailbox: MailboxId, keys: KeySet) -> Answer<'_, PutKeys> {
        Box::pin(self.writer.call(keys::weight(&keys), move |db| keys::put(db, mailbox, &keys)))
    }

    fn key_state(&self, mailbox: MailboxId) -> Answer<'_, Option<KeyState>> {
        Box::pin(self.readers.read(move |db| keys::state(db, mailbox)))
    }

    fn take(&self, fetch: Fetch) -> Answer<'_, Taken> {
        Box::pin(self.writer.call(SMALL, move |db| keys::take(db, &fetch)))
    }

    fn purge_answers(&self, before_ms: i64) -> Answer<'_, u64> {
        Box::pin(self.writer.call(SMALL, move |db| keys::purge_answers(db, before_ms)))
    }

    fn append(&self, append: Append) -> Answer<'_, Vec<AppendAnswer>> {
        let messages = append.recipients.iter().flat_map(|recipient| &recipient.messages);
        let weight: usize = messages.map(|message| message.content.len() + SMALL).sum();
        let weight = weight + append.shared.len();
        let accepted = Arc::clone(&self.accepted);
        Box::pin(self.writer.call(weight, move |db| mailbox::append(db, &accepted, &append)))
    }

    fn locate(&self, recipients: Vec<Recipient>) -> Answer<'_, Vec<Located>> {
        Box::pin(self.readers.read(move |db| mailbox::locate(db, &recipients)))
    }

    fn read_after(
        &self,
        mailbox: MailboxId,
        cursor: i64,
        limit: ReadLimit,
        now_ms: i64,
    ) -> Answer<'_, Backlog> {
        let read = move |db: &_| mailbox::read_after(db, mailbox, cursor, limit, now_ms);
        Box::pin(self.readers.read(read))
    }

    fn delete(&self, mailbox: MailboxId, seqs: Vec<i64>) {
        self.writer.delete(mailbox, seqs);
    }

    fn settle(&self) -> Answer<'_, ()> {
        Box::pin(self.writer.call(0, |_| Ok(())))
    }

    fn told_dropped(&self, mailbox: MailboxId, count: u64) -> Answer<'_, ()> {
        Box::pin(self.writer.call(SMALL, move |db| mailbox::told_dropped(db, mailbox, count)))
    }

    fn purge(&self, now_ms: i64, submissions_before_ms: i64) -> Answer<'_, u64> {
        let (accepted, walk) = (Arc::clone(&self.accepted), Arc::clone(&self.walk));
        let purge = move |db: &_| {
            let expired = mailbox::purge(db, &walk, now_ms)?;
            Ok(expired + accepted.forget(db, submissions_before_ms, SLICE)? as u64)
        };
        Box::pin(self.writer.call(SMALL, purge))
    }

    /// The latest connection of this process has the mailbox: its bus sees to that.
    fn claim(&self, _mailbox: MailboxId, _node: NodeId) -> Answer<'_, Option<Claim>> {
        Box::pin(std::future::ready(Ok(Some(Claim { epoch: 0, displaced: None }))))
    }

    fn release(&self, _mailbox: MailboxId, _epoch: i64) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn put_push(&self, mailbox: MailboxId, registration: Option<Bytes>) -> Answer<'_, ()> {
        Box::pin(self.writer.call(SMALL, move |db| push::put(db, mailbox, registration.as_ref())))
    }

    fn end_push(&self, mailbox: MailboxId, registration: Bytes) -> Answer<'_, ()> {
        Box::pin(self.writer.call(SMALL, move |db| push::end(db, mailbox, &registration)))
    }

    fn to_push(&self, mailboxes: Vec<MailboxId>, now_ms: i64) -> Answer<'_, Vec<PushRow>> {
        Box::pin(self.readers.read(move |db| push::due(db, &mailboxes, now_ms)))
    }

    fn report(&self, reporting: Reporting) -> Answer<'_, ReportAnswer> {
        Box::pin(self.writer.call(SMALL, move |db| reports::count(db, &reporting)))
    }

    fn purge_reports(&self, today: i64, counted_before: i64) -> Answer<'_, u64> {
        Box::pin(self.writer.call(SMALL, move |db| reports::purge(db, today, counted_before)))
    }

    fn states(&self, mailboxes: Vec<MailboxId>) -> Answer<'_, Vec<MailboxState>> {
        Box::pin(self.readers.read(move |db| mailbox::states(db, &mailboxes)))
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(self.readers.read(|db| db.query_row("SELECT 1", [], |_| Ok(()))))
    }

    fn close(&self) -> Answer<'_, ()> {
        let (writer, readers) = (Arc::clone(&self.writer), self.readers.clone());
        Box::pin(async move {
            readers.close();
            let stopping = tokio::task::spawn_blocking(move || writer.stop());
            stopping.await.map_err(|_| super::StoreError::Stopping)
        })
    }
}
