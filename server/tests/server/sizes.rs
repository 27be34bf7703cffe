//! The sizes of envelopes: whichever way they are handed in, the relay stores no other.

use bytes::Bytes;
use prost::Message;
use reqwest::{Method, StatusCode};
use tuckseal::service::{StreamSubmission, Submission, submission_answer};
use tuckseal::{ENVELOPE_SIZES, SentMessage};

use crate::multi;
use crate::world::{World, problem, rows};

/// What is one byte away from a size, and what is nothing.
fn other_sizes() -> Vec<usize> {
    let beside = ENVELOPE_SIZES.into_iter().flat_map(|size| [size - 1, size + 1]);
    beside.chain([0, 1]).filter(|size| *size < 98_304).collect()
}

fn not_padded() -> (u16, String) {
    (400, "urn:tuckseal:problem:envelope-size".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn envelope_of_another_size_is_refused_over_http_by_token_and_by_access_key() {
    let world = World::start().await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let path = format!("/v1/messages/{}", bob.account_text());
    for size in other_sizes() {
        let submission = bob.unpadded(vec![7; size]);
        let by_token = alice.own(Method::PUT, &path).body(submission.encode_to_vec());
        assert_eq!(problem(by_token.send().await.unwrap()).await, not_padded(), "{size}");
        assert_eq!(problem(bob.receive(&submission).await).await, not_padded(), "{size}");
        let passing = Submission { ephemeral: true, ..submission };
        assert_eq!(problem(bob.receive(&passing).await).await, not_padded(), "{size}");
    }
    // One that is not as it should be, among those for several devices.
    let mut two = bob.submission(b"x");
    two.messages.push(bob.unpadded(vec![7; 1000]).messages.remove(0));
    two.messages[1].device_id = 2;
    assert_eq!(problem(bob.receive(&two).await).await, not_padded());
    let db = world.database();
    assert_eq!((rows(&db, "envelope"), rows(&db, "submission")), (0, 0));
    for size in ENVELOPE_SIZES {
        let submission = bob.submission(&vec![7; size - 1]);
        assert_eq!(bob.receive(&submission).await.status(), StatusCode::OK, "{size}");
    }
    let sizes = "SELECT group_concat(length(body)) FROM (SELECT body FROM envelope ORDER BY id)";
    let sizes: String = world.database().query_row(sizes, [], |row| row.get(0)).unwrap();
    assert_eq!(sizes, "1024,4096,16384,65536,98304");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_says_the_sizes() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    let response = bob.receive(&bob.unpadded(vec![7; 1000])).await;
    let problem: serde_json::Value =
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(ENVELOPE_SIZES.iter().all(|size| detail.contains(&size.to_string())), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn envelope_of_another_size_is_refused_over_the_stream_and_hinders_no_other() {
    let world = World::start().await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    for (mut stream, key) in [
        (alice.stream().await, Bytes::new()),
        (bob.bare_stream().await, Bytes::copy_from_slice(&bob.access_key)),
    ] {
        let sealed = |submission| StreamSubmission {
            account: Bytes::copy_from_slice(&bob.account),
            access_key: key.clone(),
            submission: Some(submission),
        };
        let bad = other_sizes().into_iter().map(|size| sealed(bob.unpadded(vec![7; size])));
        let good = sealed(bob.submission(b"good"));
        let all: Vec<_> = bad.chain([good.clone()]).collect();
        stream.hand_in(all.clone()).await;
        let answers = stream.answers(all.len()).await;
        for one in &all {
            match &answers[&one.submission.as_ref().unwrap().submission_id] {
                submission_answer::Result::Refused(refused) => {
                    assert_eq!((refused.status as u16, refused.r#type.clone()), not_padded());
                }
                answer => {
                    assert!(matches!(answer, submission_answer::Result::Accepted(_)));
                    assert_eq!(one, &good);
                }
            }
        }
    }
    assert_eq!(rows(&world.database(), "envelope"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_for_many_counts_what_each_recipient_receives() {
    let world = World::start().await;
    let (a, b) = (world.party("a").await, world.party("b").await);
    for shared in [32, 974, 976, 1024, 4095 - 49, 4096, 5000] {
        let unpadded = multi::unpadded(&[&a, &b], &vec![7; shared]);
        assert_eq!(problem(multi::submit(&a, &unpadded).await).await, not_padded(), "{shared}");
        let request = a.own(Method::PUT, "/v1/messages/multi");
        let by_token = multi::without_access(unpadded).encode_to_vec();
        let response = request.body(by_token).send().await.unwrap();
        assert_eq!(problem(response).await, not_padded(), "{shared}");
    }
    let db = world.database();
    assert_eq!((rows(&db, "envelope"), rows(&db, "payload")), (0, 0));
    // Small ones are stored whole, larger ones with their common end apart: both are of a size.
    for shared in [32, 5000] {
        let submission = multi::submission(&[&a, &b], &vec![7; shared]);
        let sent = SentMessage::from_bytes(submission.sent.clone()).unwrap();
        assert!(ENVELOPE_SIZES.contains(&sent.received_len()));
        assert_eq!(multi::submit(&a, &submission).await.status(), StatusCode::OK);
    }
    let sizes = "SELECT group_concat(length(envelope.body) + coalesce(length(payload.body), 0))
        FROM envelope LEFT JOIN payload ON payload.id = envelope.payload";
    let sizes: String = world.database().query_row(sizes, [], |row| row.get(0)).unwrap();
    assert_eq!(sizes, "1024,1024,16384,16384");
    assert_eq!(rows(&world.database(), "payload"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_above_a_smaller_limit_are_too_large_and_a_larger_limit_adds_none() {
    let world = World::with(|limits| limits.max_envelope_bytes = 20_000).await;
    let bob = world.party("bob").await;
    let mut answers = Vec::new();
    for size in ENVELOPE_SIZES {
        answers.push(bob.receive(&bob.submission(&vec![7; size - 1])).await.status().as_u16());
    }
    assert_eq!(answers, [200, 200, 200, 413, 413]);
    let between = bob.receive(&bob.unpadded(vec![7; 20_000])).await;
    assert_eq!(problem(between).await, not_padded());
    let many = multi::submission(&[&bob], &vec![7; 20_000]);
    assert_eq!(multi::submit(&bob, &many).await.status(), StatusCode::PAYLOAD_TOO_LARGE);

    let world = World::with(|limits| limits.max_envelope_bytes = 200_000).await;
    let bob = world.party("bob").await;
    for size in [98_305, 131_072, 200_000] {
        assert_eq!(problem(bob.receive(&bob.unpadded(vec![7; size])).await).await, not_padded());
    }
}
