//! One-time prekeys taken by many at once while nodes are killed with SIGKILL and started again: none goes out twice, and none is
//! lost but by a request that was not answered. `just takes` takes a million; here are some hundred of each device.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prost::Message;
use reqwest::StatusCode;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tuckseal::service::{Bundles, KeysUpload};

use crate::chaos::{Postgres, copy_keys};
use crate::crash::program;
use crate::world::{Party, one_time_key, one_time_keys};

const DEVICES: usize = 8;
const TAKERS: usize = 32;
/// Keys in one upload.
const UPLOAD: u32 = 100;
/// A node is killed after each of these quarters.
const KILLS: [usize; 3] = [1, 2, 3];
/// After a request that was not answered.
const PAUSE: Duration = Duration::from_millis(20);
/// No limit of budgets is asked about here.
const NO_LIMIT: &str = "1000000000";

struct Node {
    folder: TempDir,
    child: Child,
    database: Option<String>,
}

impl Node {
    async fn start(folder: TempDir, database: Option<String>) -> (Self, SocketAddr) {
        let mut command = program(folder.path());
        for limit in ["--fetch-caller-burst", "--fetch-target-burst", "--one-time-prekeys"] {
            command.args([limit, NO_LIMIT]);
        }
        if let Some(database) = &database {
            command.args(["--database", database]);
        }
        let mut child = command.args(["--log", "off"]).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("it did not start");
        let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
        (Self { folder, child, database }, address)
    }

    /// SIGKILL to this child alone, and another in its place.
    async fn kill_and_start(mut self) -> (Self, SocketAddr) {
        self.child.kill().await.unwrap();
        Self::start(self.folder, self.database).await
    }
}

/// What the takers share.
struct Fire {
    devices: Vec<Party>,
    nodes: Mutex<Vec<SocketAddr>>,
    answered: AtomicUsize,
}

/// What one of them has got: device and id, of each kind; and how many requests were not answered.
#[derive(Default)]
struct Taken {
    one_time: Vec<(usize, u32)>,
    kem: Vec<(usize, u32)>,
    unanswered: usize,
}

/// Takes until no device has a one-time prekey left.
async fn take(fire: Arc<Fire>, taker: usize) -> Taken {
    let mut taken = Taken::default();
    let mut turn = taker;
    let mut left: Vec<usize> = (0..DEVICES).collect();
    while !left.is_empty() {
        turn += 1;
        let place = turn % left.len();
        let device = left[place];
        let address = {
            let nodes = fire.nodes.lock().unwrap();
            nodes[turn / DEVICES % nodes.len()]
        };
        let at = Party { address, ..fire.devices[device].clone() };
        let Some(bundles) = fetch(&at).await else {
            taken.unanswered += 1;
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        fire.answered.fetch_add(1, Ordering::Relaxed);
        let bundle = &bundles.devices[0];
        let kem = bundle.kem.as_ref().unwrap();
        if Some(kem) != at.keys.last_resort_kem.as_ref() {
            taken.kem.push((device, kem.id));
        }
        match &bundle.one_time {
            Some(key) => taken.one_time.push((device, key.id)),
            None => {
                left.swap_remove(place);
            }
        }
    }
    taken
}

/// None if the node is gone, or was while it answered.
async fn fetch(at: &Party) -> Option<Bundles> {
    let response = at.fetch(at).send().await.ok()?;
    if response.status() != StatusCode::OK {
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        return None;
    }
    Bundles::decode(response.bytes().await.ok()?).ok()
}

/// A device with keys of the ids from 1; the first hundred of both kinds.
async fn supplied(address: SocketAddr, name: String, keys: u32) -> Party {
    let party = Party::register(address, &name).await;
    for first in (1..=keys).step_by(UPLOAD as usize) {
        let ids = first..=(first + UPLOAD - 1).min(keys);
        let upload = match first {
            1 => one_time_keys(&party.identity, ids),
            _ => KeysUpload { one_time: ids.map(one_time_key).collect(), ..KeysUpload::default() },
        };
        let response = party.upload(&upload).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    party
}

async fn takes(count: usize, databases: Vec<Option<String>>) {
    let (mut nodes, mut addresses) = (Vec::new(), Vec::new());
    let mut keys: Option<std::path::PathBuf> = None;
    for database in databases {
        let folder = tempfile::tempdir().unwrap();
        if let Some(keys) = &keys {
            copy_keys(keys, folder.path());
        }
        let (node, address) = Node::start(folder, database).await;
        keys = Some(node.folder.path().to_owned());
        nodes.push(Some(node));
        addresses.push(address);
    }
    let begun = Instant::now();
    let each = u32::try_from(count / DEVICES).unwrap();
    let devices: Vec<_> = (0..DEVICES)
        .map(|n| tokio::spawn(supplied(addresses[n % addresses.len()], format!("d{n}"), each)))
        .collect();
    let devices = futures_util::future::join_all(devices).await;
    let devices = devices.into_iter().map(Result::unwrap).collect();
    let (count, supplying) = (each as usize * DEVICES, begun.elapsed());

    let fire =
        Arc::new(Fire { devices, nodes: Mutex::new(addresses), answered: AtomicUsize::new(0) });
    let begun = Instant::now();
    let takers: Vec<_> =
        (0..TAKERS).map(|taker| tokio::spawn(take(Arc::clone(&fire), taker))).collect();
    for kill in KILLS {
        while fire.answered.load(Ordering::Relaxed) < count * kill / 4 {
            assert!(!takers.iter().all(|taker| taker.is_finished()), "the takers gave up");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let n = kill % nodes.len();
        let (node, address) = nodes[n].take().unwrap().kill_and_start().await;
        nodes[n] = Some(node);
        fire.nodes.lock().unwrap()[n] = address;
    }
    let (mut one_time, mut kem, mut unanswered) = (HashSet::new(), HashSet::new(), 0);
    for taker in takers {
        let taken = taker.await.unwrap();
        for key in taken.one_time {
            assert!(one_time.insert(key), "prekey {key:?} went out twice");
        }
        for key in taken.kem {
            assert!(kem.insert(key), "KEM prekey {key:?} went out twice");
        }
        unanswered += taken.unanswered;
    }
    let lost = count - one_time.len();
    eprintln!(
        "{} of {count} prekeys taken in {:.0?} by {TAKERS} takers, {} KEM prekeys; {} kills, {unanswered} requests not answered, \
         {lost} prekeys lost by them; supplied in {supplying:.0?}",
        one_time.len(),
        begun.elapsed(),
        kem.len(),
        KILLS.len(),
    );
    assert!(unanswered > 0, "no kill was felt");
    assert!(lost <= unanswered, "{lost} prekeys lost by {unanswered} requests");
    let address = fire.nodes.lock().unwrap()[0];
    for device in &fire.devices {
        let device = Party { address, ..device.clone() };
        assert_eq!(device.counts().await.one_time, 0);
    }
}

async fn on_postgres(count: usize) {
    let database = Postgres::start().await;
    takes(count, vec![Some(database.setting()), Some(database.setting())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_prekey_goes_out_twice_while_nodes_on_postgres_are_killed() {
    on_postgres(1_600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_prekey_goes_out_twice_while_the_node_on_sqlite_is_killed() {
    takes(1_600, vec![None]).await;
}

fn many() -> usize {
    let count = std::env::var("TUCKSEAL_TAKES").map(|count| count.parse().unwrap());
    count.unwrap_or(1_000_000)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a million takes: minutes"]
async fn takes_long_on_postgres() {
    on_postgres(many()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a million takes: minutes"]
async fn takes_long_on_sqlite() {
    takes(many(), vec![None]).await;
}
