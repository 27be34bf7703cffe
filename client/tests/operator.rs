//! What the operator of the server refuses, and why, comes to the user.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod stage;

use std::sync::Arc;

use stage::{event, registration};
use tuckseal_client::{Client, Event, Refused, RegisterError, ServerError};
use tuckseal_server::hook::{Asking, HookAnswer, HookEvent, HookKind, OperatorHook, ReasonCode};
use tuckseal_server::{Config, Extensions, Server};

/// Keeps out who is called mallory, and lets nobody write.
struct Strict;

impl OperatorHook for Strict {
    fn wants(&self, _: HookKind) -> bool {
        true
    }

    fn ask(&self, event: HookEvent) -> Asking<'_> {
        let refused = match event {
            HookEvent::Registration { username } => (username == "mallory").then_some("no-mallory"),
            HookEvent::Submission { .. } => Some("nobody-writes"),
            _ => None,
        };
        let refuse = |code: &str| HookAnswer::Refuse(ReasonCode::new(code).unwrap());
        Box::pin(std::future::ready(Ok(refused.map_or(HookAnswer::Allow, refuse))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_of_the_operator_is_told_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new(folder.path());
    config.listen = ([127, 0, 0, 1], 0).into();
    let own = Extensions { hook: Some(Arc::new(Strict)), ..Extensions::default() };
    let server = Server::bind_with(config, own).await.unwrap();
    let url = format!("http://{}", server.local_addr());
    tokio::spawn(server.run(std::future::pending()));
    let profiles = [0; 3].map(|_| tempfile::tempdir().unwrap());

    let kept_out = Client::register(profiles[0].path(), registration(&url, "mallory")).await;
    let Err(RegisterError::Server(ServerError::ByOperator { reason })) = kept_out else {
        panic!("{kept_out:?}");
    };
    assert_eq!(reason, "no-mallory");
    let alice = Client::register(profiles[1].path(), registration(&url, "alice")).await.unwrap();
    let bob = Client::register(profiles[2].path(), registration(&url, "bob")).await.unwrap();
    let mut events = alice.events();
    let running = alice.clone();
    tokio::spawn(async move { running.run(std::future::pending()).await });
    let sent = alice.send(bob.account(), "hi").await.unwrap();
    let refused = |event| match event {
        Event::Refused { message, reason } => Some((message, reason)),
        _ => None,
    };
    let expected = Refused::ByOperator { reason: "nobody-writes".into() };
    assert_eq!(event(&mut events, refused).await, (sent, expected));
    assert_eq!(alice.outbox_len().await.unwrap(), 0);
}
