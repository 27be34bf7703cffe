//! The store in PostgreSQL, for one node or many. Submissions are committed in groups; everything else is a short
//! transaction of its own. Any number of nodes may work on one database.
//!
//! `writer` and `reader` gather what comes at the same time; `accounts`, `append`, `devices`, `keys`, `links`, `mailbox`, `partitions`,
//! `place`, `presence`, `push` and `reports` hold the statements, `recipients` decides what a submission may.

mod accounts;
mod append;
mod devices;
mod keys;
mod links;
mod mailbox;
mod partitions;
mod place;
mod presence;
mod push;
mod reader;
mod recipients;
mod reports;
mod row;
mod schema;
mod writer;

use std::sync::Arc;

use bytes::Bytes;

use deadpool_postgres::Pool;

use reader::Reader;
use recipients::Accounts;
pub use schema::PostgresOpenError;
use writer::{Attempts, Writer};

use super::{
    AccountId, AccountRow, Answer, Append, AppendAnswer, Backlog, Claim, DeviceEntry, DeviceRow,
    Fetch, KeySet, KeyState, LinkAnswer, LinkRow, LinkState, Linking, Located, MailboxId,
    MailboxState, NodeId, OpeningLink, PushRow, PutKeys, ReadLimit, Recipient, RegisterAnswer,
    Registering, ReportAnswer, Reporting, Store, Taken,
};

/// The store. Clones share it.
#[derive(Clone)]
pub struct PostgresStore {
    pool: Pool,
    accounts: Arc<Accounts>,
    writer: Arc<Writer>,
    reader: Arc<Reader>,
}

impl PostgresStore {
    /// Connects, brings the schema up to date and starts the writing tasks on this runtime.
    ///
    /// # Errors
    /// Nobody answers, the user may not, or the database was written by a newer server.
    pub async fn open(setting: &str) -> Result<Self, PostgresOpenError> {
        let pool = schema::open(setting).await?;
        let accounts = Arc::new(Accounts::new());
        let writer = Arc::new(Writer::start(&pool, Arc::clone(&accounts)));
        let reader = Arc::new(Reader::start(&pool));
        Ok(Self { pool, accounts, writer, reader })
    }
}

impl PostgresStore {
    /// The schema of a database, which is left as it is (none if it is empty), and its clock in milliseconds.
    ///
    /// # Errors
    /// Nobody answers, the user may not, or the database was written by a newer server.
    pub async fn inspect(setting: &str) -> Result<(Option<i32>, i64), PostgresOpenError> {
        schema::inspect(setting).await
    }

    async fn purge_once(&self, now_ms: i64, before_ms: i64) -> Result<u64, super::StoreError> {
        let mut db = self.pool.get().await?;
        schema::count_rows(&db).await?;
        let gone = partitions::expire(&mut db, now_ms).await?;
        let forgotten = mailbox::forget(&db, before_ms).await?;
        Ok(gone.saturating_add(forgotten))
    }
}

impl Store for PostgresStore {
    fn register(&self, registering: Registering) -> Answer<'_, RegisterAnswer> {
        Box::pin(async move {
            let mut attempts = Attempts::default();
            loop {
                let mut db = self.pool.get().await?;
                let done = accounts::register(&mut db, &registering).await;
                if !attempts.again(&done) {
                    return done;
                }
            }
        })
    }

    fn account(&self, account: AccountId) -> Answer<'_, Option<AccountRow>> {
        Box::pin(async move { accounts::account(&self.pool.get().await?, account).await })
    }

    fn account_of_name(&self, username: String) -> Answer<'_, Option<AccountId>> {
        Box::pin(async move { accounts::account_of_name(&self.pool.get().await?, &username).await })
    }

    fn device(&self, account: AccountId, device: u8) -> Answer<'_, Option<DeviceRow>> {
        Box::pin(async move { accounts::device(&self.pool.get().await?, account, device).await })
    }

    fn open_link(&self, opening: OpeningLink) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut attempts = Attempts::default();
            loop {
                let mut db = self.pool.get().await?;
                let done = links::open(&mut db, &opening).await;
                if !attempts.again(&done) {
                    return done;
                }
            }
        })
    }

    fn link_of_token(&self, token_hash: [u8; 32], now_ms: i64) -> Answer<'_, Option<LinkRow>> {
        Box::pin(async move { links::of_token(&self.pool.get().await?, &token_hash, now_ms).await })
    }

    fn link(&self, id: [u8; 16], now_ms: i64) -> Answer<'_, Option<LinkState>> {
        Box::pin(async move { links::state(&self.pool.get().await?, &id, now_ms).await })
    }

    fn link_device(&self, linking: Linking) -> Answer<'_, LinkAnswer> {
        Box::pin(async move {
            let mut attempts = Attempts::default();
            loop {
                let mut db = self.pool.get().await?;
                let done = links::link(&mut db, &linking).await;
                if !attempts.again(&done) {
                    return done;
                }
            }
        })
    }

    fn devices(&self, account_row: i64) -> Answer<'_, Vec<DeviceEntry>> {
        Box::pin(async move { devices::list(&self.pool.get().await?, account_row).await })
    }

    fn name_device(&self, account_row: i64, device: u8, name: Bytes) -> Answer<'_, bool> {
        Box::pin(
            async move { devices::name(&self.pool.get().await?, account_row, device, &name).await },
        )
    }

    fn remove_device(&self, account_row: i64, device: u8) -> Answer<'_, Option<MailboxId>> {
        Box::pin(async move {
            let mut attempts = Attempts::default();
            loop {
                let mut db = self.pool.get().await?;
                let done = devices::remove(&mut db, account_row, device).await;
                if !attempts.again(&done) {
                    return done;
                }
            }
        })
    }

    fn purge_links(&self, now_ms: i64) -> Answer<'_, u64> {
        Box::pin(async move { links::purge(&self.pool.get().await?, now_ms).await })
    }

    fn put_keys(&self, mailbox: MailboxId, keys: KeySet) -> Answer<'_, PutKeys> {
        Box::pin(async move {
            let mut attempts = Attempts::default();
            loop {
                let mut db = self.pool.get().await?;
                let done = keys::put(&mut db, mailbox, &keys).await;
                if !attempts.again(&done) {
                    return done;
                }
            }
        })
    }

    fn key_state(&self, mailbox: MailboxId) -> Answer<'_, Option<KeyState>> {
        Box::pin(async move { keys::state(&mut self.pool.get().await?, mailbox).await })
    }

    fn take(&self, fetch: Fetch) -> Answer<'_, Taken> {
        Box::pin(async move {
            let mut attempts = Attempts::default();
            loop {
                let mut db = self.pool.get().await?;
                let done = keys::take(&mut db, &fetch).await;
                if !attempts.again(&done) {
                    return done;
                }
            }
        })
    }

    fn purge_answers(&self, before_ms: i64) -> Answer<'_, u64> {
        Box::pin(async move { keys::purge_answers(&self.pool.get().await?, before_ms).await })
    }

    fn append(&self, append: Append) -> Answer<'_, Vec<AppendAnswer>> {
        Box::pin(self.writer.append(append))
    }

    fn locate(&self, recipients: Vec<Recipient>) -> Answer<'_, Vec<Located>> {
        Box::pin(async move {
            presence::locate(&self.pool.get().await?, &self.accounts, &recipients).await
        })
    }

    fn read_after(
        &self,
        mailbox: MailboxId,
        cursor: i64,
        limit: ReadLimit,
        now_ms: i64,
    ) -> Answer<'_, Backlog> {
        Box::pin(self.reader.read(mailbox, cursor, limit, now_ms))
    }

    fn delete(&self, mailbox: MailboxId, seqs: Vec<i64>) {
        self.writer.delete(mailbox, seqs);
    }

    fn settle(&self) -> Answer<'_, ()> {
        Box::pin(self.writer.settle())
    }

    fn told_dropped(&self, mailbox: MailboxId, count: u64) -> Answer<'_, ()> {
        Box::pin(
            async move { mailbox::told_dropped(&self.pool.get().await?, mailbox, count).await },
        )
    }

    fn purge(&self, now_ms: i64, submissions_before_ms: i64) -> Answer<'_, u64> {
        Box::pin(async move {
            let mut attempts = Attempts::default();
            loop {
                let done = self.purge_once(now_ms, submissions_before_ms).await;
                if !attempts.again(&done) {
                    return done;
                }
            }
        })
    }

    fn claim(&self, mailbox: MailboxId, node: NodeId) -> Answer<'_, Option<Claim>> {
        Box::pin(async move { presence::claim(&mut self.pool.get().await?, mailbox, node).await })
    }

    fn release(&self, mailbox: MailboxId, epoch: i64) -> Answer<'_, ()> {
        Box::pin(async move { presence::release(&self.pool.get().await?, mailbox, epoch).await })
    }

    fn put_push(&self, mailbox: MailboxId, registration: Option<Bytes>) -> Answer<'_, ()> {
        Box::pin(
            async move { push::put(&self.pool.get().await?, mailbox, registration.as_ref()).await },
        )
    }

    fn end_push(&self, mailbox: MailboxId, registration: Bytes) -> Answer<'_, ()> {
        Box::pin(async move { push::end(&self.pool.get().await?, mailbox, &registration).await })
    }

    fn to_push(&self, mailboxes: Vec<MailboxId>, now_ms: i64) -> Answer<'_, Vec<PushRow>> {
        Box::pin(async move { push::due(&self.pool.get().await?, &mailboxes, now_ms).await })
    }

    fn report(&self, reporting: Reporting) -> Answer<'_, ReportAnswer> {
        Box::pin(async move { reports::count(&self.pool.get().await?, &reporting).await })
    }

    fn purge_reports(&self, today: i64, counted_before: i64) -> Answer<'_, u64> {
        Box::pin(
            async move { reports::purge(&self.pool.get().await?, today, counted_before).await },
        )
    }

    fn states(&self, mailboxes: Vec<MailboxId>) -> Answer<'_, Vec<MailboxState>> {
        Box::pin(async move { presence::states(&self.pool.get().await?, &mailboxes).await })
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.pool.get().await?.query_one("SELECT 1", &[]).await?;
            Ok(())
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.reader.stop();
            self.writer.stop().await;
            self.pool.close();
            Ok(())
        })
    }
}
