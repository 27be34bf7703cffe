//! Several nodes on one PostgreSQL, woken by NATS, by Redis or, without them, by the sweep.

use std::time::Duration;

use reqwest::StatusCode;
use tempfile::TempDir;
use tuckseal_server::Config;

use crate::cluster::{Line, Silent};
use crate::stores::{BusServer, Database};
use crate::world::{PATIENCE, Party, World, one_time_keys, texts};

/// One server of several: the same database, bus and keys.
pub(crate) struct Cluster {
    database: Database,
    pub(crate) bus: Option<BusServer>,
    keys: Option<std::path::PathBuf>,
    pub(crate) nodes: Vec<World>,
}

pub(crate) const KEYS: [&str; 4] =
    ["trust-root.public", "server.private", "server.certificate", "relay.secret"];

impl Cluster {
    pub(crate) async fn start(nodes: usize, bus: Option<BusServer>, sweep_secs: u64) -> Self {
        Self::set(nodes, bus, |config| config.limits.sweep_interval_secs = sweep_secs).await
    }

    pub(crate) async fn set(
        nodes: usize,
        bus: Option<BusServer>,
        change: impl Fn(&mut Config),
    ) -> Self {
        let database = Database::create().await;
        let mut cluster = Self { database, bus, keys: None, nodes: Vec::new() };
        for _ in 0..nodes {
            let folder = cluster.folder();
            let world = World::set(folder, |config| {
                config.database = Some(cluster.database.setting().parse().unwrap());
                config.bus = cluster.bus.as_ref().map(|bus| bus.address().parse().unwrap());
                change(config);
            });
            let world = world.await;
            cluster.keys = Some(world.folder.path().to_owned());
            cluster.nodes.push(world);
        }
        cluster
    }

    /// A data folder with the keys of the first node, if there is one.
    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in self.keys.iter().flat_map(|_| KEYS) {
            let from = self.keys.as_ref().unwrap().join(name);
            std::fs::copy(from, folder.path().join(name)).unwrap();
        }
        folder
    }

    /// The party as it talks to another node.
    pub(crate) fn at(&self, node: usize, party: Party) -> Party {
        Party { address: self.nodes[node].address, ..party }
    }
}

async fn message_sent_at_one_node_wakes_the_device_at_another(bus: BusServer) {
    // No sweep within this test: what arrives, the bus has woken.
    let cluster = Cluster::start(2, Some(bus), 3600).await;
    let mut bob = cluster.nodes[0].party("bob").await;
    let mut stream = bob.stream().await;
    stream.backlog().await;
    bob = cluster.at(1, bob);
    for n in 0..50 {
        bob.receive_text(&n.to_string()).await;
        assert_eq!(stream.text().await, n.to_string());
    }
    bob.upload(&one_time_keys(&bob.identity, 1..=1)).await;
    bob.bundles(&bob).await;
    assert_eq!(stream.key_counts().await.one_time, 0);
}

async fn connection_at_one_node_displaces_that_at_another_and_registering_ends_all(bus: BusServer) {
    let cluster = Cluster::start(2, Some(bus), 3600).await;
    let mut bob = cluster.nodes[0].party("bob").await;
    let mut first = bob.stream().await;
    first.backlog().await;
    bob = cluster.at(1, bob);
    let mut second = bob.stream().await;
    second.backlog().await;
    assert_eq!(first.closed().await, Some(4409));
    bob.receive_text("to the second").await;
    assert_eq!(second.text().await, "to the second");
    bob = cluster.at(0, bob);
    bob.register_again().await;
    assert_eq!(second.closed().await, Some(4409));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bus_the_sweep_finds_messages_and_displaced_connections() {
    let cluster = Cluster::start(2, None, 1).await;
    let mut bob = cluster.nodes[0].party("bob").await;
    let mut first = bob.stream().await;
    first.backlog().await;
    bob = cluster.at(1, bob);
    bob.receive_text("found").await;
    assert_eq!(first.text().await, "found");
    let mut second = bob.stream().await;
    assert_eq!(texts(&second.backlog().await), ["found"]);
    assert_eq!(first.closed().await, Some(4409));
}

async fn bus_that_restarts_is_used_again(bus: BusServer) {
    // No sweep: after the restart nothing but the bus wakes.
    let mut cluster = Cluster::start(2, Some(bus), 3600).await;
    let mut bob = cluster.nodes[0].party("bob").await;
    let mut stream = bob.stream().await;
    stream.backlog().await;
    cluster.bus.as_mut().unwrap().restart().await;
    bob = cluster.at(1, bob);
    let woken = async {
        loop {
            bob.receive_text("again").await;
            let soon = Duration::from_millis(200);
            if tokio::time::timeout(soon, stream.text()).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, woken).await.expect("the bus is not used again");
}

/// Nothing says that the line is dead: neither end hears of it.
async fn line_to_redis_that_goes_silent_is_made_anew(which: Silent) {
    let bus = BusServer::redis().await;
    let line = Line::to(bus.socket()).await;
    // No sweep: what arrives, the bus has woken.
    let cluster = Cluster::set(2, Some(bus), |config| {
        config.bus = Some(line.address("redis").parse().unwrap());
        config.limits.sweep_interval_secs = 3600;
    });
    let cluster = cluster.await;
    let mut bob = cluster.nodes[0].party("bob").await;
    let mut stream = bob.stream().await;
    stream.backlog().await;
    bob = cluster.at(1, bob);
    bob.receive_text("before").await;
    assert_eq!(stream.text().await, "before");
    line.go_silent(which);
    bob.receive_text("while it is silent").await;
    let nothing = tokio::time::timeout(Duration::from_secs(1), stream.text()).await;
    assert!(nothing.is_err(), "the line is not silent");
    let woken = async {
        loop {
            bob.receive_text("again").await;
            let soon = Duration::from_millis(200);
            if let Ok(first) = tokio::time::timeout(soon, stream.text()).await {
                return first;
            }
        }
    };
    let first = tokio::time::timeout(2 * PATIENCE, woken).await.expect("the line stays silent");
    assert_eq!(first, "while it is silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_line_to_redis_is_made_anew() {
    line_to_redis_that_goes_silent_is_made_anew(Silent::All).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn line_to_redis_that_is_silent_where_a_node_listens_is_made_anew() {
    line_to_redis_that_goes_silent_is_made_anew(Silent::Listening).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envelope_and_prekey_are_the_same_at_every_node() {
    let cluster = Cluster::start(2, Some(BusServer::nats().await), 3600).await;
    let mut bob = cluster.nodes[0].party("bob").await;
    bob.upload(&one_time_keys(&bob.identity, 1..=40)).await;
    bob.receive_text("once").await;
    let at_first = bob.stream().await.backlog().await;
    let mut ids = Vec::new();
    for n in 0..40 {
        bob = cluster.at(n % 2, bob);
        ids.push(bob.bundles(&bob).await.devices[0].one_time.as_ref().unwrap().id);
    }
    assert_eq!(ids, (1..=40).collect::<Vec<_>>());
    let mut stream = bob.stream().await;
    assert_eq!(stream.backlog().await, at_first);
    stream.ack(&at_first).await;
    stream.leave().await;
    bob = cluster.at(0, bob);
    // The other node deletes what was acknowledged a moment later.
    while !bob.stream().await.backlog().await.is_empty() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn bundle_request_repeated_at_another_node_takes_nothing_more() {
    let cluster = Cluster::start(2, Some(BusServer::nats().await), 3600).await;
    let mut bob = cluster.nodes[0].party("bob").await;
    bob.upload(&one_time_keys(&bob.identity, 1..=10)).await;
    let mut answers = Vec::new();
    for n in 0..4 {
        bob = cluster.at(n % 2, bob);
        let asked = bob.fetch(&bob).header("request-id", "00112233445566778899aabbccddeeff");
        answers.push(asked.send().await.unwrap().bytes().await.unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(bob.counts().await.one_time, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn submission_repeated_at_another_node_is_stored_once() {
    let cluster = Cluster::start(2, Some(BusServer::nats().await), 3600).await;
    let mut bob = cluster.nodes[0].party("bob").await;
    let submission = bob.submission(b"once");
    for n in 0..4 {
        bob = cluster.at(n % 2, bob);
        assert_eq!(bob.receive(&submission).await.status(), StatusCode::OK);
    }
    assert_eq!(bob.stream().await.backlog().await.len(), 1);
}

macro_rules! on_every_bus {
    ($($name:ident)+) => {
        mod nats {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::BusServer::nats().await).await;
            })+
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::BusServer::redis().await).await;
            })+
        }
    };
}

on_every_bus! {
    message_sent_at_one_node_wakes_the_device_at_another
    connection_at_one_node_displaces_that_at_another_and_registering_ends_all
    bus_that_restarts_is_used_again
}
