//! Mailboxes as the store promises them, in memory. A call is asked for when a task makes it, carried out as a whole when the
//! search says so, and answered when the task goes on: that is how a transaction of several nodes' database looks from
//! outside. What the simulation does not need is not there.

mod handle;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, MutexGuard};

pub(super) use handle::Handle;

use super::{Number, digest};
use crate::storage::{
    AccountId, Append, AppendAnswer, Backlog, Claim, Located, Location, MailboxId, MailboxState,
    NodeId, Placed, ReadLimit, Recipient, StoredEnvelope,
};

/// Who makes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Task {
    Stream(usize),
    Submission(usize),
    Sweep(usize),
}

enum Call {
    Append(Append),
    Locate(Vec<Recipient>),
    Read(i64, ReadLimit),
    Claim(NodeId),
    Release(i64),
    States(Vec<MailboxId>),
}

enum Done {
    Append(Vec<AppendAnswer>),
    Locate(Vec<Located>),
    Read(Backlog),
    Claim(Claim),
    Release,
    States(Vec<MailboxState>),
}

enum State {
    Asked(Call),
    /// With a digest of the answer.
    Done(Done, u64),
}

/// What became of a message when it was stored.
pub(super) struct Kept {
    number: Number,
    pub(super) seq: i64,
    /// Where presence had the device then.
    pub(super) node: Option<NodeId>,
}

#[derive(Default)]
pub(super) struct Mailbox {
    end: i64,
    envelopes: BTreeMap<i64, StoredEnvelope>,
    pub(super) node: Option<NodeId>,
    pub(super) epoch: i64,
    kept: Vec<Kept>,
    /// The streams that have claimed it, in their order.
    pub(super) claims: Vec<usize>,
}

impl Mailbox {
    /// What became of this message, if it was stored.
    pub(super) fn kept(&self, number: Number) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.number == number)
    }

    /// The messages that are there.
    pub(super) fn numbers(&self) -> BTreeSet<Number> {
        self.envelopes.values().filter_map(|envelope| envelope.content.first().copied()).collect()
    }
}

/// The database.
#[derive(Default)]
pub(super) struct Mailboxes(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    running: Option<Task>,
    calls: BTreeMap<Task, State>,
    mailbox: Mailbox,
    accepted: BTreeSet<[u8; 16]>,
    /// Asked for by each node.
    deletes: BTreeMap<NodeId, BTreeSet<i64>>,
}

impl Mailboxes {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(super) fn clear(&self) {
        *self.lock() = Inner::default();
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Mailbox) -> T) -> T {
        look(&self.lock().mailbox)
    }

    /// The calls made meanwhile are this task's.
    pub(super) fn run<T>(&self, task: Task, work: impl FnOnce() -> T) -> T {
        self.lock().running = Some(task);
        let done = work();
        self.lock().running = None;
        done
    }

    /// Whether its call is to be carried out.
    pub(super) fn is_asked(&self, task: Task) -> bool {
        matches!(self.lock().calls.get(&task), Some(State::Asked(_)))
    }

    /// Whether what it does next is to give the mailbox up.
    pub(super) fn is_release(&self, task: Task) -> bool {
        matches!(self.lock().calls.get(&task), Some(State::Asked(Call::Release(_))))
    }

    /// Whether what it does next is to read the mailbox.
    pub(super) fn is_read(&self, task: Task) -> bool {
        matches!(self.lock().calls.get(&task), Some(State::Asked(Call::Read(..))))
    }

    /// The answer that it has not seen yet.
    pub(super) fn answered(&self, task: Task) -> Option<u64> {
        match self.lock().calls.get(&task) {
            Some(State::Done(_, digest)) => Some(*digest),
            _ => None,
        }
    }

    /// Carries a call out.
    pub(super) fn commit(&self, task: Task) {
        let mut inner = self.lock();
        if let Some(State::Asked(call)) = inner.calls.remove(&task) {
            let done = inner.carry_out(task, call);
            let digest = digest(&done);
            inner.calls.insert(task, State::Done(done, digest));
        }
    }

    /// The call is never carried out, or its answer never seen.
    pub(super) fn forget(&self, task: Task) {
        self.lock().calls.remove(&task);
    }

    pub(super) fn has_deletes(&self, node: NodeId) -> bool {
        self.lock().deletes.get(&node).is_some_and(|seqs| !seqs.is_empty())
    }

    pub(super) fn delete(&self, node: NodeId) {
        self.lock().delete(node);
    }

    pub(super) fn forget_deletes(&self, node: NodeId) {
        self.lock().deletes.remove(&node);
    }

    pub(super) fn hash(&self, into: &mut impl Hasher) {
        let inner = self.lock();
        let Mailbox { end, envelopes, node, epoch, kept, claims } = &inner.mailbox;
        (end, node, epoch, claims.last(), claims.iter().collect::<BTreeSet<_>>()).hash(into);
        (envelopes.keys().collect::<Vec<_>>(), &inner.deletes).hash(into);
        kept.iter().for_each(|kept| kept.number.hash(into));
        for (task, state) in &inner.calls {
            let answer = if let State::Done(_, digest) = state { Some(digest) } else { None };
            (task, answer).hash(into);
        }
    }
}

impl Inner {
    fn carry_out(&mut self, task: Task, call: Call) -> Done {
        let mailbox = &mut self.mailbox;
        match call {
            Call::Append(append) => Done::Append(self.append(append)),
            Call::Locate(to) => Done::Locate(to.iter().map(|to| Ok(self.locate(to))).collect()),
            Call::Read(cursor, limit) => Done::Read(mailbox.read(cursor, limit)),
            Call::Claim(node) => {
                let displaced = mailbox.node.replace(node).filter(|before| *before != node);
                mailbox.epoch += 1;
                if let Task::Stream(at) = task {
                    mailbox.claims.push(at);
                }
                Done::Claim(Claim { epoch: mailbox.epoch, displaced })
            }
            Call::Release(epoch) => {
                if epoch == mailbox.epoch {
                    mailbox.node = None;
                }
                Done::Release
            }
            Call::States(mailboxes) => {
                let (end, epoch) = (mailbox.end, mailbox.epoch);
                let state = |mailbox| MailboxState { mailbox, end, epoch };
                Done::States(mailboxes.into_iter().map(state).collect())
            }
        }
    }

    fn append(&mut self, append: Append) -> Vec<AppendAnswer> {
        let (received_ms, shared) = (append.now_ms, append.shared);
        let stored = append.recipients.into_iter().map(|to| {
            if !self.accepted.insert(to.dedup) {
                return AppendAnswer::Repeated;
            }
            let id = mailbox_of(to.account);
            let mailbox = &mut self.mailbox;
            let placed = to.messages.into_iter().map(|message| {
                mailbox.end += 1;
                let (seq, node, content) = (mailbox.end, mailbox.node, message.content);
                mailbox.kept.push(Kept { number: content[0], seq, node });
                let shared = shared.clone();
                let envelope = StoredEnvelope { seq, received_ms, content, shared };
                mailbox.envelopes.insert(seq, envelope);
                Placed { mailbox: id, seq, dropped: 0, node }
            });
            AppendAnswer::Stored(placed.collect())
        });
        stored.collect()
    }

    fn locate(&self, to: &Recipient) -> Vec<Location> {
        let location = Location { mailbox: mailbox_of(to.account), node: self.mailbox.node };
        vec![location; to.messages.len()]
    }

    fn delete(&mut self, node: NodeId) {
        for seq in self.deletes.remove(&node).unwrap_or_default() {
            self.mailbox.envelopes.remove(&seq);
        }
    }
}

impl Mailbox {
    fn read(&self, cursor: i64, limit: ReadLimit) -> Backlog {
        let after = || self.envelopes.range(cursor + 1..).map(|(_, envelope)| envelope.clone());
        let envelopes: Vec<StoredEnvelope> = after().take(limit.messages).collect();
        let all = after().count() == envelopes.len();
        let last = envelopes.last().map_or(cursor, |last| last.seq);
        let covers = if all { self.end } else { last };
        Backlog { envelopes, covers, end: self.end, dropped: 0 }
    }
}

/// An account has one device, and the mailbox the account's number.
fn mailbox_of(account: AccountId) -> MailboxId {
    MailboxId(i64::from_be_bytes(*account.0.first_chunk().unwrap()))
}

pub(super) fn account_of(mailbox: MailboxId) -> AccountId {
    let mut account = [0; 16];
    account[..8].copy_from_slice(&mailbox.0.to_be_bytes());
    AccountId(account)
}

/// All that a task learns by it.
impl Hash for Done {
    fn hash<H: Hasher>(&self, into: &mut H) {
        match self {
            Self::Append(answers) => {
                for answer in answers {
                    if let AppendAnswer::Stored(placed) = answer {
                        placed.iter().for_each(|placed| (placed.seq, placed.node).hash(into));
                    }
                }
            }
            Self::Locate(located) => {
                let locations = located.iter().flatten().flatten();
                locations.for_each(|location| location.node.hash(into));
            }
            Self::Read(backlog) => {
                backlog.envelopes.iter().for_each(|envelope| envelope.seq.hash(into));
                (backlog.covers, backlog.end).hash(into);
            }
            Self::Claim(claim) => (claim.epoch, claim.displaced).hash(into),
            Self::Release => {}
            Self::States(states) => {
                states.iter().for_each(|state| (state.end, state.epoch).hash(into));
            }
        }
    }
}
