//! A node that stops while others go on: balancers are told first, streams leave one by one, nobody is forgotten.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use tokio_tungstenite::tungstenite::{Error, Message as Frame};

use crate::world::{Party, Stream, World};

const STREAMS: usize = 20;

/// When it was closed, with what code and reason.
async fn closed(mut stream: Stream) -> (Instant, u16, String) {
    loop {
        match stream.raw().await {
            Some(Ok(Frame::Close(Some(frame)))) => {
                return (Instant::now(), frame.code.into(), frame.reason.to_string());
            }
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn ready(party: &Party) -> StatusCode {
    party.request(Method::GET, "/readyz").send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn balancers_are_told_then_streams_leave_one_by_one() {
    let mut world = World::with(|limits| {
        limits.drain_notice_secs = 1;
        limits.drain_spread_secs = 3;
    })
    .await;
    let (bob, carol) = (world.party("bob").await, world.party("carol").await);
    let mut waiting = Vec::new();
    for n in 0..STREAMS {
        let mut stream = world.party(&format!("device{n}")).await.stream().await;
        stream.backlog().await;
        waiting.push(tokio::spawn(closed(stream)));
    }
    assert_eq!(ready(&bob).await, StatusCode::OK);
    world.signal_stop();
    let signalled = Instant::now();
    while ready(&bob).await == StatusCode::OK {}
    // Told, and still at work: a new stream gets what comes.
    let mut late = bob.stream().await;
    bob.receive_text("while it drains").await;
    assert_eq!(late.text().await, "while it drains");
    let late = tokio::spawn(closed(late));

    let refused = loop {
        if let Err(refused) = carol.try_stream().await {
            break refused;
        }
    };
    assert!(matches!(refused, Error::Http(answer) if answer.status().as_u16() == 503));
    assert!(signalled.elapsed() >= Duration::from_secs(1));
    // Requests are answered as long as streams leave.
    let answer = bob.own(Method::GET, "/v1/usernames/bob").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    waiting.push(late);
    let ends: Vec<_> = join_all(waiting).await.into_iter().map(Result::unwrap).collect();
    let (first, last) =
        (ends.iter().map(|end| end.0).min().unwrap(), ends.iter().map(|end| end.0).max().unwrap());
    assert!(first - signalled >= Duration::from_secs(1), "{:?}", first - signalled);
    assert!(last - first >= Duration::from_secs(1), "they left at once");
    for (_, code, reason) in &ends {
        let (_, secs) = reason.split_once("; retry-after: ").unwrap();
        assert!(*code == 1012 && (1..=4).contains(&secs.parse::<u64>().unwrap()), "{reason}");
    }
    world.ended().await;
}
