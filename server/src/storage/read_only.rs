//! A store that is read and not written: what waits is delivered, and nothing is taken in, given out or taken away. For the time in
//! which an operator moves or mends what is below.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    AccountId, AccountRow, Answer, Append, AppendAnswer, Backlog, Claim, DeviceEntry, DeviceRow,
    Fetch, KeySet, KeyState, LinkAnswer, LinkRow, LinkState, Linking, Located, MailboxId,
    MailboxState, NodeId, OpeningLink, PushRow, PutKeys, ReadLimit, Recipient, RegisterAnswer,
    Registering, ReportAnswer, Reporting, Store, StoreError, Taken,
};

/// Another store, without its writes. Those that somebody asks for are refused; those that can wait are left out.
pub struct ReadOnly(pub Arc<dyn Store>);

fn refused<'a, T: Send + 'a>() -> Answer<'a, T> {
    Box::pin(std::future::ready(Err(StoreError::ReadOnly)))
}

fn left_out<'a, T: Send + 'a>(nothing: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(nothing)))
}

impl Store for ReadOnly {
    fn register(&self, _: Registering) -> Answer<'_, RegisterAnswer> {
        refused()
    }

    fn account(&self, account: AccountId) -> Answer<'_, Option<AccountRow>> {
        self.0.account(account)
    }

    fn account_of_name(&self, username: String) -> Answer<'_, Option<AccountId>> {
        self.0.account_of_name(username)
    }

    fn device(&self, account: AccountId, device: u8) -> Answer<'_, Option<DeviceRow>> {
        self.0.device(account, device)
    }

    fn open_link(&self, _: OpeningLink) -> Answer<'_, bool> {
        refused()
    }

    fn link_of_token(&self, token_hash: [u8; 32], now_ms: i64) -> Answer<'_, Option<LinkRow>> {
        self.0.link_of_token(token_hash, now_ms)
    }

    fn link(&self, id: [u8; 16], now_ms: i64) -> Answer<'_, Option<LinkState>> {
        self.0.link(id, now_ms)
    }

    fn link_device(&self, _: Linking) -> Answer<'_, LinkAnswer> {
        refused()
    }

    fn devices(&self, account_row: i64) -> Answer<'_, Vec<DeviceEntry>> {
        self.0.devices(account_row)
    }

    fn name_device(&self, _: i64, _: u8, _: Bytes) -> Answer<'_, bool> {
        refused()
    }

    fn remove_device(&self, _: i64, _: u8) -> Answer<'_, Option<MailboxId>> {
        refused()
    }

    fn purge_links(&self, _: i64) -> Answer<'_, u64> {
        left_out(0)
    }

    fn put_keys(&self, _: MailboxId, _: KeySet) -> Answer<'_, PutKeys> {
        refused()
    }

    fn key_state(&self, mailbox: MailboxId) -> Answer<'_, Option<KeyState>> {
        self.0.key_state(mailbox)
    }

    fn take(&self, _: Fetch) -> Answer<'_, Taken> {
        refused()
    }

    fn purge_answers(&self, _: i64) -> Answer<'_, u64> {
        left_out(0)
    }

    fn append(&self, _: Append) -> Answer<'_, Vec<AppendAnswer>> {
        refused()
    }

    fn locate(&self, recipients: Vec<Recipient>) -> Answer<'_, Vec<Located>> {
        self.0.locate(recipients)
    }

    fn read_after(
        &self,
        mailbox: MailboxId,
        cursor: i64,
        limit: ReadLimit,
        now_ms: i64,
    ) -> Answer<'_, Backlog> {
        self.0.read_after(mailbox, cursor, limit, now_ms)
    }

    /// They are delivered again.
    fn delete(&self, _: MailboxId, _: Vec<i64>) {}

    fn settle(&self) -> Answer<'_, ()> {
        left_out(())
    }

    fn told_dropped(&self, _: MailboxId, _: u64) -> Answer<'_, ()> {
        left_out(())
    }

    fn purge(&self, _: i64, _: i64) -> Answer<'_, u64> {
        left_out(0)
    }

    /// Nothing is stored meanwhile that somebody would have to be told of.
    fn claim(&self, _: MailboxId, _: NodeId) -> Answer<'_, Option<Claim>> {
        left_out(Some(Claim { epoch: 0, displaced: None }))
    }

    fn release(&self, _: MailboxId, _: i64) -> Answer<'_, ()> {
        left_out(())
    }

    fn put_push(&self, _: MailboxId, _: Option<Bytes>) -> Answer<'_, ()> {
        refused()
    }

    fn end_push(&self, _: MailboxId, _: Bytes) -> Answer<'_, ()> {
        left_out(())
    }

    fn to_push(&self, mailboxes: Vec<MailboxId>, now_ms: i64) -> Answer<'_, Vec<PushRow>> {
        self.0.to_push(mailboxes, now_ms)
    }

    fn report(&self, _: Reporting) -> Answer<'_, ReportAnswer> {
        refused()
    }

    fn purge_reports(&self, _: i64, _: i64) -> Answer<'_, u64> {
        left_out(0)
    }

    fn states(&self, mailboxes: Vec<MailboxId>) -> Answer<'_, Vec<MailboxState>> {
        self.0.states(mailboxes)
    }

    fn check(&self) -> Answer<'_, ()> {
        self.0.check()
    }

    fn close(&self) -> Answer<'_, ()> {
        self.0.close()
    }
}
