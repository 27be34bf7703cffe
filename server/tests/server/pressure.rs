//! A server that is behind, and an account for which too much comes.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tuckseal::service::Submission;
use tuckseal::service::submission_answer::Result as Answer;

use crate::world::{PATIENCE, Party, World, rows, texts};

/// Holds the database, as a slow disk would.
fn hold(world: &World) -> rusqlite::Connection {
    let db = rusqlite::Connection::open(world.folder.path().join("tuckseal.db")).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    db
}

/// The head of a submission whose body never comes, and the head of the answer.
async fn head_alone(bob: &Party) -> String {
    let mut socket = tokio::net::TcpStream::connect(bob.address).await.unwrap();
    let (account, key) = (bob.account_text(), bob.access_header());
    let head = format!(
        "PUT /v1/messages/{account} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n\
         content-length: 1000\r\naccess-key: {key}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(PATIENCE, socket.read(&mut answer)).await;
    let length = read.expect("no answer before the body").unwrap();
    String::from_utf8_lossy(&answer[..length]).to_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_is_behind_refuses_before_it_reads_and_keeps_what_it_took() {
    let world = World::with(|limits| limits.store_wait_ms = 50).await;
    let bob = world.party("bob").await;
    let held = hold(&world);
    let (first, submission) = (bob.clone(), bob.submission(b"first"));
    let waiting = tokio::spawn(async move { first.receive(&submission).await.status() });
    let mut bare = bob.bare_stream().await;
    let refused = async {
        loop {
            // Each waits as the first one does until it is noticed that that one waits.
            bare.hand_in(vec![bob.stream_submission(b"on the stream")]).await;
            let soon = tokio::time::timeout(Duration::from_millis(20), bare.answers(1)).await;
            if let Ok(answers) = soon {
                return answers.into_values().next().unwrap();
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("nothing is refused");
    let Answer::Refused(refused) = refused else { panic!("{refused:?}") };
    assert!((refused.status, refused.retry_after_secs > 0) == (503, true));
    let answer = head_alone(&bob).await;
    assert!(answer.starts_with("http/1.1 503") && answer.contains("retry-after: "), "{answer}");
    held.execute_batch("ROLLBACK").unwrap();
    assert_eq!(waiting.await.unwrap(), StatusCode::OK);
    let later = async {
        while bob.receive(&bob.submission(b"later")).await.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, later).await.expect("it stays behind");
    let texts = texts(&bob.stream().await.backlog().await);
    assert!(texts.contains(&"first".to_owned()));
    assert_eq!(texts.last().unwrap(), "later");
}

fn token_hash(world: &World) -> Vec<u8> {
    world.database().query_row("SELECT token_hash FROM device", [], |row| row.get(0)).unwrap()
}

/// Registers again while the database is held, and hangs up before the answer. Whether it was registered all the same.
async fn hang_up_while_registering(world: &World, bob: &Party) -> bool {
    let (before, held) = (token_hash(world), hold(world));
    let body = bob.signed(&bob.registration().await).encode_to_vec();
    let head = format!(
        "POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut socket = tokio::net::TcpStream::connect(bob.address).await.unwrap();
    socket.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(socket);
    tokio::time::sleep(Duration::from_millis(200)).await;
    held.execute_batch("ROLLBACK").unwrap();
    for _ in 0..50 {
        if token_hash(world) != before {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_of_the_old_token_ends_also_when_who_registers_again_hangs_up() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    let mut stream = bob.stream().await;
    stream.backlog().await;
    // A machine that is slow has not begun when the connection breaks: then there is nothing to see.
    let registered = async { while !hang_up_while_registering(&world, &bob).await {} };
    tokio::time::timeout(PATIENCE, registered).await.expect("it is never registered");
    assert_eq!(stream.closed().await, Some(4409));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_for_one_account_waits_and_only_who_may_write_to_it_learns_that() {
    let world = World::with(|limits| {
        (limits.inbound_burst_kib, limits.inbound_kib_per_hour) = (40, 1);
    });
    let world = world.await;
    let (bob, carol) = (world.party("bob").await, world.party("carol").await);
    let large = |to: &Party| to.submission(&[7; 6000]);
    // Whoever may not write to an account does not use it up.
    let stranger = Party { access_key: [0; 16], ..bob.clone() };
    for _ in 0..10 {
        assert_eq!(stranger.receive(&large(&bob)).await.status(), StatusCode::UNAUTHORIZED);
    }
    for _ in 0..3 {
        assert_eq!(bob.receive(&large(&bob)).await.status(), StatusCode::OK);
    }
    let refused = bob.receive(&large(&bob)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 60);
    // Ephemeral ones count as well, and a repetition is none the worse for it.
    let passing = Submission { ephemeral: true, ..bob.submission(b"x") };
    assert_eq!(bob.receive(&passing).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let nobody = Party { account: [9; 16], ..stranger.clone() };
    let (wrong, unknown) =
        (stranger.receive(&large(&bob)).await, nobody.receive(&large(&bob)).await);
    assert_eq!(
        (wrong.status(), unknown.status()),
        (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED)
    );
    let [wrong, unknown]: [Bytes; 2] =
        [wrong.bytes().await.unwrap(), unknown.bytes().await.unwrap()];
    assert_eq!(wrong, unknown);
    assert_eq!(carol.receive(&large(&carol)).await.status(), StatusCode::OK);
    assert_eq!(rows(&world.database(), "envelope"), 4);
}
