//! What is handed over and never stored, and what is to live shorter than the server keeps it.

use std::time::Duration;

use reqwest::StatusCode;
use tuckseal::service::submission_answer::Result as Answer;
use tuckseal::service::{StreamSubmission, Submission, server_frame};

use crate::nodes::Cluster;
use crate::stores::BusServer;
use crate::world::{Party, Stream, World, rows, texts};

fn ephemeral(to: &Party, text: &str) -> Submission {
    Submission { ephemeral: true, ..to.submission(text.as_bytes()) }
}

/// The next ephemeral message; an envelope is none.
async fn passed(stream: &mut Stream) -> String {
    match stream.next().await {
        server_frame::Body::Ephemeral(passed) => String::from_utf8(passed.content.into()).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn accepted(to: &Party, text: &str) {
    assert_eq!(to.receive(&ephemeral(to, text)).await.status(), StatusCode::OK, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_message_is_handed_to_who_is_connected_and_leaves_nothing() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    // Nobody is there, and whoever sends is not told.
    accepted(&bob, "too early").await;
    let mut stream = bob.stream().await;
    assert!(stream.backlog().await.is_empty());
    accepted(&bob, "over HTTP").await;
    assert_eq!(passed(&mut stream).await, "over HTTP");
    let mut bare = bob.bare_stream().await;
    let one = StreamSubmission {
        submission: Some(ephemeral(&bob, "over the stream")),
        ..bob.stream_submission(b"")
    };
    bare.hand_in(vec![one]).await;
    assert!(bare.answers(1).await.values().all(|it| matches!(it, Answer::Accepted(_))));
    assert_eq!(passed(&mut stream).await, "over the stream");
    let db = world.database();
    assert_eq!((rows(&db, "envelope"), rows(&db, "submission")), (0, 0));
    // What is stored goes its own way beside it.
    bob.receive_text("kept").await;
    assert_eq!(stream.text().await, "kept");
    stream.leave().await;
    assert_eq!(texts(&bob.stream().await.backlog().await), ["kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_message_is_refused_as_any_other() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    let mut stream = bob.stream().await;
    stream.backlog().await;
    let mut stale = ephemeral(&bob, "x");
    stale.messages[0].registration_id ^= 1;
    assert_eq!(bob.receive(&stale).await.status(), StatusCode::GONE);
    let stranger = Party { access_key: [0; 16], ..bob.clone() };
    let nobody = Party { account: [7; 16], ..stranger.clone() };
    let [wrong, unknown] = [&stranger, &nobody].map(|to| to.receive(&stale));
    let (wrong, unknown) = (wrong.await, unknown.await);
    assert_eq!(
        (wrong.status(), unknown.status()),
        (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED)
    );
    assert_eq!(wrong.bytes().await.unwrap(), unknown.bytes().await.unwrap());
    let both = Submission { ttl_secs: 5, ..ephemeral(&bob, "x") };
    assert_eq!(bob.receive(&both).await.status(), StatusCode::BAD_REQUEST);
    // None of these came.
    accepted(&bob, "good").await;
    assert_eq!(passed(&mut stream).await, "good");
}

async fn ephemeral_message_finds_the_device_at_another_node(bus: BusServer) {
    let cluster = Cluster::start(2, Some(bus), 3600).await;
    let bob = cluster.nodes[0].party("bob").await;
    let mut stream = bob.stream().await;
    stream.backlog().await;
    let bob = cluster.at(1, bob);
    for n in 0..20 {
        accepted(&bob, &n.to_string()).await;
        assert_eq!(passed(&mut stream).await, n.to_string());
    }
    let large = "x".repeat(90_000);
    accepted(&bob, &large).await;
    assert_eq!(passed(&mut stream).await, large);
    stream.leave().await;
    accepted(&bob, "gone").await;
    assert!(bob.stream().await.backlog().await.is_empty());
}

mod nats {
    #[tokio::test(flavor = "multi_thread")]
    async fn ephemeral_message_finds_the_device_at_another_node() {
        super::ephemeral_message_finds_the_device_at_another_node(super::BusServer::nats().await)
            .await;
    }
}

mod redis {
    #[tokio::test(flavor = "multi_thread")]
    async fn ephemeral_message_finds_the_device_at_another_node() {
        super::ephemeral_message_finds_the_device_at_another_node(super::BusServer::redis().await)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envelope_whose_time_is_over_is_not_delivered_and_makes_no_gap() {
    let world = World::with(|limits| limits.purge_interval_secs = 1).await;
    let bob = world.party("bob").await;
    let short = Submission { ttl_secs: 1, ..bob.submission(b"short") };
    assert_eq!(bob.receive(&short).await.status(), StatusCode::OK);
    let long = Submission { ttl_secs: u64::MAX, ..bob.submission(b"no longer than any") };
    assert_eq!(bob.receive(&long).await.status(), StatusCode::OK);
    assert_eq!(texts(&bob.stream().await.backlog().await), ["short", "no longer than any"]);
    let db = world.database();
    let gone = async {
        while rows(&db, "envelope") > 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::world::PATIENCE, gone).await.expect("it is not purged");
    // A gap would panic here.
    assert_eq!(texts(&bob.stream().await.backlog().await), ["no longer than any"]);
    let life: i64 = db
        .query_row("SELECT expires_ms - received_ms FROM envelope", [], |row| row.get(0))
        .unwrap();
    assert_eq!(life, 2_592_000_000);
}
