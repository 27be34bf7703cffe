//! The mailboxes as a node's store. What no stream, submission or sweep needs is not there.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use super::{Call, Done, Mailboxes, State};
use crate::storage::{
    AccountId, AccountRow, Answer, Append, AppendAnswer, Backlog, Claim, DeviceEntry, DeviceRow,
    Fetch, KeySet, KeyState, LinkAnswer, LinkRow, LinkState, Linking, Located, MailboxId,
    MailboxState, NodeId, OpeningLink, PreKeyRow, PushRow, PutKeys, ReadLimit, Recipient,
    RegisterAnswer, Registering, ReportAnswer, Reporting, Store, Taken,
};

/// The store as one node has it.
pub(in super::super) struct Handle {
    pub(in super::super) mailboxes: Arc<Mailboxes>,
    pub(in super::super) node: NodeId,
}

impl Handle {
    fn ask<T: Send + 'static>(&self, call: Call, of: fn(Done) -> Option<T>) -> Answer<'_, T> {
        let mut inner = self.mailboxes.lock();
        let task = inner.running.expect("a call is made by a task");
        inner.calls.insert(task, State::Asked(call));
        drop(inner);
        Box::pin(poll_fn(move |_| {
            let mut inner = self.mailboxes.lock();
            match inner.calls.remove(&task) {
                Some(State::Done(done, _)) => Poll::Ready(Ok(of(done).expect("its own answer"))),
                Some(state) => {
                    inner.calls.insert(task, state);
                    Poll::Pending
                }
                None => Poll::Pending,
            }
        }))
    }
}

fn at_once<'a, T: Send + 'a>(answer: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(answer)))
}

fn not_here<'a, T: Send + 'a>() -> Answer<'a, T> {
    unreachable!("not a part of the simulation")
}

macro_rules! done {
    ($kind:ident) => {
        |done| if let Done::$kind(answer) = done { Some(answer) } else { None }
    };
}

impl Store for Handle {
    fn append(&self, append: Append) -> Answer<'_, Vec<AppendAnswer>> {
        self.ask(Call::Append(append), done!(Append))
    }

    fn locate(&self, recipients: Vec<Recipient>) -> Answer<'_, Vec<Located>> {
        self.ask(Call::Locate(recipients), done!(Locate))
    }

    fn read_after(
        &self,
        _mailbox: MailboxId,
        cursor: i64,
        limit: ReadLimit,
        _now_ms: i64,
    ) -> Answer<'_, Backlog> {
        self.ask(Call::Read(cursor, limit), done!(Read))
    }

    fn delete(&self, _mailbox: MailboxId, seqs: Vec<i64>) {
        self.mailboxes.lock().deletes.entry(self.node).or_default().extend(seqs);
    }

    /// Carries them out now: waiting for it changes nothing for anybody else.
    fn settle(&self) -> Answer<'_, ()> {
        self.mailboxes.delete(self.node);
        at_once(())
    }

    fn claim(&self, _mailbox: MailboxId, node: NodeId) -> Answer<'_, Option<Claim>> {
        self.ask(Call::Claim(node), |done| match done {
            Done::Claim(claim) => Some(Some(claim)),
            _ => None,
        })
    }

    fn release(&self, _mailbox: MailboxId, epoch: i64) -> Answer<'_, ()> {
        self.ask(Call::Release(epoch), |done| matches!(done, Done::Release).then_some(()))
    }

    fn states(&self, mailboxes: Vec<MailboxId>) -> Answer<'_, Vec<MailboxState>> {
        self.ask(Call::States(mailboxes), done!(States))
    }

    /// Enough of all.
    fn key_state(&self, _mailbox: MailboxId) -> Answer<'_, Option<KeyState>> {
        let none = || PreKeyRow { id: 1, key: Bytes::new(), signature: Bytes::new() };
        at_once(Some(KeyState {
            one_time: 100,
            one_time_kem: 100,
            high_water: 100,
            high_water_kem: 100,
            last_resort_uses: 0,
            signed: none(),
            last_resort: none(),
        }))
    }

    fn told_dropped(&self, _: MailboxId, _: u64) -> Answer<'_, ()> {
        not_here()
    }

    fn register(&self, _: Registering) -> Answer<'_, RegisterAnswer> {
        not_here()
    }

    fn account(&self, _: AccountId) -> Answer<'_, Option<AccountRow>> {
        not_here()
    }

    fn account_of_name(&self, _: String) -> Answer<'_, Option<AccountId>> {
        not_here()
    }

    fn device(&self, _: AccountId, _: u8) -> Answer<'_, Option<DeviceRow>> {
        not_here()
    }

    fn open_link(&self, _: OpeningLink) -> Answer<'_, bool> {
        not_here()
    }

    fn link_of_token(&self, _: [u8; 32], _: i64) -> Answer<'_, Option<LinkRow>> {
        not_here()
    }

    fn link(&self, _: [u8; 16], _: i64) -> Answer<'_, Option<LinkState>> {
        not_here()
    }

    fn link_device(&self, _: Linking) -> Answer<'_, LinkAnswer> {
        not_here()
    }

    fn devices(&self, _: i64) -> Answer<'_, Vec<DeviceEntry>> {
        not_here()
    }

    fn name_device(&self, _: i64, _: u8, _: Bytes) -> Answer<'_, bool> {
        not_here()
    }

    fn remove_device(&self, _: i64, _: u8) -> Answer<'_, Option<MailboxId>> {
        not_here()
    }

    fn purge_links(&self, _: i64) -> Answer<'_, u64> {
        not_here()
    }

    fn put_keys(&self, _: MailboxId, _: KeySet) -> Answer<'_, PutKeys> {
        not_here()
    }

    fn take(&self, _: Fetch) -> Answer<'_, Taken> {
        not_here()
    }

    fn purge_answers(&self, _: i64) -> Answer<'_, u64> {
        not_here()
    }

    fn purge(&self, _: i64, _: i64) -> Answer<'_, u64> {
        not_here()
    }

    fn put_push(&self, _: MailboxId, _: Option<Bytes>) -> Answer<'_, ()> {
        not_here()
    }

    fn end_push(&self, _: MailboxId, _: Bytes) -> Answer<'_, ()> {
        not_here()
    }

    fn to_push(&self, _: Vec<MailboxId>, _: i64) -> Answer<'_, Vec<PushRow>> {
        not_here()
    }

    fn report(&self, _: Reporting) -> Answer<'_, ReportAnswer> {
        not_here()
    }

    fn purge_reports(&self, _: i64, _: i64) -> Answer<'_, u64> {
        not_here()
    }

    fn check(&self) -> Answer<'_, ()> {
        not_here()
    }

    fn close(&self) -> Answer<'_, ()> {
        not_here()
    }
}
