//! One stream, real but for its socket and for who says what it does next.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::task::Poll;

use axum::extract::ws::Message;
use futures_util::FutureExt;

use super::device::{Pipe, acknowledgement};
use super::digest;
use super::job::Job;
use super::nodes::Node;
use super::steps::Step;
use super::store::{Mailboxes, Task, account_of};
use crate::bus::peek::Peek;
use crate::http::stream::mailbox::{self, Mailbox};
use crate::http::stream::socket::Socket;
use crate::http::stream::{End, Event, Stream, Tick};
use crate::service::accounts::Caller;
use crate::storage::MailboxId;

/// Where a stream is.
enum Course {
    Waiting(Box<Stream>),
    Turn(Job<(Box<Stream>, Result<(), End>)>),
    Ending(Job<()>),
    Over,
}

pub(super) struct Connection {
    /// Among all nodes.
    pub(super) node: usize,
    task: Task,
    course: Course,
    pub(super) waiting: Peek,
    pub(super) pipe: Pipe,
    /// The device has said that it leaves.
    pub(super) left: bool,
    /// The place of the last envelope that the device has read here.
    pub(super) last: i64,
}

impl Connection {
    pub(super) fn open(at: usize, (number, node): (usize, &Node), mailbox: MailboxId) -> Self {
        let (app, pipe, task) = (Arc::clone(&node.app), Pipe::default(), Task::Stream(at));
        let account = account_of(mailbox);
        let caller = Caller { account, account_row: 1, device: 1, mailbox, identity_key: [5; 33] };
        let (socket, open) = (Socket::new(pipe.clone(), 1), app.open.token());
        let mut stream = Box::new(Stream::new(app, Some(caller), socket, open));
        let waiting = stream.mailbox.as_ref().map(Mailbox::waiting).unwrap();
        let begin = async move {
            let begun = stream.begin().await;
            (stream, begun)
        };
        // It has taken its place; another one may do so before it goes on.
        let course = Course::Turn(Job::new(task, "begin", begin).woken());
        Self { node: number, task, course, waiting, pipe, left: false, last: 0 }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.course, Course::Over)
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.course, Course::Waiting(_))
    }

    /// The device has no use for it.
    pub(super) fn is_useless(&self) -> bool {
        self.left || self.is_over() || self.pipe.closed().is_some()
    }

    /// Its node is killed.
    pub(super) fn cut(&mut self, store: &Mailboxes) {
        self.course = Course::Over;
        store.forget(self.task);
    }

    /// What it does next, by itself or since the device has left.
    pub(super) fn due(&self, at: usize, store: &Mailboxes) -> Vec<Step> {
        let stream = match &self.course {
            Course::Waiting(stream) => stream,
            Course::Turn(turn) => return turn.next(store).into_iter().collect(),
            Course::Ending(ending) => return ending.next(store).into_iter().collect(),
            Course::Over => return Vec::new(),
        };
        let hole = stream.mailbox.as_ref().is_some_and(|it| it.hole_since().is_some());
        let due = [
            self.waiting.waiting().map(|_| Step::Wake(at)),
            hole.then_some(Step::Hole(at)),
            self.left.then_some(Step::Gone(at)),
        ];
        due.into_iter().flatten().collect()
    }

    /// Up to its next call or wait.
    pub(super) fn go_on(&mut self, store: &Mailboxes) {
        if let Course::Turn(turn) = &mut self.course
            && let Poll::Ready((stream, done)) = turn.go_on(store)
        {
            self.course = match done {
                Ok(()) => Course::Waiting(stream),
                Err(end) => Course::Ending(Job::new(self.task, "end", stream.end(end))),
            };
        }
        if let Course::Ending(ending) = &mut self.course
            && ending.go_on(store).is_ready()
        {
            self.course = Course::Over;
        }
    }

    /// Takes what waits.
    ///
    /// # Errors
    /// It sends something though it knows that it is displaced.
    pub(super) fn wake(&mut self, store: &Mailboxes) -> Result<(), String> {
        let Course::Waiting(stream) = &self.course else { return Ok(()) };
        let (waiting, before) = (self.waiting.waiting(), self.pipe.unread());
        let wakes = mailbox::wakes(stream.mailbox.as_ref()).now_or_never().unwrap();
        let displaced = wakes.ended.is_some();
        self.turn(Event::Wakes(wakes), waiting, store);
        if displaced && self.pipe.unread() != before {
            return Err("a connection knew that it was displaced, and sent something".into());
        }
        Ok(())
    }

    pub(super) fn hole(&mut self, store: &Mailboxes) {
        self.turn(Event::Tick(Tick::Hole), "hole", store);
    }

    pub(super) fn gone(&mut self, store: &Mailboxes) {
        let frame = self.left.then(|| Ok(Message::Close(None)));
        self.turn(Event::Frame(frame), "gone", store);
    }

    pub(super) fn acknowledged(&mut self, ids: Vec<bytes::Bytes>, store: &Mailboxes) {
        self.turn(Event::Frame(Some(Ok(acknowledgement(ids)))), self.last, store);
    }

    fn turn(&mut self, event: Event, mark: impl Hash, store: &Mailboxes) {
        let course = std::mem::replace(&mut self.course, Course::Over);
        let Course::Waiting(mut stream) = course else { unreachable!("it does not wait") };
        let state = digest(&stream.mailbox.as_ref().map(Mailbox::state));
        let turn = async move {
            let done = stream.turn(event).await;
            (stream, done)
        };
        self.course = Course::Turn(Job::new(self.task, (state, digest(&mark)), turn));
        self.go_on(store);
    }

    /// What the device sees of its last connection.
    pub(super) fn hash_as_the_last(&self, into: &mut impl Hasher) {
        (self.waiting.epoch(), self.pipe.unread(), self.last).hash(into);
    }

    pub(super) fn hash(&self, into: &mut impl Hasher) {
        (self.pipe.closed(), self.left).hash(into);
        if !self.is_over() {
            let (waiting, epoch) = (self.waiting.waiting(), self.waiting.epoch());
            (self.node, waiting, epoch, self.waiting.seen()).hash(into);
        }
        match &self.course {
            Course::Waiting(stream) => stream.mailbox.as_ref().map(Mailbox::state).hash(into),
            Course::Turn(turn) => (1, turn.state()).hash(into),
            Course::Ending(ending) => (2, ending.state()).hash(into),
            Course::Over => 3.hash(into),
        }
    }
}
