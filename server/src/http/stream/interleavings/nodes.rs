//! The nodes, with all their real services, on one store in memory. They outlive the worlds: making them takes longer than a
//! thousand schedules. A world has a mailbox of its own, so that nothing of another one is left.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::store::{Handle, Mailboxes};
use crate::bus::peek::Line;
use crate::config::{Config, Limits, OnFailure};
use crate::http::App;
use crate::identity::ServerIdentity;
use crate::push::Senders;
use crate::service::Services;
use crate::service::gate::OpenGate;
use crate::service::hooks::Hooks;
use crate::storage::{AttachmentStore, MailboxId, NodeId, Store};

/// Envelopes on their way to a device.
const WINDOW: u64 = 2;

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) app: Arc<App>,
    pub(super) line: RefCell<Line>,
}

pub(super) struct Nodes {
    /// Two, and one that takes the place of one that is killed.
    pub(super) all: Vec<Node>,
    pub(super) mailboxes: Arc<Mailboxes>,
    next: Cell<i64>,
}

impl Nodes {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path());
        let mailboxes = Arc::<Mailboxes>::default();
        let all = (1..=3).map(|id| Node::new(NodeId(id), &config, &mailboxes));
        Self { all: all.collect(), mailboxes, next: Cell::new(1) }
    }

    pub(super) fn next_mailbox(&self) -> MailboxId {
        MailboxId(self.next.replace(self.next.get() + 1))
    }

    /// Nothing is under way any more.
    pub(super) fn clear(&self, mailbox: MailboxId) {
        self.mailboxes.clear();
        for node in &self.all {
            node.line.borrow_mut().sent();
            node.app.services.push.forget(mailbox);
        }
    }
}

impl Node {
    fn new(id: NodeId, config: &Config, mailboxes: &Arc<Mailboxes>) -> Self {
        let identity = ServerIdentity::load_or_create(config).unwrap();
        let limits = Limits { window_messages: WINDOW, ..config.limits.clone() };
        let (bus, line) = Line::new(id);
        let store: Arc<dyn Store> = Arc::new(Handle { mailboxes: Arc::clone(mailboxes), node: id });
        let services = Services::new(
            Arc::clone(&store),
            AttachmentStore::folder(config.data_dir.clone()),
            (Arc::new(bus), id),
            (
                Senders::open(config, &identity).unwrap(),
                Arc::new(OpenGate),
                Hooks::new(None, OnFailure::Allow, &limits),
            ),
            identity,
            limits,
        );
        let app = App {
            services,
            store,
            alone: false,
            read_only: false,
            draining: CancellationToken::new(),
            leaving: CancellationToken::new(),
            stopping: CancellationToken::new(),
            open: TaskTracker::new(),
        };
        Self { id, app: Arc::new(app), line: RefCell::new(line) }
    }
}
