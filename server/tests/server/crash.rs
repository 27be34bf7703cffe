//! The real program: killed in the middle, stopped by a signal, started twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::StatusCode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::world::{PATIENCE, Party, one_time_keys};

pub(crate) fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuckseal-server"));
    command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(folder).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) async fn start(folder: &Path) -> (Child, std::net::SocketAddr) {
    start_with(folder, &[]).await
}

/// With this in the environment.
pub(crate) async fn start_with(
    folder: &Path,
    environment: &[(&str, String)],
) -> (Child, std::net::SocketAddr) {
    let mut command = program(folder);
    let mut child = command.envs(environment.iter().cloned()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line())
        .await
        .unwrap()
        .unwrap()
        .expect("it did not start");
    let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
    (child, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_every_accepted_envelope_is_there_and_no_prekey_comes_twice() {
    const SENDERS: usize = 16;
    const ENOUGH: usize = 500;
    let sent = Arc::new(AtomicUsize::new(0));
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = start(folder.path()).await;
    let mut bob = Party::register(address, "bob").await;
    assert_eq!(bob.upload(&one_time_keys(&bob.identity, 1..=100)).await.status(), StatusCode::OK);
    let shared = Arc::new(bob);
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (bob, sent) = (Arc::clone(&shared), Arc::clone(&sent));
            tokio::spawn(async move {
                let (mut accepted, mut keys) = (Vec::new(), Vec::new());
                for n in 0.. {
                    let text = format!("{sender}/{n}");
                    let submission = bob.submission(text.as_bytes());
                    let path = format!("/v1/messages/{}", bob.account_text());
                    let request = bob
                        .request(reqwest::Method::PUT, &path)
                        .header("access-key", bob.access_header());
                    match request.body(prost::Message::encode_to_vec(&submission)).send().await {
                        Ok(response) if response.status() == StatusCode::OK => {
                            accepted.push(text);
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(other) => panic!("{other:?}"),
                        Err(_) => break,
                    }
                    if n < 2 {
                        let Ok(response) = bob.fetch(&bob).send().await else { break };
                        let Ok(body) = response.bytes().await else { break };
                        let bundles =
                            <tuckseal::service::Bundles as prost::Message>::decode(body).unwrap();
                        keys.extend(bundles.devices[0].one_time.as_ref().map(|key| key.id));
                    }
                }
                (accepted, keys)
            })
        })
        .collect();
    while sent.load(Ordering::Relaxed) < ENOUGH {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // SIGKILL to this child alone.
    child.kill().await.unwrap();
    let (mut accepted, mut given) = (BTreeSet::new(), BTreeSet::new());
    for sender in senders {
        let (texts, keys) = sender.await.unwrap();
        accepted.extend(texts);
        for key in keys {
            assert!(given.insert(key), "prekey {key} was given twice");
        }
    }
    assert!(accepted.len() >= ENOUGH);

    let (_child, address) = start(folder.path()).await;
    bob = Arc::into_inner(shared).unwrap();
    bob.address = address;
    let next = bob.bundles(&bob).await.devices[0].one_time.clone().unwrap().id;
    assert!(given.iter().all(|id| *id < next));
    let mut stream = bob.stream().await;
    let mut delivered = BTreeSet::new();
    while !accepted.is_subset(&delivered) {
        let envelope = stream.envelope().await;
        stream.ack(std::slice::from_ref(&envelope)).await;
        assert!(
            delivered.insert(String::from_utf8(envelope.content.to_vec()).unwrap()),
            "stored twice"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_server_on_the_same_folder_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (_first, _) = start(folder.path()).await;
    let second = program(folder.path()).output().await.unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success());
    assert!(
        error.lines().count() == 1 && error.contains("another server uses the data folder"),
        "{error}"
    );
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_with_status_0_and_closes_streams() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = start(folder.path()).await;
    let bob = Party::register(address, "bob").await;
    let mut stream = bob.stream().await;
    stream.backlog().await;
    bob.receive_text("before").await;
    let kill = Command::new("kill")
        .args(["-TERM", &child.id().unwrap().to_string()])
        .status()
        .await
        .unwrap();
    assert!(kill.success());
    assert_eq!(stream.closed().await, Some(1012));
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).await.unwrap();
    assert!(log.contains("trust-root.private") && log.contains("stopped"), "{log}");
    let (_child, address) = start(folder.path()).await;
    let bob = Party { address, ..bob };
    assert_eq!(bob.stream().await.backlog().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn help_names_every_limit_with_its_variable() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tuckseal-server")).arg("--help").output().await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for part in
        ["--mailbox-messages", "TUCKSEAL_MAILBOX_MESSAGES", "in seconds", "--config", "--data-dir"]
    {
        assert!(help.contains(part), "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("settings.toml");
    std::fs::write(&settings, "listen = \"127.0.0.1:0\"\nmailbox = 3\n").unwrap();
    let unknown = program(folder.path()).arg("--config").arg(&settings).output().await.unwrap();
    let error = String::from_utf8(unknown.stderr).unwrap();
    assert!(
        !unknown.status.success() && error.contains("line 2") && error.contains("mailbox"),
        "{error}"
    );
    let env = program(folder.path()).env("TUCKSEAL_WINDOW_MESSAGES", "0").output().await.unwrap();
    assert!(String::from_utf8(env.stderr).unwrap().contains("window_messages"));
    let small = program(folder.path()).env("TUCKSEAL_MAX_ENVELOPE_BYTES", "1023").output().await;
    let error = String::from_utf8(small.unwrap().stderr).unwrap();
    assert!(error.contains("max_envelope_bytes must be at least 1024"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn address_in_use_is_one_clear_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuckseal-server"));
    command
        .arg("--listen")
        .arg(taken.local_addr().unwrap().to_string())
        .arg("--data-dir")
        .arg(folder.path());
    let output = command.args(["--log", "error"]).output().await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(error.lines().count() == 1 && error.contains("cannot listen on 127.0.0.1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_log_is_json_in_every_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(folder.path());
    let mut child = command.args(["--log-format", "json", "--log", "debug"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    Party::register(line.strip_prefix("listening on http://").unwrap().parse().unwrap(), "bob")
        .await;
    child.kill().await.unwrap();
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).await.unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let request = lines
        .iter()
        .find(|line| line["fields"]["route"] == "/v1/accounts")
        .expect("no line of the request");
    assert_eq!(
        (&request["fields"]["status"], &request["fields"]["method"]),
        (&200.into(), &"POST".into())
    );
}
