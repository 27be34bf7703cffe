//! What `just chaos` kills: a PostgreSQL with a synchronous standby, a bus behind a line that fails, nodes as processes on
//! ports that stay, HAProxy before them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::chaos::Postgres;

/// A primary and a standby that every commit waits for.
pub(crate) struct Pair {
    primary: Postgres,
    standby: Postgres,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let (primary, standby) = (Postgres::start().await, Postgres::place().await);
        let pair = Self { primary, standby };
        // Before the copy is made, so that it has this too: a standby that is promoted without it answers before
        // anybody else has what it answers, and what it then loses it gives out again.
        pair.sql(&pair.primary, "ALTER SYSTEM SET synchronous_standby_names = '*'").await;
        pair.sql(&pair.primary, "SELECT pg_reload_conf()").await;
        pair.clone_to_standby().await;
        pair
    }

    /// Both, and the one that can be written wins.
    pub(crate) fn setting(&self) -> String {
        format!(
            "postgresql://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write&connect_timeout=2",
            self.primary.port, self.standby.port
        )
    }

    /// The primary dies for good, the standby takes its place, and a new standby is made of it.
    pub(crate) async fn fail_over(&mut self) {
        self.primary.crash().await;
        self.standby.run("pg_ctl", &["-D", &self.standby.data(), "-w", "promote"]).await;
        std::mem::swap(&mut self.primary, &mut self.standby);
        self.clone_to_standby().await;
    }

    pub(crate) async fn crash_primary(&self) {
        self.primary.crash().await;
        self.primary.up().await;
    }

    pub(crate) async fn crash_standby(&self) {
        self.standby.crash().await;
        self.standby.up().await;
    }

    async fn clone_to_standby(&self) {
        let data = self.standby.data();
        let _ = std::fs::remove_dir_all(&data);
        let from = self.primary.port.to_string();
        let arguments = ["-h", "127.0.0.1", "-p", &from, "-U", "postgres", "-D", &data, "-R"];
        let arguments = [&arguments[..], &["-c", "fast", "--no-sync"]].concat();
        self.standby.run("pg_basebackup", &arguments).await;
        self.standby.up().await;
    }

    async fn sql(&self, at: &Postgres, sql: &str) {
        let port = at.port.to_string();
        at.run("psql", &["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c", sql]).await;
    }
}

/// A line to the bus that can be slow, can be cut and can go silent.
pub(crate) struct Line {
    address: SocketAddr,
    slow: Arc<AtomicBool>,
    cut: watch::Sender<u64>,
    connections: Arc<Mutex<Vec<Arc<Connection>>>>,
}

/// One of those that the line carries.
#[derive(Default)]
struct Connection {
    /// It listens to Redis.
    listens: AtomicBool,
    /// It stays open, and nothing comes out of it any more.
    silent: AtomicBool,
}

/// Which connections go silent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silent {
    All,
    /// Those that listen to Redis.
    Listening,
}

impl Line {
    pub(crate) async fn to(bus: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (slow, (cut, cuts)) = (Arc::new(AtomicBool::new(false)), watch::channel(0));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (slowing, opened) = (Arc::clone(&slow), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                // Nobody there: the node sees a connection that ends.
                let Ok(far) = TcpStream::connect(bus).await else { continue };
                let (mut cut, slow) = (cuts.clone(), Arc::clone(&slowing));
                cut.mark_unchanged();
                let connection = Arc::new(Connection::default());
                opened.lock().unwrap().push(Arc::clone(&connection));
                tokio::spawn(async move {
                    let (near, far) = (near.into_split(), far.into_split());
                    tokio::select! {
                        () = carry(near.0, far.1, &slow, &connection) => {}
                        () = carry(far.0, near.1, &slow, &connection) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, slow, cut, connections }
    }

    pub(crate) fn address(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// Those connections that there are; the next ones are well.
    pub(crate) fn go_silent(&self, which: Silent) {
        for connection in self.connections.lock().unwrap().iter() {
            if which == Silent::All || connection.listens.load(Ordering::Relaxed) {
                connection.silent.store(true, Ordering::Relaxed);
            }
        }
    }

    pub(crate) async fn be_slow_for(&self, time: Duration) {
        self.slow.store(true, Ordering::Relaxed);
        tokio::time::sleep(time).await;
        self.slow.store(false, Ordering::Relaxed);
    }

    /// Ends all connections: what is on the way is lost.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    slow: &AtomicBool,
    connection: &Connection,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if buffer[..length].windows(9).any(|word| word == b"SUBSCRIBE") {
            connection.listens.store(true, Ordering::Relaxed);
        }
        if connection.silent.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        if slow.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..300))).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// A node on a port that it keeps.
pub(crate) struct Node {
    folder: TempDir,
    child: Child,
    pub(crate) port: u16,
}

impl Node {
    pub(crate) async fn start(folder: TempDir, port: u16, database: &str, bus: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tuckseal-server"));
        command.arg("--data-dir").arg(folder.path());
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--database", database]);
        command.args(["--bus", bus, "--sweep-interval-secs", "1", "--log", "off"]);
        command.args(["--fetch-caller-burst", "1000000", "--fetch-target-burst", "1000000"]);
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
        // It may come up while the database is between two primaries: whoever runs it starts it again.
        loop {
            let mut child = command.spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            if lines.next_line().await.unwrap().is_some() {
                return Self { folder, child, port };
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn kill(mut self) -> (TempDir, u16) {
        self.child.kill().await.unwrap();
        (self.folder, self.port)
    }

    /// Stops in the middle for a while and goes on, as a machine does that is short of memory.
    pub(crate) async fn stall(&self, time: Duration) {
        self.signal("-STOP").await;
        tokio::time::sleep(time).await;
        self.signal("-CONT").await;
    }

    async fn signal(&self, signal: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
    }
}

pub(crate) fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

/// HAProxy before the nodes, as `deploy/` has it in the essentials.
pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    _folder: TempDir,
    _child: Child,
}

impl Balancer {
    /// None if it is not installed.
    pub(crate) async fn start(nodes: &[u16]) -> Option<Self> {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let servers: String = nodes
            .iter()
            .map(|node| {
                format!("  server n{node} 127.0.0.1:{node} check inter 500ms fall 2 rise 1\n")
            })
            .collect();
        let settings = format!(
            "defaults\n  mode http\n  timeout connect 1s\n  timeout client 1h\n  timeout server 5s\n  timeout tunnel 1h\n  \
             option redispatch\n  retries 2\nlisten relay\n  bind 127.0.0.1:{port}\n  balance leastconn\n  \
             option httpchk GET /readyz\n{servers}"
        );
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file).kill_on_drop(true);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        for _ in 0..500 {
            if TcpStream::connect(address).await.is_ok() {
                return Some(Self { address, _folder: folder, _child: child });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("HAProxy does not listen");
    }
}
