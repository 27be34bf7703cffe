//! Programs of other people that look at what the server does, in Python; `.ci/python-peers.txt` names them.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::world::PATIENCE;

/// The Python that has them. None, said on the output, if there is none and none is demanded.
pub(crate) fn python(what: &str) -> Option<Command> {
    let named = std::env::var_os("TUCKSEAL_TEST_PYTHON").map(PathBuf::from);
    let usual = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin/python"));
    let python = named.unwrap_or(usual);
    if python.exists() {
        let mut command = Command::new(python);
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
        return Some(command);
    }
    let required = std::env::var("TUCKSEAL_REQUIRE_PYTHON").is_ok_and(|it| it == "1");
    assert!(!required, "{} is missing: ./test makes it", python.display());
    eprintln!("NOT RUN: {what}; ./test makes target/python with what it needs");
    None
}

/// A script of `peers/`.
pub(crate) fn script(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server/peers")).join(name)
}

/// A program that says JSON, one value a line; killed when this is dropped.
pub(crate) struct Peer {
    _child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let input = child.stdin.take();
        Self { _child: child, input, lines }
    }

    /// What it says to an empty line; its input must be a pipe.
    pub(crate) async fn ask(&mut self) -> serde_json::Value {
        self.input.as_mut().unwrap().write_all(b"\n").await.unwrap();
        self.line().await
    }

    pub(crate) async fn line(&mut self) -> serde_json::Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        serde_json::from_str(&line.expect("it says nothing").unwrap().unwrap()).unwrap()
    }

    /// Nothing is said for so long.
    pub(crate) async fn is_silent(&mut self, millis: u64) -> bool {
        let patience = std::time::Duration::from_millis(millis);
        tokio::time::timeout(patience, self.lines.next_line()).await.is_err()
    }
}
