//! The store in PostgreSQL, for one node or many. Submissions are committed in groups; everything else is a short
//! transaction of its own. Any number of nodes may work on one database.
//!
//! `connections` bounds how long anything is waited for. `writer` and `reader` gather what comes at the same time; `accounts`,
//! `append`, `devices`, `keys`, `links`, `mailbox`, `partitions`, `place`, `presence`, `push` and `reports` hold the statements,
//! `recipients` decides what a submission may.

mod accounts;
mod append;
mod connections;
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

use deadpool_postgres::Object;

use connections::{Connections, repeat};
use reader::Reader;
use recipients::Accounts;
pub use schema::PostgresOpenError;
use writer::Writer;

use super::{
    AccountId, AccountRow, Answer, Append, AppendAnswer, Backlog, Claim, DeviceEntry, DeviceRow,
    Fetch, KeySet, KeyState, LinkAnswer, LinkRow, LinkState, Linking, Located, MailboxId,
    MailboxState, NodeId, OpeningLink, PushRow, PutKeys, ReadLimit, Recipient, RegisterAnswer,
    Registering, ReportAnswer, Reporting, Store, StoreError, Taken,
};

use crate::metrics;

/// The store. Clones share it.
#[derive(Clone)]
pub struct PostgresStore {
    db: Connections,
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
        let db = Connections::new(schema::open(setting).await?);
        let accounts = Arc::new(Accounts::new());
        let writer = Arc::new(Writer::start(&db, Arc::clone(&accounts)));
        let reader = Arc::new(Reader::start(&db));
        Ok(Self { db, accounts, writer, reader })
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

    /// Each of these has its turn whatever becomes of the others.
    async fn purge_all(&self, now_ms: i64, before_ms: i64) -> Result<u64, StoreError> {
        self.db.run(async |db| schema::compare_clocks(db).await).await?;
        if let Err(error) = self.db.run(async |db| schema::count_rows(db).await).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "rows were not counted");
        }
        let expire = async || partitions::expire(&self.db, now_ms).await;
        let forget =
            async || repeat(|| self.db.run(async |db| mailbox::forget(db, before_ms).await)).await;
        let (mut expired, mut forgotten) = (expire().await, forget().await);
        // After an error nobody asks for more before the next round.
        while expired.is_err() && matches!(forgotten, Ok(1..)) {
            forgotten = forget().await;
        }
        while forgotten.is_err() && matches!(expired, Ok(1..)) {
            expired = expire().await;
        }
        Ok(expired?.saturating_add(forgotten?))
    }
}

impl Store for PostgresStore {
    fn register(&self, registering: Registering) -> Answer<'_, RegisterAnswer> {
        Box::pin(async move {
            repeat(|| self.db.run(async |db| accounts::register(db, &registering).await)).await
        })
    }

    fn account(&self, account: AccountId) -> Answer<'_, Option<AccountRow>> {
        Box::pin(async move { self.db.run(async |db| accounts::account(db, account).await).await })
    }

    fn account_of_name(&self, username: String) -> Answer<'_, Option<AccountId>> {
        Box::pin(async move {
            self.db.run(async |db| accounts::account_of_name(db, &username).await).await
        })
    }

    fn device(&self, account: AccountId, device: u8) -> Answer<'_, Option<DeviceRow>> {
        Box::pin(async move {
            self.db.run(async |db| accounts::device(db, account, device).await).await
        })
    }

    fn open_link(&self, opening: OpeningLink) -> Answer<'_, bool> {
        Box::pin(
            async move { repeat(|| self.db.run(async |db| links::open(db, &opening).await)).await },
        )
    }

    fn link_of_token(&self, token_hash: [u8; 32], now_ms: i64) -> Answer<'_, Option<LinkRow>> {
        Box::pin(async move {
            self.db.run(async |db| links::of_token(db, &token_hash, now_ms).await).await
        })
    }

    fn link(&self, id: [u8; 16], now_ms: i64) -> Answer<'_, Option<LinkState>> {
        Box::pin(async move { self.db.run(async |db| links::state(db, &id, now_ms).await).await })
    }

    fn link_device(&self, linking: Linking) -> Answer<'_, LinkAnswer> {
        Box::pin(
            async move { repeat(|| self.db.run(async |db| links::link(db, &linking).await)).await },
        )
    }

    fn devices(&self, account_row: i64) -> Answer<'_, Vec<DeviceEntry>> {
        Box::pin(async move { self.db.run(async |db| devices::list(db, account_row).await).await })
    }

    fn name_device(&self, account_row: i64, device: u8, name: Bytes) -> Answer<'_, bool> {
        Box::pin(async move {
            self.db.run(async |db| devices::name(db, account_row, device, &name).await).await
        })
    }

    fn remove_device(&self, account_row: i64, device: u8) -> Answer<'_, Option<MailboxId>> {
        Box::pin(async move {
            repeat(|| self.db.run(async |db| devices::remove(db, account_row, device).await)).await
        })
    }

    fn purge_links(&self, now_ms: i64) -> Answer<'_, u64> {
        Box::pin(async move { self.db.run(async |db| links::purge(db, now_ms).await).await })
    }

    fn put_keys(&self, mailbox: MailboxId, keys: KeySet) -> Answer<'_, PutKeys> {
        Box::pin(async move {
            repeat(|| self.db.run(async |db| keys::put(db, mailbox, &keys).await)).await
        })
    }

    fn key_state(&self, mailbox: MailboxId) -> Answer<'_, Option<KeyState>> {
        Box::pin(async move { self.db.run(async |db| keys::state(db, mailbox).await).await })
    }

    fn take(&self, fetch: Fetch) -> Answer<'_, Taken> {
        Box::pin(
            async move { repeat(|| self.db.run(async |db| keys::take(db, &fetch).await)).await },
        )
    }

    fn purge_answers(&self, before_ms: i64) -> Answer<'_, u64> {
        Box::pin(
            async move { self.db.run(async |db| keys::purge_answers(db, before_ms).await).await },
        )
    }

    fn append(&self, append: Append) -> Answer<'_, Vec<AppendAnswer>> {
        Box::pin(self.writer.append(append))
    }

    fn locate(&self, recipients: Vec<Recipient>) -> Answer<'_, Vec<Located>> {
        Box::pin(async move {
            self.db.run(async |db| presence::locate(db, &self.accounts, &recipients).await).await
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
        Box::pin(async move {
            self.db.run(async |db| mailbox::told_dropped(db, mailbox, count).await).await
        })
    }

    fn purge(&self, now_ms: i64, submissions_before_ms: i64) -> Answer<'_, u64> {
        Box::pin(async move {
            let done = self.purge_all(now_ms, submissions_before_ms).await;
            metrics::STORE_FAILED.add(u64::from(done.is_err()));
            done
        })
    }

    fn claim(&self, mailbox: MailboxId, node: NodeId) -> Answer<'_, Option<Claim>> {
        Box::pin(
            async move { self.db.run(async |db| presence::claim(db, mailbox, node).await).await },
        )
    }

    fn release(&self, mailbox: MailboxId, epoch: i64) -> Answer<'_, ()> {
        Box::pin(async move {
            self.db.run(async |db| presence::release(db, mailbox, epoch).await).await
        })
    }

    fn put_push(&self, mailbox: MailboxId, registration: Option<Bytes>) -> Answer<'_, ()> {
        Box::pin(async move {
            self.db.run(async |db| push::put(db, mailbox, registration.as_ref()).await).await
        })
    }

    fn end_push(&self, mailbox: MailboxId, registration: Bytes) -> Answer<'_, ()> {
        Box::pin(async move {
            self.db.run(async |db| push::end(db, mailbox, &registration).await).await
        })
    }

    fn to_push(&self, mailboxes: Vec<MailboxId>, now_ms: i64) -> Answer<'_, Vec<PushRow>> {
        Box::pin(
            async move { self.db.run(async |db| push::due(db, &mailboxes, now_ms).await).await },
        )
    }

    fn report(&self, reporting: Reporting) -> Answer<'_, ReportAnswer> {
        Box::pin(async move { self.db.run(async |db| reports::count(db, &reporting).await).await })
    }

    fn purge_reports(&self, today: i64, counted_before: i64) -> Answer<'_, u64> {
        Box::pin(async move {
            self.db.run(async |db| reports::purge(db, today, counted_before).await).await
        })
    }

    fn states(&self, mailboxes: Vec<MailboxId>) -> Answer<'_, Vec<MailboxState>> {
        Box::pin(
            async move { self.db.run(async |db| presence::states(db, &mailboxes).await).await },
        )
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let ask = async |db: &mut Object| Ok(db.query_one("SELECT 1", &[]).await?);
            self.db.run(ask).await.map(drop)
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.reader.stop();
            self.writer.stop().await;
            self.db.close();
            Ok(())
        })
    }
}
