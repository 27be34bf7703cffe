//! `just chaos`: three nodes behind HAProxy, a PostgreSQL with a standby, a bus behind a bad line. Something is killed,
//! cut or stalled at random, again and again, while everybody talks. The checks are those of the short form.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use reqwest::StatusCode;

use crate::chaos::{self, DEVICES, PAUSE, SENDERS, Talk, copy_keys};
use crate::cluster::{Balancer, Line, Node, Pair, free_port};
use crate::stores::BusServer;
use crate::world::{Party, one_time_keys};

const NODES: usize = 3;
/// Longer than the balancer and the nodes need to find each other again.
const STUCK: Duration = Duration::from_secs(60);

const EVENTS: [&str; 10] = [
    "a node is killed",
    "two nodes are killed",
    "a node stalls",
    "the bus is killed",
    "the line to the bus is cut",
    "the line to the bus is slow",
    "the primary crashes and comes back",
    "the primary is lost, the standby takes over",
    "the standby crashes and comes back",
    "nothing",
];

/// Keeps the prekeys of a device coming.
async fn upload(talk: Arc<Talk>, device: Party) {
    let mut next = 1;
    while !talk.stop.load(Ordering::Relaxed) {
        let keys = one_time_keys(&device.identity, next..=next + 99);
        loop {
            let at = Party { address: talk.address(), ..device.clone() };
            let request = at.own(reqwest::Method::PUT, "/v1/keys");
            let answer = request.body(prost::Message::encode_to_vec(&keys)).send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
                || talk.stop.load(Ordering::Relaxed)
            {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        next += 100;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

struct Cluster {
    database: Pair,
    bus: BusServer,
    line: Line,
    nodes: Vec<Option<Node>>,
    setting: String,
}

impl Cluster {
    async fn start() -> Self {
        let (database, bus) = (Pair::start().await, BusServer::nats().await);
        let line = Line::to(bus.socket()).await;
        let setting = database.setting();
        let mut nodes: Vec<Option<Node>> = Vec::new();
        for _ in 0..NODES {
            let folder = tempfile::tempdir().unwrap();
            if let Some(Some(first)) = nodes.first() {
                copy_keys(first.folder(), folder.path());
            }
            nodes.push(Some(
                Node::start(folder, free_port(), &setting, &line.address("nats")).await,
            ));
        }
        Self { database, bus, line, nodes, setting }
    }

    fn ports(&self) -> Vec<u16> {
        self.nodes.iter().flatten().map(|node| node.port).collect()
    }

    async fn kill(&mut self, node: usize) {
        let (folder, port) = self.nodes[node].take().unwrap().kill().await;
        let started = Node::start(folder, port, &self.setting, &self.line.address("nats")).await;
        self.nodes[node] = Some(started);
    }

    async fn happen(&mut self, event: &str, rng: &mut StdRng) {
        let node = rand::RngExt::random_range(rng, 0..NODES);
        match event {
            "a node is killed" => self.kill(node).await,
            "two nodes are killed" => {
                self.kill(node).await;
                self.kill((node + 1) % NODES).await;
            }
            "a node stalls" => {
                self.nodes[node].as_ref().unwrap().stall(Duration::from_secs(3)).await;
            }
            "the bus is killed" => self.bus.restart().await,
            "the line to the bus is cut" => self.line.cut(),
            "the line to the bus is slow" => {
                self.line.be_slow_for(Duration::from_secs(3)).await;
                self.line.cut();
            }
            "the primary crashes and comes back" => self.database.crash_primary().await,
            "the primary is lost, the standby takes over" => self.database.fail_over().await,
            "the standby crashes and comes back" => self.database.crash_standby().await,
            _ => {}
        }
    }
}

/// Waits until so many more messages were accepted: whatever was broken is whole again.
async fn calm(talk: &Talk, after: &str) {
    let until = talk.accepted.load(Ordering::Relaxed) + 50;
    let begun = Instant::now();
    while talk.accepted.load(Ordering::Relaxed) < until {
        assert!(begun.elapsed() < STUCK, "nothing is accepted any more after: {after}");
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: just chaos"]
async fn parts_are_killed_at_random_for_minutes_and_nothing_that_was_accepted_is_missing() {
    let seconds = std::env::var("TUCKSEAL_CHAOS_SECS").map_or(600, |text| text.parse().unwrap());
    let seed = std::env::var("TUCKSEAL_CHAOS_SEED").map_or(1, |text| text.parse().unwrap());
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start().await;
    let balancer = Balancer::start(&cluster.ports()).await;
    let addresses = match &balancer {
        Some(balancer) => vec![balancer.address],
        None => {
            eprintln!("HAProxy is not installed: the talkers go from node to node by themselves");
            cluster.ports().into_iter().map(|port| ([127, 0, 0, 1], port).into()).collect()
        }
    };
    let first = addresses[0];
    let talk = Arc::new(Talk {
        addresses: Arc::new(Mutex::new(addresses)),
        accepted: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        turn: AtomicUsize::new(0),
    });
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        devices.push(Party::register(first, &format!("device{n}")).await);
    }
    let uploading: Vec<_> = devices
        .iter()
        .map(|device| tokio::spawn(upload(Arc::clone(&talk), device.clone())))
        .collect();
    let wanted: Vec<_> = (0..DEVICES).map(|_| Arc::new(Mutex::new(None))).collect();
    let receivers = devices
        .iter()
        .zip(&wanted)
        .map(|(device, wanted)| {
            tokio::spawn(chaos::receive(Arc::clone(&talk), device.clone(), Arc::clone(wanted)))
        })
        .collect();
    let senders = (0..SENDERS)
        .map(|sender| tokio::spawn(chaos::send(Arc::clone(&talk), devices.clone(), sender)))
        .collect();
    let takers = (0..2 * DEVICES)
        .map(|n| n % DEVICES)
        .map(|n| (n, tokio::spawn(chaos::take(Arc::clone(&talk), devices[n].clone()))))
        .collect();

    let (begun, mut events) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let event = EVENTS.choose(&mut rng).unwrap();
        eprintln!("{:4} s  {event}", begun.elapsed().as_secs());
        cluster.happen(event, &mut rng).await;
        calm(&talk, event).await;
        events += 1;
    }
    let given = chaos::end(&talk, senders, takers, (receivers, wanted)).await;
    for uploading in uploading {
        uploading.await.unwrap();
    }
    let keys: usize = given.iter().map(std::collections::BTreeSet::len).sum();
    let accepted = talk.accepted.load(Ordering::Relaxed);
    eprintln!(
        "{events} events, {accepted} messages, {keys} one-time prekeys, {seconds} s, seed {seed}"
    );
    assert!(keys > 0 && accepted > 0);
}
