//! A conversation over https. The certificate is trusted because `SSL_CERT_FILE` names it, which is read once in a
//! process: the conversation is held in a process of its own, and once more in one that does not trust it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]
#![cfg(unix)]

mod stage;

use std::process::Command;

use stage::{Person, Relay, registration};
use tuckseal_client::{Client, RegisterError, ServerError};

fn tls_file(name: &str) -> String {
    format!("{}/../server/tests/server/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below, in a process of its own"]
async fn conversation() {
    let relay = Relay::start_with_tls(tls_file("certificate.pem"), tls_file("key.pem")).await;
    if std::env::var_os("EXPECT_NO_TRUST").is_some() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Client::register(folder.path(), registration(&relay.url, "alice")).await;
        let refused = refused.err().unwrap();
        let unreachable = matches!(refused, RegisterError::Server(ServerError::Unreachable { .. }));
        assert!(unreachable, "{refused}");
        return;
    }
    let (alice, bob) =
        (Person::register(&relay, "alice").await, Person::register(&relay, "bob").await);
    let _running = [alice.spawn(), bob.spawn()];
    alice.send(&bob, "over https").await;
    assert_eq!(bob.next().await.text, "over https");
    bob.send(&alice, "and back").await;
    assert_eq!(alice.next().await.text, "and back");
}

fn held(change: impl FnOnce(&mut Command)) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "conversation", "--ignored", "--nocapture"]);
    change(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.contains("1 passed")
}

#[test]
fn conversation_is_held_over_https_with_a_certificate_that_is_trusted_and_not_with_another() {
    assert!(held(|command| {
        command.env("SSL_CERT_FILE", tls_file("certificate.pem"));
    }));
    assert!(held(|command| {
        command.env("EXPECT_NO_TRUST", "1");
    }));
}
