//! A push service with the device behind it, in a process of its own and of other people's code.
#![allow(unreachable_pub, reason = "a module of a test")]

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use tuckseal_client::{PushTarget, WebSubscription};

use crate::stage::TIME;

pub struct Endpoint {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub url: String,
    p256dh: [u8; 65],
    auth: [u8; 16],
}

impl Endpoint {
    /// `None`, said on the output, if there is no Python for it and none is demanded.
    pub async fn start() -> Option<Self> {
        let named = std::env::var_os("TUCKSEAL_TEST_PYTHON").map(PathBuf::from);
        let usual =
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin/python"));
        let python = named.unwrap_or(usual);
        if !python.exists() {
            let required = std::env::var("TUCKSEAL_REQUIRE_PYTHON").is_ok_and(|it| it == "1");
            assert!(!required, "{} is missing: ./test makes it", python.display());
            eprintln!("NOT RUN: push with an independent endpoint; ./test makes target/python");
            return None;
        }
        let script = "/../server/tests/server/peers/push_endpoint.py";
        let mut child = Command::new(python)
            .arg(format!("{}{script}", env!("CARGO_MANIFEST_DIR")))
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = line(&mut lines).await;
        let bytes = |name: &str| hex::decode(said[name].as_str().unwrap()).unwrap();
        Some(Self {
            url: format!("http://127.0.0.1:{}/push/201", said["port"]),
            p256dh: bytes("p256dh").try_into().unwrap(),
            auth: bytes("auth").try_into().unwrap(),
            _child: child,
            lines,
        })
    }

    /// With keys that the process has.
    pub fn subscription(&self) -> PushTarget {
        let Self { url, p256dh, auth, .. } = self;
        PushTarget::Web(WebSubscription { endpoint: url.clone(), p256dh: *p256dh, auth: *auth })
    }

    /// The next request that came.
    pub async fn request(&mut self) -> Value {
        line(&mut self.lines).await
    }
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line = timeout(TIME, lines.next_line()).await.expect("no push came");
    serde_json::from_str(&line.unwrap().unwrap()).unwrap()
}
