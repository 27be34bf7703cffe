//! A client that is stopped while it takes something in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod stage;

use std::time::Duration;

use stage::{Person, Relay, collect, database};

/// While others write to the profile's database the engine waits, for up to five seconds.
async fn engine_waits(person: &Person) {
    while tokio::time::timeout(Duration::from_secs(1), person.client.outbox_len()).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envelope_that_is_taken_in_at_the_stop_is_acknowledged_to_the_relay() {
    let relay = Relay::start().await;
    let (alice, bob) =
        (Person::register(&relay, "alice").await, Person::register(&relay, "bob").await);
    let (running, _bobs) = (alice.spawn(), bob.spawn());
    bob.send(&alice, "first").await;
    assert_eq!(collect(&alice, 1).await, ["first"]);
    alice.send(&bob, "second").await;
    assert_eq!(collect(&bob, 1).await, ["second"]);
    // Receipts too.
    alice.sent().await;
    bob.sent().await;
    stage::until(|| relay.rows("envelope") == 0).await;

    let writing = database(alice.folder.path());
    writing.execute_batch("BEGIN IMMEDIATE").unwrap();
    bob.send(&alice, "at the stop").await;
    engine_waits(&alice).await;
    let stopped = tokio::spawn(running.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    writing.execute_batch("ROLLBACK").unwrap();
    stopped.await.unwrap();
    stage::until(|| relay.rows("envelope") == 0).await;
    assert_eq!(collect(&alice, 1).await, ["at the stop"]);
}
