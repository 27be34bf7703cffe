//! The relay beside brokers: the same work in the same run, each a server process of its own in a temporary folder on
//! the same disk, in turn, so many rounds. The generator runs on the same machine: compare the processor time a message.
//!
//! Contents, checks and clocks are those of `tuckseal-server bench`, by the same files.

mod broker;
mod disk;
mod engine;
mod load;
mod mosquitto;
mod nats;
#[path = "../../../server/src/bench/part.rs"]
mod part;
mod postgres;
mod rabbitmq;
mod redis;
mod server;
mod table;
#[path = "../../../server/src/bench/tree.rs"]
mod tree;
mod tuckseal;
#[path = "../../../server/src/bench/work.rs"]
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use broker::Outcome;
use engine::Engine;
use table::Row;

/// The relay beside other brokers. Run it on a machine that does nothing else, built with --release.
#[derive(Parser)]
struct Arguments {
    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    load: Load,
    /// These alone
    #[arg(long, value_delimiter = ',')]
    only: Vec<Engine>,
    /// Our relay, built with --release
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/tuckseal-server"))]
    server: PathBuf,
}

/// What all of them carry.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Load {
    /// Messages of each part
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
    /// Bytes of a message: one of the sizes that our relay takes, 1024, 4096, 16384, 65536, 98304
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Senders, each with a connection of its own
    #[arg(long, default_value_t = 64)]
    senders: usize,
    /// Mailboxes, each with a receiver
    #[arg(long, default_value_t = 64)]
    mailboxes: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match until_told(run(Arguments::parse())).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever interrupts it finds no server left behind.
async fn until_told(run: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = run => done,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    }
}

async fn run(arguments: Arguments) -> Outcome<()> {
    let Arguments { rounds, load, only, server } = arguments;
    if !server.is_file() {
        let server = server.display();
        return Err(format!("no {server}: cargo build --release -p tuckseal-server").into());
    }
    let folder = Folder::new(&std::env::temp_dir())?;
    let mut syncs = Vec::with_capacity(rounds);
    let wanted = |engine: &&Engine| only.is_empty() || only.contains(engine);
    let mut rows: Vec<Row> = Vec::new();
    for &engine in Engine::value_variants().iter().filter(wanted) {
        rows.push(Row { engine, version: engine.version(&server), rounds: Vec::new() });
    }
    for round in 0..rounds {
        syncs.push(disk::sync_time(folder.path())?);
        for place in 0..rows.len() {
            // Another one is the first in each round: nobody always follows the same one.
            let row = (place + round) % rows.len();
            let Some(row) = rows.get_mut(row).filter(|row| row.version.is_ok()) else { continue };
            eprintln!("round {} of {rounds}: {}", round + 1, row.engine.title());
            let own = Folder::new(folder.path())?;
            let figures = row.engine.measure(&server, own.path(), load).await;
            row.rounds.push(figures.map_err(|error| format!("{}: {error}", row.engine.title()))?);
        }
    }
    table::print(&rows, load, syncs);
    Ok(())
}

/// A folder that others may enter, as servers have users of their own, and that goes when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(within: &Path) -> Outcome<Self> {
        let path = within.join(format!("bench-relay-{:x}", rand::random::<u32>()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
