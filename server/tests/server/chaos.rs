//! Two nodes, a database and a bus, each of them killed while everybody talks: nothing accepted is missing, the order
//! of every sender holds, nothing is stored twice, no prekey goes out twice.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::StatusCode;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tuckseal::service::{Bundles, Envelope, server_frame};

use crate::crash::program;
use crate::stores::BusServer;
use crate::world::{Party, one_time_keys};

pub(crate) const DEVICES: usize = 3;
pub(crate) const SENDERS: usize = 4;
/// Accepted messages between one kill and the next.
const CALM: usize = 60;
/// What the node answers while its database is away, and the balancer while nodes are.
const GONE: [StatusCode; 3] =
    [StatusCode::SERVICE_UNAVAILABLE, StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT];
pub(crate) const PAUSE: Duration = Duration::from_millis(20);
const KEYS: [&str; 4] =
    ["trust-root.public", "server.private", "server.certificate", "relay.secret"];

/// A PostgreSQL of the test's own, so that it can be killed.
pub(crate) struct Postgres {
    bin: PathBuf,
    folder: TempDir,
    pub(crate) port: u16,
}

impl Postgres {
    pub(crate) async fn start() -> Self {
        let own = Self::place().await;
        own.run("initdb", &["-D", &own.data(), "-U", "postgres", "-A", "trust", "--no-sync"]).await;
        own.up().await;
        own
    }

    /// A folder and a port, with nothing in them.
    pub(crate) async fn place() -> Self {
        let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let mut bins: Vec<PathBuf> = found.map(|entry| entry.unwrap().path().join("bin")).collect();
        bins.sort();
        let bin = bins.pop().expect("no PostgreSQL programs: apt-get install postgresql");
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let own = Self { bin, folder: tempfile::tempdir().unwrap(), port };
        let folder = own.folder.path().to_str().unwrap();
        for command in [["chmod", "711", folder], ["chown", "postgres", folder]] {
            // Whoever is not root keeps the folder, and needs no other user.
            let _ =
                Command::new(command[0]).args(&command[1..]).stderr(Stdio::null()).status().await;
        }
        own
    }

    pub(crate) fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    pub(crate) async fn up(&self) {
        let options = format!("-p {} -h 127.0.0.1 -k {}", self.port, self.folder.path().display());
        let log = self.folder.path().join("log").display().to_string();
        self.run("pg_ctl", &["-D", &self.data(), "-l", &log, "-o", &options, "-w", "start"]).await;
    }

    /// Ends it without a checkpoint, as a crash does.
    pub(crate) async fn crash(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-m", "immediate", "stop"]).await;
    }

    pub(crate) async fn run(&self, name: &str, arguments: &[&str]) {
        let status = Command::from(self.command(name, arguments)).status().await;
        let status = status.unwrap();
        assert!(status.success(), "{name} {arguments:?}");
    }

    /// It refuses to run as root.
    fn command(&self, name: &str, arguments: &[&str]) -> std::process::Command {
        let root = std::fs::metadata("/proc/self")
            .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        let mut command = std::process::Command::new(if root { "setpriv" } else { "env" });
        if root {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        command.arg(self.bin.join(name)).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    pub(crate) fn setting(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.command("pg_ctl", &["-D", &self.data(), "-m", "immediate", "stop"]).status();
    }
}

/// How many messages a receiver waits for, once that is known.
pub(crate) type Wanted = Arc<Mutex<Option<usize>>>;

/// Where the nodes are now.
pub(crate) type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

struct Node {
    folder: TempDir,
    child: Child,
}

impl Node {
    async fn start(folder: TempDir, database: &str, bus: &str) -> (Self, SocketAddr) {
        let mut command = program(folder.path());
        command.args(["--database", database, "--bus", bus, "--sweep-interval-secs", "1"]);
        command.args(["--fetch-caller-burst", "1000000", "--fetch-target-burst", "1000000"]);
        command.args(["--log", "off"]).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("the node did not start");
        let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
        (Self { folder, child }, address)
    }

    async fn kill(mut self) -> TempDir {
        self.child.kill().await.unwrap();
        self.folder
    }
}

pub(crate) fn copy_keys(from: &Path, to: &Path) {
    for name in KEYS {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// What the talkers share.
pub(crate) struct Talk {
    pub(crate) addresses: Addresses,
    pub(crate) accepted: AtomicUsize,
    pub(crate) stop: AtomicBool,
    pub(crate) turn: AtomicUsize,
}

impl Talk {
    /// One node after the other.
    pub(crate) fn address(&self) -> SocketAddr {
        let addresses = self.addresses.lock().unwrap();
        addresses[self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len()]
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Sends one message after the other, each until it is accepted. Gives how many were.
pub(crate) async fn send(talk: Arc<Talk>, devices: Vec<Party>, sender: usize) -> Vec<usize> {
    let mut accepted = vec![0; DEVICES];
    let mut device = sender;
    while !talk.stopped() {
        device = (device + 1) % DEVICES;
        let text = format!("{sender}/{}", accepted[device]);
        let submission = devices[device].submission(text.as_bytes());
        loop {
            let at = Party { address: talk.address(), ..devices[device].clone() };
            match at.try_receive(&submission).await {
                Ok(StatusCode::OK) => break,
                Ok(status) if GONE.contains(&status) => tokio::time::sleep(PAUSE).await,
                Err(_) => tokio::time::sleep(PAUSE).await,
                Ok(other) => panic!("{other}"),
            }
        }
        accepted[device] += 1;
        talk.accepted.fetch_add(1, Ordering::Relaxed);
    }
    accepted
}

/// Receives, acknowledges and reconnects until `wanted` are there. Gives the texts in the order of first delivery.
pub(crate) async fn receive(
    talk: Arc<Talk>,
    device: Party,
    wanted: Arc<Mutex<Option<usize>>>,
) -> Vec<String> {
    let (mut ids, mut texts) = (BTreeSet::new(), Vec::new());
    let enough = |got: usize| wanted.lock().unwrap().is_some_and(|wanted| got >= wanted);
    while !enough(texts.len()) {
        let at = Party { address: talk.address(), ..device.clone() };
        let Ok(mut stream) = at.try_stream().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        while !enough(texts.len()) {
            let body = tokio::time::timeout(Duration::from_millis(500), stream.try_body()).await;
            let envelopes: Vec<Envelope> = match body {
                Ok(Some(server_frame::Body::Delivery(delivery))) => delivery.envelopes,
                Ok(Some(_)) | Err(_) => continue,
                Ok(None) => break,
            };
            for envelope in &envelopes {
                if ids.insert(envelope.id.clone()) {
                    texts.push(String::from_utf8(envelope.content.to_vec()).unwrap());
                }
            }
            if stream.try_ack(&envelopes).await.is_err() {
                break;
            }
        }
    }
    texts
}

/// Takes bundles. Gives the ids of the one-time prekeys that came.
pub(crate) async fn take(talk: Arc<Talk>, device: Party) -> Vec<u32> {
    let mut ids = Vec::new();
    while !talk.stopped() {
        let at = Party { address: talk.address(), ..device.clone() };
        if let Ok(response) = at.fetch(&at).send().await
            && response.status() == StatusCode::OK
            && let Ok(body) = response.bytes().await
        {
            let bundles: Bundles = prost::Message::decode(body).unwrap();
            ids.extend(bundles.devices[0].one_time.as_ref().map(|key| key.id));
        }
        tokio::time::sleep(PAUSE).await;
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_is_killed_and_nothing_that_was_accepted_is_missing() {
    let (database, mut bus) = (Postgres::start().await, BusServer::nats().await);
    let (setting, bus_address) = (database.setting(), bus.address());
    let (first, one) = Node::start(tempfile::tempdir().unwrap(), &setting, &bus_address).await;
    let folder = tempfile::tempdir().unwrap();
    copy_keys(first.folder.path(), folder.path());
    let (second, two) = Node::start(folder, &setting, &bus_address).await;
    let mut nodes = [Some(first), Some(second)];
    let talk = Arc::new(Talk {
        addresses: Arc::new(Mutex::new(vec![one, two])),
        accepted: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        turn: AtomicUsize::new(0),
    });
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        let device = Party::register(one, &format!("device{n}")).await;
        let keys = one_time_keys(&device.identity, 1..=100);
        assert_eq!(device.upload(&keys).await.status(), StatusCode::OK);
        devices.push(device);
    }

    let wanted: Vec<_> = (0..DEVICES).map(|_| Arc::new(Mutex::new(None))).collect();
    let receivers: Vec<_> = devices
        .iter()
        .zip(&wanted)
        .map(|(device, wanted)| {
            tokio::spawn(receive(Arc::clone(&talk), device.clone(), Arc::clone(wanted)))
        })
        .collect();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| tokio::spawn(send(Arc::clone(&talk), devices.clone(), sender)))
        .collect();
    let takers: Vec<_> = (0..4)
        .map(|n| (n % 2, tokio::spawn(take(Arc::clone(&talk), devices[n % 2].clone()))))
        .collect();

    for event in ["node 0", "bus", "node 1", "database", "node 0", "database", "bus", "node 1"] {
        let calm_until = talk.accepted.load(Ordering::Relaxed) + CALM;
        while talk.accepted.load(Ordering::Relaxed) < calm_until {
            assert!(!senders.iter().any(|sender| sender.is_finished()), "a sender gave up");
            tokio::time::sleep(PAUSE).await;
        }
        match event {
            "bus" => bus.restart().await,
            "database" => {
                database.crash().await;
                database.up().await;
            }
            node => {
                let n: usize = node[5..].parse().unwrap();
                let folder = nodes[n].take().unwrap().kill().await;
                let (node, address) = Node::start(folder, &setting, &bus_address).await;
                nodes[n] = Some(node);
                talk.addresses.lock().unwrap()[n] = address;
            }
        }
    }
    let given = end(&talk, senders, takers, (receivers, wanted)).await;
    assert!(given[..2].iter().all(|given| !given.is_empty()));
}

/// Stops the talk and checks it: nothing accepted is missing or there twice, the order of every sender holds, no
/// prekey went out twice. Gives the prekeys that went out, by device.
pub(crate) async fn end(
    talk: &Talk,
    senders: Vec<JoinHandle<Vec<usize>>>,
    takers: Vec<(usize, JoinHandle<Vec<u32>>)>,
    (receivers, wanted): (Vec<JoinHandle<Vec<String>>>, Vec<Wanted>),
) -> Vec<BTreeSet<u32>> {
    talk.stop.store(true, Ordering::Relaxed);
    let mut accepted = Vec::new();
    for sender in senders {
        accepted.push(sender.await.unwrap());
    }
    let mut given = vec![BTreeSet::new(); DEVICES];
    for (device, taker) in takers {
        for id in taker.await.unwrap() {
            assert!(given[device].insert(id), "prekey {id} went out twice");
        }
    }
    for (device, (receiver, wanted)) in receivers.into_iter().zip(&wanted).enumerate() {
        let all: usize = accepted.iter().map(|accepted| accepted[device]).sum();
        *wanted.lock().unwrap() = Some(all);
        let received = tokio::time::timeout(Duration::from_secs(90), receiver).await;
        let received = received.expect("an accepted message is missing").unwrap();
        assert_eq!(received.len(), all, "stored twice");
        for (sender, accepted) in accepted.iter().enumerate() {
            let prefix = format!("{sender}/");
            let own: Vec<&String> = received.iter().filter(|t| t.starts_with(&prefix)).collect();
            let sent: Vec<String> = (0..accepted[device]).map(|n| format!("{prefix}{n}")).collect();
            assert!(own.iter().copied().eq(sent.iter()), "order of sender {sender} at {device}");
        }
    }
    given
}
