//! Mailboxes and streams: what is accepted comes, in order, until it is acknowledged.

use std::time::Duration;

use crate::world::{self, PATIENCE, World, mismatch, refusal, rows, texts};
use bytes::Bytes;
use futures_util::SinkExt;
use prost::Message;
use reqwest::{Method, StatusCode};
use tokio_tungstenite::tungstenite::Message as Frame;
use tuckseal::service::{DeviceMessage, server_frame};

#[tokio::test(flavor = "multi_thread")]
async fn message_to_an_absent_device_waits_and_one_to_a_present_device_comes_at_once() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    bob.receive_text("while away").await;
    let mut stream = bob.stream().await;
    let backlog = stream.backlog().await;
    assert_eq!(texts(&backlog), ["while away"]);
    assert!(backlog[0].server_timestamp_ms > 1_700_000_000_000 && backlog[0].id.len() == 16);
    bob.receive_text("while here").await;
    assert_eq!(stream.text().await, "while here");
}

#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_is_delivered_again_with_the_same_id_and_acknowledged_never() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    for n in 0..3 {
        bob.receive_text(&n.to_string()).await;
    }
    let mut stream = bob.stream().await;
    let first = stream.backlog().await;
    stream.ack(&first[1..2]).await;
    stream.leave().await;
    let mut stream = bob.stream().await;
    let second = stream.backlog().await;
    assert_eq!(texts(&second), ["0", "2"]);
    assert_eq!((&second[0].id, &second[1].id), (&first[0].id, &first[2].id));
    stream.ack(&second).await;
    stream.leave().await;
    assert!(bob.stream().await.backlog().await.is_empty());
    let folder = world.stop().await;
    assert_eq!(rows(&world::database(folder.path()), "envelope"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn envelope_ids_outlive_a_restart() {
    let world = World::start().await;
    let mut bob = world.party("bob").await;
    bob.receive_text("kept").await;
    let before = bob.stream().await.backlog().await;
    let world = World::on(world.stop().await, |_| ()).await;
    bob.address = world.address;
    assert_eq!(bob.stream().await.backlog().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_submission_is_accepted_and_stored_once() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    let submission = bob.submission(b"once");
    let answers = futures_util::future::join_all((0..10).map(|_| bob.receive(&submission))).await;
    assert!(answers.iter().all(|answer| answer.status() == StatusCode::OK));
    assert_eq!(bob.stream().await.backlog().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_over_backlog_and_live_messages() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    for n in 0..150 {
        bob.receive_text(&n.to_string()).await;
    }
    let mut stream = bob.stream().await;
    let sending = async {
        for n in 150..600 {
            bob.receive_text(&n.to_string()).await;
        }
    };
    let receiving = async {
        for n in 0..600 {
            let envelope = stream.envelope().await;
            assert_eq!(envelope.content, n.to_string());
            stream.ack(&[envelope]).await;
        }
    };
    tokio::join!(sending, receiving);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_senders_and_a_reconnecting_reader_lose_nothing() {
    const SENDERS: usize = 8;
    const EACH: usize = 40;
    let world = World::start().await;
    let bob = std::sync::Arc::new(world.party("bob").await);
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let bob = std::sync::Arc::clone(&bob);
            tokio::spawn(async move {
                for n in 0..EACH {
                    bob.receive_text(&format!("{sender}/{n:03}")).await;
                }
            })
        })
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    let mut order: Vec<String> = Vec::new();
    'connections: loop {
        let mut stream = bob.stream().await;
        for _ in 0..50 {
            if seen.len() == SENDERS * EACH {
                break 'connections;
            }
            let envelope = stream.envelope().await;
            stream.ack(std::slice::from_ref(&envelope)).await;
            if seen.insert(envelope.id.clone()) {
                order.push(String::from_utf8(envelope.content.to_vec()).unwrap());
            }
        }
    }
    for sender in senders {
        sender.await.unwrap();
    }
    for sender in 0..SENDERS {
        let of: Vec<&String> =
            order.iter().filter(|text| text.starts_with(&format!("{sender}/"))).collect();
        assert!(of.len() == EACH && of.is_sorted(), "{of:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backlog_comes_in_few_frames() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    for n in 0..150 {
        bob.receive_text(&n.to_string()).await;
    }
    let mut stream = bob.stream().await;
    let mut frames = Vec::new();
    while let server_frame::Body::Delivery(delivery) = stream.next().await {
        frames.push(delivery.envelopes.len());
    }
    assert_eq!(frames.iter().sum::<usize>(), 150);
    assert!(frames.len() <= 4 && frames.iter().all(|envelopes| *envelopes <= 64), "{frames:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn second_stream_displaces_the_first() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    let mut first = bob.stream().await;
    first.backlog().await;
    let mut second = bob.stream().await;
    assert_eq!(first.closed().await, Some(4409));
    second.backlog().await;
    bob.receive_text("to the second").await;
    assert_eq!(second.text().await, "to the second");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_mailbox_drops_the_oldest_and_tells_once_how_many() {
    let world = World::with(|limits| limits.mailbox_messages = 5).await;
    let bob = world.party("bob").await;
    for n in 0..8 {
        bob.receive_text(&n.to_string()).await;
    }
    let mut stream = bob.stream().await;
    let server_frame::Body::Gap(gap) = stream.next().await else { panic!("no gap") };
    assert_eq!(gap.dropped, 3);
    let kept = stream.backlog().await;
    assert_eq!(texts(&kept), ["3", "4", "5", "6", "7"]);
    // An acknowledgement behind the pong: when it is done, the pong is.
    stream.ack(&kept).await;
    stream.leave().await;
    assert!(bob.stream().await.backlog().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn gap_that_the_device_did_not_confirm_is_told_again() {
    let world = World::with(|limits| limits.mailbox_messages = 1).await;
    let bob = world.party("bob").await;
    bob.receive_text("0").await;
    bob.receive_text("1").await;
    for _ in 0..2 {
        // Dropped without reading, so that no pong goes back.
        drop(bob.stream().await);
    }
    let mut stream = bob.stream().await;
    assert!(matches!(stream.next().await, server_frame::Body::Gap(gap) if gap.dropped == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn mailbox_keeps_its_bytes() {
    let world = World::with(|limits| {
        limits.max_envelope_bytes = 1024;
        limits.mailbox_bytes = 2500;
    })
    .await;
    let bob = world.party("bob").await;
    for n in 0..4u8 {
        assert_eq!(bob.receive(&bob.submission(&[n; 1000])).await.status(), StatusCode::OK);
    }
    let mut stream = bob.stream().await;
    assert!(matches!(stream.next().await, server_frame::Body::Gap(gap) if gap.dropped == 2));
    assert_eq!(stream.backlog().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_envelopes_go_and_leave_a_gap() {
    let world = World::with(|limits| {
        limits.envelope_ttl_secs = 1;
        limits.purge_interval_secs = 1;
    })
    .await;
    let bob = world.party("bob").await;
    bob.receive_text("too late").await;
    let db = world.database();
    tokio::time::timeout(PATIENCE, async {
        while rows(&db, "envelope") > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    let mut stream = bob.stream().await;
    assert!(matches!(stream.next().await, server_frame::Body::Gap(gap) if gap.dropped == 1));
    assert!(stream.backlog().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_devices_are_listed_and_nothing_is_stored() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    let mut extra = bob.submission(b"x");
    let two = DeviceMessage { device_id: 2, ..extra.messages[0].clone() };
    extra.messages.push(two.clone());
    let (status, found) = mismatch(bob.receive(&extra).await).await;
    assert_eq!(
        (status.as_u16(), found.missing, found.extra, found.stale),
        (409, vec![], vec![2], vec![])
    );

    let mut other = bob.submission(b"x");
    other.messages = vec![two];
    let (status, found) = mismatch(bob.receive(&other).await).await;
    assert_eq!(
        (status.as_u16(), found.missing, found.extra, found.stale),
        (409, vec![1], vec![2], vec![])
    );

    let mut stale = bob.submission(b"x");
    stale.messages[0].registration_id ^= 1;
    let (status, found) = mismatch(bob.receive(&stale).await).await;
    assert_eq!(
        (status.as_u16(), found.missing, found.extra, found.stale),
        (410, vec![], vec![], vec![1])
    );

    let db = world.database();
    assert_eq!((rows(&db, "envelope"), rows(&db, "submission")), (0, 0));
    // The submission id of a refused submission is not used up.
    stale.messages[0].registration_id ^= 1;
    assert_eq!(bob.receive(&stale).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn submission_by_token_reaches_a_known_account_alone() {
    let world = World::start().await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let put = |path: String| {
        alice.own(Method::PUT, &path).body(bob.submission(b"hello").encode_to_vec()).send()
    };
    assert_eq!(
        put(format!("/v1/messages/{}", bob.account_text())).await.unwrap().status(),
        StatusCode::OK
    );
    let nobody = uuid::Uuid::from_bytes(world::random()).to_string();
    assert_eq!(
        refusal(put(format!("/v1/messages/{nobody}")).await.unwrap()).await,
        StatusCode::NOT_FOUND
    );
    assert_eq!(texts(&bob.stream().await.backlog().await), ["hello"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_account_and_wrong_access_key_get_the_same_answer() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    let mut answers = Vec::new();
    for account in [bob.account_text(), uuid::Uuid::from_bytes(world::random()).to_string()] {
        for (method, path) in [
            (Method::PUT, format!("/v1/messages/{account}")),
            (Method::GET, format!("/v1/keys/{account}/*")),
        ] {
            let request = bob.request(method, &path).header("access-key", "AAAAAAAAAAAAAAAAAAAAAA");
            let response = request.body(bob.submission(b"x").encode_to_vec()).send().await.unwrap();
            let mut headers = response.headers().clone();
            headers.remove("date");
            answers.push((response.status(), headers, response.bytes().await.unwrap()));
        }
    }
    assert_eq!(answers[0].0, StatusCode::UNAUTHORIZED);
    assert_eq!(answers[0], answers[2]);
    assert_eq!(answers[1], answers[3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_envelopes_come_whole_and_too_large_ones_are_refused() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    let large: Vec<Vec<u8>> = (0..30u8).map(|n| vec![n; 98_303]).collect();
    let mut stream = bob.stream().await;
    stream.backlog().await;
    for content in &large {
        assert_eq!(bob.receive(&bob.submission(content)).await.status(), StatusCode::OK);
    }
    for content in &large {
        let envelope = stream.envelope().await;
        assert_eq!(envelope.content, content[..]);
        stream.ack(&[envelope]).await;
    }
    let over = bob.receive(&bob.unpadded(vec![0; 98_305])).await;
    assert_eq!(refusal(over).await, StatusCode::PAYLOAD_TOO_LARGE);
    let body = bob.receive(&bob.unpadded(vec![0; 2_000_000])).await;
    assert_eq!(refusal(body).await, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_closes_streams_with_service_restart_and_keeps_what_was_accepted() {
    let mut world = World::start().await;
    let mut bob = world.party("bob").await;
    let mut stream = bob.stream().await;
    stream.backlog().await;
    bob.receive_text("before").await;
    assert_eq!(stream.text().await, "before");
    world.signal_stop();
    assert_eq!(stream.closed().await, Some(1012));
    let folder = world.ended().await;
    let world = World::on(folder, |_| ()).await;
    bob.address = world.address;
    assert_eq!(texts(&bob.stream().await.backlog().await), ["before"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_is_silent_too_long_is_closed() {
    let world = World::with(|limits| {
        limits.ping_interval_secs = 1;
        limits.stream_idle_secs = 3;
    })
    .await;
    let bob = world.party("bob").await;
    // A client that does not read does not answer pings either.
    let silent = bob.stream().await;
    let mut talking = world.party("carol").await.stream().await;
    talking.backlog().await;
    let reading = tokio::spawn(async move {
        let _ = tokio::time::timeout(Duration::from_secs(6), talking.closed()).await;
        talking.socket.send(Frame::Ping(Bytes::new())).await.is_ok()
    });
    assert!(reading.await.unwrap(), "a stream that answers pings stays open");
    let mut silent = silent;
    // What the server sent is still there to be read; after it the stream has ended.
    assert_eq!(silent.closed().await, None);
}
