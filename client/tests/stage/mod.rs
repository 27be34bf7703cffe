//! The stage of the stories: a server, people with a profile each.
#![allow(unreachable_pub, reason = "a module of several tests")]
#![allow(dead_code, reason = "each story uses its part")]

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tuckseal_client::{
    Client, Event, Events, Message, ProfileError, Registration, RunError, SentId, Settings,
};
use tuckseal_server::{Config, Server};

/// How long anything may take; reached only when it would never come.
pub const TIME: Duration = Duration::from_secs(50);

pub struct Relay {
    pub url: String,
    pub folder: TempDir,
    listen: std::net::SocketAddr,
    set: Box<dyn Fn(&mut Config) + Send + Sync>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Relay {
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// With other settings, over http.
    pub async fn start_with(set: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        let mut relay = Self::start_set(set).await;
        relay.url = format!("http://{}", relay.listen);
        relay
    }

    /// One that speaks https, under the name that its certificate has.
    pub async fn start_with_tls(certificate: String, key: String) -> Self {
        Self::start_set(move |config| {
            config.tls_certificate_file = Some(certificate.clone().into());
            config.tls_key_file = Some(key.clone().into());
        })
        .await
    }

    /// With other settings; its URL is that of https and of localhost.
    pub async fn start_set(set: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (listen, set) = (([127, 0, 0, 1], 0).into(), Box::new(set));
        let mut relay = Self { url: String::new(), folder, listen, set, running: None };
        relay.start_again().await;
        relay.url = format!("https://localhost:{}", relay.listen.port());
        relay
    }

    /// On the same files and port.
    pub async fn start_again(&mut self) {
        let mut config = Config::new(self.folder.path());
        config.listen = self.listen;
        (self.set)(&mut config);
        let server = Server::bind(config).await.unwrap();
        self.listen = server.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(async { server.run(shutdown).await.unwrap() });
        self.running = Some((stop, task));
    }

    /// From its next start on.
    pub fn reconfigure(&mut self, set: impl Fn(&mut Config) + Send + Sync + 'static) {
        self.set = Box::new(set);
    }

    /// How many rows a table of its database has.
    pub fn rows(&self, table: &str) -> u64 {
        let database = rusqlite::Connection::open(self.folder.path().join("tuckseal.db")).unwrap();
        let sql = format!("SELECT count(*) FROM {table}");
        database.query_row(&sql, (), |row| row.get::<_, i64>(0)).unwrap() as u64
    }

    pub async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        drop(stop);
        task.await.unwrap();
    }
}

pub fn registration(url: &str, name: &str) -> Registration {
    Registration { server: url.into(), name: name.into(), trust_root: None, ca: None }
}

pub struct Person {
    pub client: Client,
    pub folder: TempDir,
    /// The largest message id that `next` gave.
    shown: Mutex<u64>,
}

impl Person {
    pub async fn register(relay: &Relay, name: &str) -> Self {
        Self::register_in(tempfile::tempdir().unwrap(), relay, name).await
    }

    pub async fn register_in(folder: TempDir, relay: &Relay, name: &str) -> Self {
        let client = Client::register(folder.path(), registration(&relay.url, name)).await.unwrap();
        Self::of(client, folder)
    }

    pub fn of(client: Client, folder: TempDir) -> Self {
        Self { client, folder, shown: Mutex::new(0) }
    }

    pub async fn open(folder: TempDir) -> Self {
        let client = open(folder.path(), Settings::default()).await;
        Self { client, folder, shown: Mutex::new(0) }
    }

    /// Returns when nobody has the profile open any more.
    pub async fn close(folder: &TempDir) {
        drop(open(folder.path(), Settings::default()).await);
    }

    /// Closes the profile and opens it again.
    pub async fn reopen(self) -> Self {
        self.reopen_with(Settings::default()).await
    }

    pub async fn reopen_with(self, settings: Settings) -> Self {
        let Self { client, folder, .. } = self;
        drop(client);
        let client = open(folder.path(), settings).await;
        Self { client, folder, shown: Mutex::new(0) }
    }

    /// Closes the profile, changes its database as nobody should, and opens it again.
    pub async fn tampered(self, sql: &str) -> Self {
        let Self { client, folder, .. } = self;
        drop(client);
        Self::close(&folder).await;
        database(folder.path()).execute_batch(sql).unwrap();
        let client = open(folder.path(), Settings::default()).await;
        Self { client, folder, shown: Mutex::new(0) }
    }

    pub fn spawn(&self) -> Running {
        let (stop, stopped) = oneshot::channel::<()>();
        let client = self.client.clone();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            client.run(shutdown).await
        });
        Running { stop, task }
    }

    pub async fn send(&self, to: &Person, text: &str) -> SentId {
        self.client.send(to.client.account(), text).await.unwrap()
    }

    /// The next message that this did not give yet, acknowledged or not.
    pub async fn next(&self) -> Message {
        let mut events = self.client.events();
        let mut shown = self.shown.lock().await;
        let next = async {
            loop {
                let inbox = self.client.inbox().await.unwrap();
                if let Some(message) = inbox.into_iter().find(|message| message.id.0 > *shown) {
                    *shown = message.id.0;
                    return message;
                }
                events.recv().await.unwrap();
            }
        };
        timeout(TIME, next).await.expect("no message came")
    }

    /// Waits until the relay has everything.
    pub async fn sent(&self) {
        let mut events = self.client.events();
        let sent = async {
            while self.client.outbox_len().await.unwrap() > 0 {
                events.recv().await.unwrap();
            }
        };
        timeout(TIME, sent).await.expect("not everything was sent");
    }
}

/// Waits for an event that `wanted` gives something for.
pub async fn event<T>(events: &mut Events, wanted: impl Fn(Event) -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = wanted(events.recv().await.unwrap()) {
                return found;
            }
        }
    };
    timeout(TIME, found).await.expect("the event did not come")
}

/// Waits until a call that is still being carried out has let go of the profile.
async fn open(folder: &Path, settings: Settings) -> Client {
    let opened = async {
        loop {
            match Client::open(folder, settings).await {
                Ok(client) => return client,
                Err(ProfileError::InUse { .. }) => {
                    tokio::time::sleep(Duration::from_millis(5)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(TIME, opened).await.expect("the profile stays in use")
}

pub fn database(folder: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(folder.join("profile.db")).unwrap()
}

pub struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }

    /// Breaks it off at whatever it does, as a time limit around it would.
    pub async fn dropped(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    /// Waits for the end that comes by itself.
    pub async fn ended(self) -> Result<(), RunError> {
        timeout(TIME, self.task).await.expect("it still runs").unwrap()
    }
}

/// Reads and acknowledges so many messages; their texts.
pub async fn collect(person: &Person, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let message = person.next().await;
        assert_eq!(message.missing_before, 0);
        person.client.acknowledge(message.id).await.unwrap();
        texts.push(message.text);
    }
    texts
}

pub fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// The relay's own database.
pub fn relay_database(relay: &Relay) -> rusqlite::Connection {
    rusqlite::Connection::open(relay.folder.path().join("tuckseal.db")).unwrap()
}

/// Makes the signed and the last-resort prekeys so many days older, for `tampered`.
pub fn older_prekeys(days: u64) -> String {
    let age = days * 24 * 60 * 60 * 1000;
    format!(
        "UPDATE signed_prekey SET created_ms = created_ms - {age};
         UPDATE kem_prekey SET created_ms = created_ms - {age} WHERE use = 1;"
    )
}

/// Waits until it holds.
pub async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIME, waiting).await.expect("it does not come to hold");
}

/// The ids of the signed and the last-resort prekey that the relay gives out for the device that registered so many-th.
pub fn long_lived_ids(relay: &Relay, device: u32) -> (u32, u32) {
    let ids = "SELECT min(id) FILTER (WHERE kind = 1), min(id) FILTER (WHERE kind = 2) FROM prekey_fixed WHERE device = ?1";
    let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    relay_database(relay).query_row(ids, (device,), pair).unwrap()
}
