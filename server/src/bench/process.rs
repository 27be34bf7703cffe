//! A server process of this very program, and what the system says of it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::device::BenchError;
use crate::config::Settings;

/// Limits that would measure themselves.
const OFF: [&str; 7] = [
    "TUCKSEAL_FETCH_CALLER_BURST",
    "TUCKSEAL_FETCH_CALLER_PER_HOUR",
    "TUCKSEAL_FETCH_TARGET_BURST",
    "TUCKSEAL_FETCH_TARGET_PER_HOUR",
    "TUCKSEAL_INBOUND_BURST_KIB",
    "TUCKSEAL_MAILBOX_MESSAGES",
    "TUCKSEAL_STORE_WAIT_MS",
];
const KEYS: [&str; 4] =
    ["trust-root.public", "server.private", "server.certificate", "relay.secret"];

pub(super) struct Process {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Process {
    /// A node in a folder of its own, with the keys of the first; with TLS if it gets certificate and key. Of several on one
    /// machine each has its share of the processors.
    pub(super) async fn start(
        root: &Path,
        (number, nodes): (usize, usize),
        settings: &Settings,
        tls_files: Option<(&Path, &Path)>,
    ) -> Result<Self, BenchError> {
        let folder = root.join(number.to_string());
        let new = !folder.exists();
        std::fs::create_dir_all(&folder)?;
        if number > 0 && new {
            for name in KEYS {
                std::fs::copy(root.join("0").join(name), folder.join(name))?;
            }
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--listen", "127.0.0.1:0", "--log", "error", "--data-dir"]).arg(&folder);
        for (name, address) in [("--database", &settings.database), ("--bus", &settings.bus)] {
            if let Some(address) = address {
                command.arg(name).arg(address.revealed());
            }
        }
        if let Some((certificate, key)) = tls_files {
            command.arg("--tls-certificate-file").arg(certificate);
            command.arg("--tls-key-file").arg(key);
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        command.env("TOKIO_WORKER_THREADS", (processors / nodes).max(1).to_string());
        command.envs(OFF.map(|name| (name, "1000000000"))).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().ok_or(BenchError::NotStarted)?;
        let line = BufReader::new(out).lines().next_line().await?;
        let address = line.as_deref().and_then(|line| line.strip_prefix("listening on "));
        let address = address.and_then(|address| address.split_once("://"));
        let address = address.and_then(|(_, address)| address.parse().ok());
        Ok(Self { child, address: address.ok_or(BenchError::NotStarted)? })
    }

    pub(super) async fn stop(mut self) -> Result<(), BenchError> {
        Ok(self.child.kill().await?)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    fn read(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.id());
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

/// Memory in use of all nodes, in bytes.
pub(super) fn memory(nodes: &[Process]) -> u64 {
    let resident = |node: &Process| {
        let status = node.read("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.unwrap_or(0).saturating_mul(1024)
    };
    nodes.iter().map(resident).sum()
}
