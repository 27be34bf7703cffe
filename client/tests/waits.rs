//! A relay that will not have us now says when to come back: we come no earlier, not much later, and not all at once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod stage;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use stage::{Person, Relay, TIME, event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tuckseal_client::{Event, ServerError};

/// How a stream that is opened ends.
#[derive(Clone, Copy)]
enum Ends {
    /// It is not opened: a head of HTTP.
    Refused(&'static str),
    /// It is closed with 1012 and this reason.
    Closed(&'static str),
}

/// In the place of a relay that is no more. When each stream was asked for.
async fn stand_in(relay: &mut Relay, ends: Ends) -> mpsc::UnboundedReceiver<Instant> {
    relay.stop().await;
    let address = relay.url.strip_prefix("http://").unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    let (asked, times) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(socket, ends, asked.clone()));
        }
    });
    times
}

async fn answer(mut socket: TcpStream, ends: Ends, asked: mpsc::UnboundedSender<Instant>) {
    let mut head = [0; 4096];
    let length = socket.peek(&mut head).await.unwrap();
    if !head[..length].starts_with(b"GET /v1/stream ") {
        // Nobody needs an answer to the rest.
        return;
    }
    let _ = asked.send(Instant::now());
    match ends {
        Ends::Refused(status) => {
            let _ = socket.read(&mut head).await;
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            let _ = socket.write_all(answer.as_bytes()).await;
        }
        Ends::Closed(reason) => {
            let mut stream = accept_async(socket).await.unwrap();
            let close = CloseFrame { code: 1012.into(), reason: reason.into() };
            let _ = stream.close(Some(close)).await;
            while let Some(Ok(_)) = stream.next().await {}
        }
    }
}

/// The wait after a stream that did not come to be or ended.
async fn wait_of(alice: &Person) -> (Duration, ServerError) {
    let mut events = alice.client.events();
    let running = alice.spawn();
    let disconnected = |event| match event {
        Event::Disconnected { retry_in, cause } => Some((retry_in, cause)),
        _ => None,
    };
    let wait = event(&mut events, disconnected).await;
    running.stop().await;
    wait
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_and_closed_streams_are_opened_again_when_the_relay_says() {
    let refusals = [
        Ends::Refused("503 Service Unavailable\r\nretry-after: 2"),
        Ends::Refused("429 Too Many Requests\r\nretry-after: 2"),
        Ends::Closed("the server restarts; retry-after: 2"),
    ];
    let refused = refusals.map(|ends| async move {
        let mut relay = Relay::start().await;
        let alice = Person::register(&relay, "alice").await;
        let mut asked = stand_in(&mut relay, ends).await;
        let mut events = alice.client.events();
        let _running = alice.spawn();
        let first = asked.recv().await.unwrap();
        let told = |event| match event {
            Event::Disconnected { retry_in, .. } => Some(retry_in),
            _ => None,
        };
        let retry_in = event(&mut events, told).await;
        assert!(retry_in >= Duration::from_secs(2) && retry_in <= Duration::from_secs(4));
        let second = tokio::time::timeout(TIME, asked.recv()).await.expect("it does not come back");
        assert!(second.unwrap() - first >= retry_in);
    });
    futures_util::future::join_all(refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_kept_away_for_good_and_not_all_come_back_at_once() {
    let mut relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    let forever = Ends::Refused("503 Service Unavailable\r\nretry-after: 99999999999");
    let _asked = stand_in(&mut relay, forever).await;
    let mut waits = Vec::new();
    for _ in 0..5 {
        let (retry_in, cause) = wait_of(&alice).await;
        assert!(matches!(cause, ServerError::Busy { status: 503, .. }), "{cause}");
        let secs = retry_in.as_secs_f64();
        assert!((60.0..=120.0).contains(&secs), "{secs}");
        waits.push(retry_in);
    }
    waits.sort();
    waits.dedup();
    assert!(waits.len() > 1, "all waits are the same");
}
