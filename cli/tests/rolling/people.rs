//! People who write to each other all the time, each with a client of their own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tuckseal::ServiceId;
use tuckseal_client::{Client, Event, Events, Registration};

/// How long anything may take; reached only when it would never come.
pub(crate) const TIME: Duration = Duration::from_secs(50);
/// Between two messages of one person.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until it holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TIME, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

struct Person {
    client: Client,
    connected: AtomicBool,
    /// Streams that have ended.
    ended: AtomicUsize,
    /// How many messages went to whom.
    sent: Mutex<BTreeMap<ServiceId, usize>>,
    /// What came from whom, as the app got it.
    read: Mutex<BTreeMap<ServiceId, Vec<String>>>,
    _folder: TempDir,
}

pub(crate) struct Talk {
    people: Vec<Arc<Person>>,
    /// No more is written.
    quiet: watch::Sender<bool>,
    writing: Vec<JoinHandle<()>>,
    /// Those who read and watch: they end by a panic alone.
    listening: Vec<JoinHandle<()>>,
}

impl Talk {
    pub(crate) async fn start(url: &str, count: usize) -> Self {
        let mut people = Vec::new();
        for n in 0..count {
            people.push(Arc::new(Person::register(url, &format!("person{n}")).await));
        }
        let mut listening = Vec::new();
        for person in &people {
            let client = person.client.clone();
            listening.push(tokio::spawn(watch(Arc::clone(person), client.events())));
            listening.push(tokio::spawn(read(Arc::clone(person), client.events())));
            tokio::spawn(async move { client.run(std::future::pending()).await });
        }
        let quiet = watch::Sender::new(false);
        let mut writing = Vec::new();
        for (n, person) in people.iter().enumerate() {
            let others = people.iter().cycle().skip(n + 1).take(count - 1);
            let others: Vec<_> = others.map(|other| other.client.account()).collect();
            writing.push(tokio::spawn(write(Arc::clone(person), others, quiet.subscribe())));
        }
        let talk = Self { people, quiet, writing, listening };
        until("everybody is connected", || talk.all_are_connected()).await;
        until("everybody has heard everybody", || talk.all_have_heard_all()).await;
        talk
    }

    pub(crate) fn all_are_connected(&self) -> bool {
        self.people.iter().all(|person| person.connected.load(Ordering::SeqCst))
    }

    fn all_have_heard_all(&self) -> bool {
        self.people.iter().all(|person| person.read.lock().unwrap().len() == self.people.len() - 1)
    }

    /// How many streams have ended so far.
    pub(crate) fn ended(&self) -> usize {
        self.people.iter().map(|person| person.ended.load(Ordering::SeqCst)).sum()
    }

    pub(crate) fn sent(&self) -> usize {
        let sent = |person: &Arc<Person>| person.sent.lock().unwrap().values().sum::<usize>();
        self.people.iter().map(sent).sum()
    }

    fn read(&self) -> usize {
        let read = |person: &Arc<Person>| {
            person.read.lock().unwrap().values().map(Vec::len).sum::<usize>()
        };
        self.people.iter().map(read).sum()
    }

    pub(crate) async fn ends_with_everything_read_once_and_in_order(self) {
        self.quiet.send_replace(true);
        for writing in self.writing.iter() {
            until("nobody writes", || writing.is_finished()).await;
        }
        let sent = self.sent();
        assert!(self.listening.iter().all(|listening| !listening.is_finished()));
        until("everything is read", || self.read() >= sent).await;
        for from in &self.people {
            for (to, count) in from.sent.lock().unwrap().iter() {
                let to = self.people.iter().find(|person| person.client.account() == *to).unwrap();
                let read = to.read.lock().unwrap()[&from.client.account()].clone();
                let wanted: Vec<_> = (0..*count).map(|n| n.to_string()).collect();
                assert_eq!(read, wanted);
            }
        }
    }
}

impl Person {
    async fn register(url: &str, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registration =
            Registration { server: url.into(), name: name.into(), trust_root: None, ca: None };
        Self {
            client: Client::register(folder.path(), registration).await.unwrap(),
            connected: AtomicBool::new(false),
            ended: AtomicUsize::new(0),
            sent: Mutex::default(),
            read: Mutex::default(),
            _folder: folder,
        }
    }
}

async fn watch(person: Arc<Person>, mut events: Events) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Connected => person.connected.store(true, Ordering::SeqCst),
            // Attempts that fail are told as well.
            Event::Disconnected { .. } if person.connected.swap(false, Ordering::SeqCst) => {
                person.ended.fetch_add(1, Ordering::SeqCst);
            }
            Event::Failure { reason, .. } => panic!("{reason:?}"),
            Event::Missed { count } => panic!("{count} events were missed"),
            _ => {}
        }
    }
}

async fn write(person: Arc<Person>, others: Vec<ServiceId>, quiet: watch::Receiver<bool>) {
    for to in others.iter().cycle() {
        if *quiet.borrow() {
            return;
        }
        let next = person.sent.lock().unwrap().get(to).copied().unwrap_or(0);
        person.client.send(*to, &next.to_string()).await.unwrap();
        person.sent.lock().unwrap().insert(*to, next + 1);
        sleep(PAUSE).await;
    }
}

async fn read(person: Arc<Person>, mut events: Events) {
    loop {
        for message in person.client.inbox().await.unwrap() {
            assert_eq!(message.missing_before, 0);
            person.client.acknowledge(message.id).await.unwrap();
            person.read.lock().unwrap().entry(message.from).or_default().push(message.text);
        }
        events.recv().await.unwrap();
    }
}
