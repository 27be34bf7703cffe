//! Nodes as processes on ports that they keep, on one PostgreSQL and one NATS, and HAProxy before them with the settings of
//! `deploy/`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::people::TIME;

const USUAL: &str = "postgresql://postgres@127.0.0.1:5432/postgres";
/// Longer than the balancer takes to see a node as down, and the spread of the streams.
const DRAIN: [&str; 4] = ["--drain-notice-secs", "3", "--drain-spread-secs", "2"];
const KEYS: [&str; 4] =
    ["trust-root.public", "server.private", "server.certificate", "relay.secret"];

fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn spawn(command: &mut Command, package: &str) -> Child {
    command.spawn().unwrap_or_else(|error| {
        panic!("{package} cannot be started ({error}): apt-get install {package}")
    })
}

async fn listens(port: u16) {
    let listening = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIME, listening).await.expect("nobody listens there");
}

/// Goes when this is dropped.
struct Database {
    server: String,
    name: String,
}

impl Database {
    fn create() -> Self {
        let server = std::env::var("TUCKSEAL_TEST_POSTGRES").unwrap_or_else(|_| USUAL.into());
        let name = format!("tuckseal_test_{:032x}", rand::random::<u128>());
        let database = Self { server, name };
        database.execute(&format!("CREATE DATABASE {}", database.name));
        database
    }

    fn setting(&self) -> String {
        format!("{}/{}", self.server.rsplit_once('/').unwrap().0, self.name)
    }

    fn execute(&self, sql: &str) {
        let mut psql = std::process::Command::new("psql");
        let output = psql.args(["-qtAc", sql, &self.server]).output().expect("psql");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // After a failure too, which it must not hide.
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let _ = std::process::Command::new("psql").args(["-qtAc", &sql, &self.server]).status();
    }
}

struct Node {
    folder: TempDir,
    port: u16,
    running: Option<Child>,
}

pub(crate) struct Cluster {
    nodes: Vec<Node>,
    bus: String,
    _nats: Child,
    database: Database,
}

impl Cluster {
    pub(crate) async fn start(nodes: usize) -> Self {
        let port = free_port();
        let mut nats = program("nats-server");
        let nats = spawn(nats.args(["-a", "127.0.0.1", "-p", &port.to_string()]), "nats-server");
        listens(port).await;
        let bus = format!("nats://127.0.0.1:{port}");
        let mut cluster =
            Self { nodes: Vec::new(), bus, _nats: nats, database: Database::create() };
        for node in 0..nodes {
            let folder = tempfile::tempdir().unwrap();
            // The first one makes the keys of all.
            for name in cluster.nodes.first().iter().flat_map(|_| KEYS) {
                let from = cluster.nodes[0].folder.path().join(name);
                std::fs::copy(from, folder.path().join(name)).unwrap();
            }
            cluster.nodes.push(Node { folder, port: free_port(), running: None });
            cluster.start_again(node).await;
        }
        cluster
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    pub(crate) async fn start_again(&mut self, node: usize) {
        let (bus, database) = (&self.bus, self.database.setting());
        let Node { folder, port, running } = &mut self.nodes[node];
        let mut command = program(env!("CARGO_BIN_EXE_tuckseal"));
        command.args(["serve", "--log", "off", "--data-dir"]).arg(folder.path()).args(DRAIN);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--bus", bus]);
        command.args(["--database", &database]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(TIME, lines.next_line()).await.expect("the node does not start");
        line.unwrap().expect("the node ends at its start");
        *running = Some(child);
    }

    /// SIGTERM to this node alone, and its end.
    pub(crate) async fn stop(&mut self, node: usize) {
        let mut child = self.nodes[node].running.take().unwrap();
        let id = child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
        let status = timeout(TIME, child.wait()).await.expect("the node does not end").unwrap();
        assert!(status.success(), "{status}");
    }
}

pub(crate) struct Balancer {
    port: u16,
    statistics: std::path::PathBuf,
    _folder: TempDir,
    _child: Child,
}

impl Balancer {
    pub(crate) async fn start(nodes: &[u16]) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let statistics = folder.path().join("statistics");
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, settings(nodes, port, &statistics)).unwrap();
        let mut command = program("haproxy");
        let child = spawn(command.arg("-db").arg("-f").arg(&file), "haproxy");
        listens(port).await;
        Self { port, statistics, _folder: folder, _child: child }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many nodes it sends requests to.
    pub(crate) fn servers_up(&self) -> usize {
        use std::io::{Read, Write};
        let mut socket = std::os::unix::net::UnixStream::connect(&self.statistics).unwrap();
        socket.write_all(b"show stat\n").unwrap();
        let mut table = String::new();
        socket.read_to_string(&mut table).unwrap();
        let up = |line: &&str| line.starts_with("nodes,node") && line.contains(",UP,");
        table.lines().filter(up).count()
    }
}

/// Those of `deploy/`, for these ports and few connections.
fn settings(nodes: &[u16], port: u16, statistics: &Path) -> String {
    let settings = include_str!("../../../deploy/haproxy.cfg");
    let mut lines: Vec<String> = Vec::new();
    for line in settings.lines() {
        match line.trim() {
            "global" => lines.push(format!("global\n    stats socket {}", statistics.display())),
            "maxconn 200000" => lines.push("    maxconn 1000".into()),
            "bind :8080" => lines.push(format!("    bind 127.0.0.1:{port}")),
            server if server.starts_with("server node") => {}
            _ => lines.push(line.replace("maxconn 100000", "maxconn 500")),
        }
    }
    let servers = nodes.iter().enumerate();
    lines.extend(servers.map(|(n, port)| format!("    server node{n} 127.0.0.1:{port}")));
    assert!(lines.iter().any(|line| line.contains("option httpchk GET /readyz")));
    lines.join("\n") + "\n"
}
