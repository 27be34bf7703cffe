//! Submissions over the stream: answered one by one, by the same rules as over HTTP.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use prost::Message;
use tokio_tungstenite::tungstenite::Message as Frame;
use tuckseal::service::submission_answer::Result as Answer;
use tuckseal::service::{Ack, ClientFrame, StreamSubmission, client_frame};

use crate::world::{PATIENCE, Party, World, rows, texts};

fn id(submission: &StreamSubmission) -> Bytes {
    submission.submission.as_ref().unwrap().submission_id.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_submissions_go_without_a_token_many_in_a_frame_and_twice_is_once() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    let mut stream = bob.bare_stream().await;
    let all: Vec<_> = (0..50).map(|n| bob.stream_submission(n.to_string().as_bytes())).collect();
    for _ in 0..2 {
        stream.hand_in(all.clone()).await;
        let answers = stream.answers(50).await;
        assert!(all.iter().all(|one| matches!(answers[&id(one)], Answer::Accepted(_))));
    }
    let mut received = texts(&bob.stream().await.backlog().await);
    received.sort_by_key(|text| text.parse::<u32>().unwrap());
    assert_eq!(received, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn device_hands_in_by_its_token_on_the_stream_that_delivers_to_it() {
    let world = World::start().await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let carol = world.party("carol").await;
    let mut stream = alice.stream().await;
    stream.backlog().await;
    let by_token = |to: &Party| StreamSubmission {
        access_key: Bytes::new(),
        ..to.stream_submission(b"by token")
    };
    stream.hand_in(vec![by_token(&bob), by_token(&carol)]).await;
    assert!(stream.answers(2).await.values().all(|answer| matches!(answer, Answer::Accepted(_))));
    alice.receive_text("for her").await;
    assert_eq!(stream.text().await, "for her");
    assert_eq!(texts(&carol.stream().await.backlog().await), ["by token"]);
    assert_eq!(texts(&bob.stream().await.backlog().await), ["by token"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_those_of_http_and_the_others_go_through() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    let good = bob.stream_submission(b"good");
    let wrong_key = StreamSubmission {
        access_key: Bytes::from_static(&[0; 16]),
        ..bob.stream_submission(b"x")
    };
    let unknown =
        StreamSubmission { account: Bytes::from_static(&[7; 16]), ..bob.stream_submission(b"x") };
    let no_key = StreamSubmission { access_key: Bytes::new(), ..bob.stream_submission(b"x") };
    let short = StreamSubmission { account: Bytes::new(), ..bob.stream_submission(b"x") };
    let mut stale = bob.stream_submission(b"x");
    stale.submission.as_mut().unwrap().messages[0].registration_id ^= 1;
    let mut large = bob.stream_submission(b"x");
    large.submission.as_mut().unwrap().messages[0].content = vec![0; 98_305].into();
    let mut stream = bob.bare_stream().await;
    let all = [&wrong_key, &unknown, &no_key, &short, &stale, &large, &good];
    stream.hand_in(all.into_iter().cloned().collect()).await;
    let answers = stream.answers(all.len()).await;
    let status = |one: &StreamSubmission| match &answers[&id(one)] {
        Answer::Refused(refused) => (refused.status, refused.detail.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(status(&wrong_key), status(&unknown));
    let statuses = [&wrong_key, &no_key, &short, &large].map(|one| status(one).0);
    assert_eq!(statuses, [401, 401, 400, 413]);
    let Answer::Devices(devices) = &answers[&id(&stale)] else { panic!() };
    assert_eq!(devices.stale, [1]);
    assert!(matches!(answers[&id(&good)], Answer::Accepted(_)));
    assert_eq!(texts(&bob.stream().await.backlog().await), ["good"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_keeps_to_what_it_was_opened_for() {
    let world = World::with(|limits| limits.stream_submissions = 4).await;
    let bob = world.party("bob").await;
    // Whoever shows a token and an access key would say who sends a sealed message.
    let mut stream = bob.stream().await;
    let sealed = bob.stream_submission(b"x");
    stream.hand_in(vec![sealed.clone()]).await;
    let Answer::Refused(refused) = &stream.answers(1).await[&id(&sealed)] else { panic!() };
    assert_eq!(refused.status, 400);
    let mut stream = bob.bare_stream().await;
    stream.hand_in(vec![sealed; 5]).await;
    assert_eq!(stream.closed().await, Some(1009));
    let mut stream = bob.bare_stream().await;
    let ack = client_frame::Body::Ack(Ack { ids: Vec::new() });
    let frame = ClientFrame { body: Some(ack) }.encode_to_vec();
    stream.socket.send(Frame::Binary(frame.into())).await.unwrap();
    assert_eq!(stream.closed().await, Some(1007));
    assert_eq!(rows(&world.database(), "envelope"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_be_under_way_waits_in_the_socket() {
    let world = World::with(|limits| limits.stream_submissions = 2).await;
    let bob = world.party("bob").await;
    let mut stream = bob.bare_stream().await;
    for n in 0..100 {
        stream.hand_in(vec![bob.stream_submission(format!("{n}").as_bytes())]).await;
    }
    let answers = stream.answers(100).await;
    assert!(answers.values().all(|answer| matches!(answer, Answer::Accepted(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_keeps_its_place_among_the_connections_until_it_is_closed() {
    let world = World::with(|limits| limits.connections = 2).await;
    let bob = Party::new(world.address, "bob");
    let mut opening: FuturesUnordered<_> = (0..5).map(|_| bob.bare_stream()).collect();
    let mut open = Vec::new();
    for place in 0..5 {
        if place >= 2 {
            // Nobody else comes in before somebody leaves.
            let early = tokio::time::timeout(Duration::from_millis(300), opening.next()).await;
            assert!(early.is_err(), "{} are open", open.len() + 1);
            open.remove(0);
        }
        let next = tokio::time::timeout(PATIENCE, opening.next()).await;
        open.push(next.expect("no place became free").unwrap());
    }
    let left: Vec<_> =
        std::mem::take(&mut open).into_iter().map(crate::world::Stream::leave).collect();
    futures_util::future::join_all(left).await;
    world.stop().await;
}
