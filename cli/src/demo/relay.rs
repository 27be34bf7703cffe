//! The relay of the demo: this very binary with `serve`, as a child process that can be killed.

use super::{Outcome, PATIENCE};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

pub(crate) struct Relay {
    folder: PathBuf,
    /// Chosen by the system at the first start, kept afterwards.
    address: String,
    child: Option<Child>,
}

impl Relay {
    pub(crate) async fn start(folder: &Path) -> Outcome<Self> {
        let folder = folder.join("relay");
        std::fs::create_dir(&folder).map_err(|error| error.to_string())?;
        let mut relay = Self { folder, address: "127.0.0.1:0".into(), child: None };
        relay.restart().await?;
        Ok(relay)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// All lines that it logged, over all its lives.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub(crate) async fn restart(&mut self) -> Outcome<()> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let log = OpenOptions::new().create(true).append(true).open(self.log());
        let mut child = Command::new(program)
            .arg("serve")
            .args(["--listen", &self.address, "--log", "debug"])
            // The push service of the story is on this machine.
            .args(["--push-private-endpoints", "--data-dir"])
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.map_err(|error| error.to_string())?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("the relay cannot be started: {error}"))?;
        let output = child.stdout.take().ok_or("the relay has no output")?;
        let mut lines = BufReader::new(output).lines();
        let ready = timeout(PATIENCE, lines.next_line()).await;
        let ready = ready.map_err(|_| "the relay did not start in time")?;
        let line = ready.map_err(|error| error.to_string())?.unwrap_or_default();
        let address = line.strip_prefix("listening on http://");
        self.address = address
            .ok_or_else(|| format!("the relay did not start; its log is {}", self.log().display()))?
            .to_owned();
        self.child = Some(child);
        Ok(())
    }

    /// The most memory that it has had since it was started, in KiB.
    pub(crate) fn peak_kib(&self) -> Option<u64> {
        let id = self.child.as_ref()?.id()?;
        super::person::peak_kib(&id.to_string())
    }

    /// SIGKILL: nothing is flushed, closed or said.
    pub(crate) async fn kill(&mut self) -> Outcome<()> {
        let mut child = self.child.take().ok_or("the relay is not running")?;
        child.kill().await.map_err(|error| error.to_string())
    }

    /// SIGTERM, and a clean end.
    pub(crate) async fn stop(&mut self) -> Outcome<()> {
        let mut child = self.child.take().ok_or("the relay is not running")?;
        let id = child.id().ok_or("the relay has ended by itself")?;
        let told = Command::new("kill").args(["-TERM", &id.to_string()]).status().await;
        told.map_err(|error| format!("kill: {error}"))?;
        let ended = timeout(PATIENCE, child.wait()).await.map_err(|_| "the relay does not stop")?;
        let status = ended.map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("the relay ended with {status}")) }
    }
}
