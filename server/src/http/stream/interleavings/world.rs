//! Two nodes, one device, a few submissions, and what each step changes.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tuckseal::ENVELOPE_SIZES;
use tuckseal::service::{DeviceMessage, Submission};

use super::connection::Connection;
use super::job::Job;
use super::nodes::{Node, Nodes};
use super::steps::Step;
use super::store::{Task, account_of};
use super::{Kind, Move, Number, Scenario, properties};
use crate::bus::peek;
use crate::service::ServiceError;
use crate::service::relay::{Right, Sender};
use crate::storage::{AccountId, MailboxId};

/// Who hands in: no account of a mailbox.
const STRANGER: AccountId = AccountId([0xFF; 16]);

pub(super) enum Submitting {
    Not,
    /// At this node.
    Under(usize, Job<Result<(), ServiceError>>),
    Accepted,
    /// Its node was killed before it answered.
    Lost,
}

pub(super) struct World {
    pub(super) scenario: &'static Scenario,
    pub(super) nodes: Rc<Nodes>,
    /// Which two of them are there.
    pub(super) live: [usize; 2],
    mailbox: MailboxId,
    pub(super) connections: Vec<Connection>,
    /// How many the device has made.
    pub(super) moves: usize,
    pub(super) submissions: Vec<Submitting>,
    /// By node; none: done.
    pub(super) sweeps: Vec<(usize, Option<Job<()>>)>,
    /// Topics and notices, in order of what they say.
    pub(super) air: Vec<(String, Bytes)>,
    pub(super) lost: usize,
    pub(super) repeated: usize,
    pub(super) crashed: bool,
    pub(super) finished: bool,
    /// What the device has.
    pub(super) got: BTreeSet<Number>,
    /// Messages that were there when a wake-up was asked for, and the nodes that know of it.
    pub(super) asked: BTreeMap<Number, BTreeSet<usize>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.connections.clear();
        self.submissions.clear();
        self.sweeps.clear();
        self.nodes.clear(self.mailbox);
    }
}

impl World {
    pub(super) fn new(scenario: &'static Scenario, nodes: &Rc<Nodes>) -> Self {
        Self {
            scenario,
            nodes: Rc::clone(nodes),
            live: [0, 1],
            mailbox: nodes.next_mailbox(),
            connections: Vec::new(),
            moves: 0,
            submissions: scenario.submissions.iter().map(|_| Submitting::Not).collect(),
            sweeps: Vec::new(),
            air: Vec::new(),
            lost: 0,
            repeated: 0,
            crashed: false,
            finished: false,
            got: BTreeSet::new(),
            asked: BTreeMap::new(),
        }
    }

    pub(super) fn node(&self, at: usize) -> &Node {
        &self.nodes.all[at]
    }

    fn is_listener(&self, connection: &Connection) -> bool {
        let line = self.node(connection.node).line.borrow();
        line.is_listener(self.mailbox, &connection.waiting)
    }

    /// The connection that the device uses.
    pub(super) fn current(&self) -> Option<usize> {
        let last = self.connections.len().checked_sub(1)?;
        (!self.connections[last].is_useless()).then_some(last)
    }

    /// Those that were answered well, and are not ephemeral.
    pub(super) fn accepted(&self) -> BTreeSet<Number> {
        let all = self.submissions.iter().zip(self.scenario.submissions).zip(0..);
        let accepted = all.filter(|((state, (_, kind)), _)| {
            matches!(state, Submitting::Accepted) && *kind == Kind::Stored
        });
        accepted.map(|(_, number)| number).collect()
    }

    /// Takes a step and looks at what has become of the world.
    ///
    /// # Errors
    /// What is wrong by now.
    pub(super) fn take(&mut self, step: Step) -> Result<(), String> {
        self.change(step)?;
        properties::hold(self)
    }

    /// # Errors
    /// What is wrong with the step.
    pub(super) fn change(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Move => self.moved(),
            Step::Submit(at) => self.submit(at),
            Step::Commit(task) => self.commit(task)?,
            Step::Resume(task) => self.resume(task)?,
            Step::Wake(at) => self.connections[at].wake(&self.nodes.mailboxes)?,
            Step::Hole(at) => self.connections[at].hole(&self.nodes.mailboxes),
            Step::Read => self.read()?,
            Step::Gone(at) => self.connections[at].gone(&self.nodes.mailboxes),
            Step::Arrive(at) => {
                let notice = self.air.remove(at);
                self.arrives(&notice);
            }
            Step::Lose(at) => {
                self.air.remove(at);
                self.lost += 1;
            }
            Step::Repeat(at) => {
                self.arrives(&self.air[at]);
                self.repeated += 1;
            }
            Step::Delete(at) => self.nodes.mailboxes.delete(self.node(at).id),
            Step::Sweep(at) => self.sweep(at),
            Step::Crash(at) => self.crash(at),
            Step::Finish => {
                self.live.into_iter().for_each(|at| self.sweep(at));
                while let Some(next) = self.due().first() {
                    self.change(*next)?;
                }
                self.finished = true;
            }
        }
        self.collect();
        Ok(())
    }

    /// What the nodes have told each other, and whether they mean to wake the device.
    fn collect(&mut self) {
        for at in self.live {
            let sent = self.node(at).line.borrow_mut().sent();
            self.air.extend(sent);
            if self.node(at).app.services.push.forget(self.mailbox).is_some() {
                self.asked_for(at);
            }
        }
        self.air.sort_unstable_by_key(mark);
    }

    fn asked_for(&mut self, at: usize) {
        for number in self.nodes.mailboxes.look(|mailbox| mailbox.numbers()) {
            self.asked.entry(number).or_default().insert(at);
        }
    }

    fn arrives(&self, (topic, notice): &(String, Bytes)) {
        let lines = self.live.iter().map(|at| self.node(*at).line.borrow());
        lines.filter(|line| line.topic() == topic).for_each(|line| line.arrives(notice));
    }

    fn moved(&mut self) {
        match self.scenario.moves[self.moves] {
            Move::Leave => {
                if let Some(at) = self.current() {
                    self.connections[at].left = true;
                }
            }
            Move::Connect(node) => {
                let (number, at) = (self.live[node], self.connections.len());
                let new = Connection::open(at, (number, self.node(number)), self.mailbox);
                self.connections.push(new);
            }
        }
        self.moves += 1;
    }

    fn submit(&mut self, at: usize) {
        let (node, kind) = self.scenario.submissions[at];
        let node = self.live[node];
        let content = vec![at as Number; ENVELOPE_SIZES[0]].into();
        let submission = Submission {
            submission_id: vec![at as u8; 16].into(),
            messages: vec![DeviceMessage { device_id: 1, registration_id: 1, content }],
            ephemeral: kind == Kind::Ephemeral,
            ..Submission::default()
        };
        let (app, account) = (Arc::clone(&self.node(node).app), account_of(self.mailbox));
        let right = Right::Token(Sender { account: STRANGER, device: 1 });
        let submit = async move { app.services.relay.submit(account, right, submission).await };
        let task = Task::Submission(at);
        let mut job = Job::new(task, at, submit);
        // Before its first call it looks at nothing that anybody else changes.
        assert!(job.go_on(&self.nodes.mailboxes).is_pending());
        self.nodes.mailboxes.commit(task);
        self.submissions[at] = Submitting::Under(node, job);
    }

    fn commit(&mut self, task: Task) -> Result<(), String> {
        let store = &self.nodes.mailboxes;
        // Nobody else sees what a stream does next that has given the mailbox up: it closes its socket. One that has read
        // sends what it read and says how far it is, which sweeps alone look at.
        let swept = self.scenario.sweeps > 0;
        let through = store.is_release(task) || (store.is_read(task) && !swept);
        store.commit(task);
        if through { self.resume(task) } else { Ok(()) }
    }

    fn resume(&mut self, task: Task) -> Result<(), String> {
        let store = &self.nodes.mailboxes;
        match task {
            Task::Stream(at) => self.connections[at].go_on(store),
            Task::Sweep(at) => {
                let (_, sweep) = &mut self.sweeps[at];
                if sweep.as_mut().is_some_and(|job| job.go_on(store).is_ready()) {
                    *sweep = None;
                }
            }
            Task::Submission(at) => {
                let Submitting::Under(node, job) = &mut self.submissions[at] else { return Ok(()) };
                let node = *node;
                let here = self.nodes.all[node].line.borrow().has_listener(self.mailbox);
                if let Poll::Ready(answer) = job.go_on(store) {
                    answer.map_err(|error| format!("refused: {error}"))?;
                    self.submissions[at] = Submitting::Accepted;
                    let reason = self.node(node).app.services.push.forget(self.mailbox);
                    if reason.is_some() {
                        self.asked_for(node);
                    }
                    properties::wake_up(self, at, (node, here), reason)?;
                }
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), String> {
        let Some(at) = self.current() else { return Ok(()) };
        let (connection, mut ids) = (&mut self.connections[at], Vec::new());
        for (id, number) in connection.pipe.read() {
            let place =
                self.nodes.mailboxes.look(|mailbox| mailbox.kept(number).map(|kept| kept.seq));
            let place = place.ok_or("it was never stored")?;
            if place <= connection.last {
                return Err(format!("{number} came after a later one, or twice on a connection"));
            }
            connection.last = place;
            self.got.insert(number);
            ids.push(id);
        }
        if !ids.is_empty() {
            connection.acknowledged(ids, &self.nodes.mailboxes);
        }
        Ok(())
    }

    fn sweep(&mut self, at: usize) {
        let app = Arc::clone(&self.node(at).app);
        let sweep = async move { app.services.relay.sweep().await.unwrap() };
        // It begins with the listeners that there are.
        let listeners = self.connections.iter().map(|it| {
            let listens = self.is_listener(it);
            (listens, it.waiting.epoch(), it.waiting.seen())
        });
        let listeners: Vec<(bool, i64, i64)> = listeners.collect();
        let mut job = Job::new(Task::Sweep(self.sweeps.len()), listeners, sweep);
        let done = job.go_on(&self.nodes.mailboxes).is_ready();
        self.sweeps.push((at, (!done).then_some(job)));
    }

    fn crash(&mut self, at: usize) {
        let (old, store) = (self.live[at], &self.nodes.mailboxes);
        self.connections.iter_mut().filter(|it| it.node == old).for_each(|it| it.cut(store));
        for (at, submission) in self.submissions.iter_mut().enumerate() {
            if matches!(submission, Submitting::Under(node, _) if *node == old) {
                *submission = Submitting::Lost;
                store.forget(Task::Submission(at));
            }
        }
        for (at, (_, sweep)) in
            self.sweeps.iter_mut().enumerate().filter(|(_, (node, _))| *node == old)
        {
            *sweep = None;
            store.forget(Task::Sweep(at));
        }
        store.forget_deletes(self.node(old).id);
        self.asked.values_mut().for_each(|nodes| _ = nodes.remove(&old));
        self.live[at] = self.nodes.all.len() - 1;
        self.crashed = true;
    }

    /// The same for worlds that go on in the same way.
    pub(super) fn fingerprint(&self) -> u64 {
        let into = &mut DefaultHasher::new();
        self.nodes.mailboxes.hash(into);
        for connection in &self.connections {
            connection.hash(into);
            self.is_listener(connection).hash(into);
        }
        self.connections.last().inspect(|last| last.hash_as_the_last(into));
        for submission in &self.submissions {
            match submission {
                Submitting::Not => 0.hash(into),
                Submitting::Under(_, job) => (1, job.state()).hash(into),
                Submitting::Accepted => 2.hash(into),
                Submitting::Lost => 3.hash(into),
            }
        }
        for (node, sweep) in &self.sweeps {
            (node, sweep.as_ref().map(Job::state)).hash(into);
        }
        self.air.iter().for_each(|notice| mark(notice).hash(into));
        (self.live, self.moves, &self.got).hash(into);
        if properties::may_be_away(self.scenario) {
            self.asked.hash(into);
        }
        (self.lost, self.repeated, self.crashed, self.finished).hash(into);
        into.finish()
    }
}

/// To whom a notice says what, whichever the mailbox and the time.
pub(super) fn mark((topic, notice): &(String, Bytes)) -> (String, (u8, i64)) {
    (topic.clone(), peek::mark(notice))
}
