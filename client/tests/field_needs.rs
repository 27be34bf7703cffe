//! What people ran into with other libraries, one test a row of that collection, and what
//! a client must bear from a relay and from strangers. Crashes are tested beside the store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod stage;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use stage::{Person, Relay, collect, database, event, numbers};
use tuckseal::service::{DeviceMessage, Submission};
use tuckseal::{IdentityKey, IdentityKeyPair, pad_envelope};
use tuckseal_client::{
    Event, Failure, IdentityError, Refused, RunError, SentState, Settings, Verification,
};

async fn pair(relay: &Relay) -> [Person; 2] {
    [Person::register(relay, "alice").await, Person::register(relay, "bob").await]
}

/// Alice, as if she had known her only contact under another identity key than it has.
async fn with_other_known_key(alice: Person) -> (Person, IdentityKey) {
    let known = IdentityKeyPair::generate(&mut rand::rng()).identity_key();
    let hex: String = known.serialize().iter().map(|byte| format!("{byte:02x}")).collect();
    (alice.tampered(&format!("UPDATE peer SET identity = x'{hex}'")).await, known)
}

fn changed(event: Event) -> Option<(IdentityKey, IdentityKey)> {
    if let Event::IdentityChanged { known, offered, .. } = event {
        Some((known, offered))
    } else {
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_05_calls_from_many_tasks_at_once_use_no_counter_twice() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let _running = [alice.spawn(), bob.spawn()];
    let to = bob.client.account();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let client = alice.client.clone();
            tokio::spawn(async move {
                for n in 0..10 {
                    client.send(to, &(task * 10 + n).to_string()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut got = collect(&bob, 80).await;
    got.sort_by_key(|text| text.parse::<u32>().unwrap());
    assert_eq!(got, numbers(0..80));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_13_messages_under_a_changed_identity_are_held_until_somebody_accepts_it() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    alice.client.lookup("bob").await.unwrap();
    let (alice, known) = with_other_known_key(alice).await;
    let mut events = alice.client.events();
    let _running = [alice.spawn(), bob.spawn()];
    bob.send(&alice, "one").await;
    bob.send(&alice, "two").await;
    let (said_known, offered) = event(&mut events, changed).await;
    assert_eq!((said_known, offered), (known, bob.client.identity_key()));
    bob.sent().await;

    // Ours wait too, and nothing is shown.
    let waiting = alice.send(&bob, "answer").await;
    assert_eq!(alice.client.sent_state(waiting).await.unwrap(), SentState::Waiting);
    assert_eq!(alice.client.inbox().await.unwrap(), []);
    let contacts = alice.client.contacts().await.unwrap();
    assert_eq!((contacts[0].identity, contacts[0].offered), (Some(known), Some(offered)));
    let wrong = alice.client.accept_identity(bob.client.account(), known).await;
    assert!(matches!(wrong, Err(IdentityError::NotOffered)));

    alice.client.accept_identity(bob.client.account(), offered).await.unwrap();
    assert_eq!(collect(&alice, 2).await, ["one", "two"]);
    assert_eq!(collect(&bob, 1).await, ["answer"]);
    let again = alice.client.accept_identity(bob.client.account(), offered).await;
    assert!(matches!(again, Err(IdentityError::NotOffered)));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_13_messages_under_a_rejected_identity_are_dropped_and_ours_are_refused() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    alice.client.lookup("bob").await.unwrap();
    let (alice, known) = with_other_known_key(alice).await;
    let mut events = alice.client.events();
    let _running = [alice.spawn(), bob.spawn()];
    // The server's bundle shows the other key.
    let sent = alice.send(&bob, "for the one I know").await;
    let (said_known, offered) = event(&mut events, changed).await;
    assert_eq!((said_known, offered), (known, bob.client.identity_key()));
    assert_eq!(alice.client.sent_state(sent).await.unwrap(), SentState::Waiting);

    alice.client.reject_identity(bob.client.account(), offered).await.unwrap();
    let refused = |event| match event {
        Event::Refused { message, reason } => Some((message, reason)),
        _ => None,
    };
    assert_eq!(event(&mut events, refused).await, (sent, Refused::IdentityRejected));
    bob.send(&alice, "it is me").await;
    let failed = |event| match event {
        Event::Failure { reason, account, .. } => Some((reason, account)),
        _ => None,
    };
    let dropped = (Failure::IdentityRejected, Some(bob.client.account()));
    assert_eq!(event(&mut events, failed).await, dropped);
    assert_eq!(alice.client.inbox().await.unwrap(), []);
    assert_eq!(alice.client.contacts().await.unwrap()[0].identity, Some(known));
}

/// Somebody who has an access key and nothing else.
async fn throw(relay: &Relay, at: &Person, content: &[u8]) {
    let sql = "SELECT access_key, registration_id FROM profile";
    let (key, registration_id): ([u8; 16], u32) = database(at.folder.path())
        .query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let mut id = [0; 16];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut id);
    let message = DeviceMessage { device_id: 1, registration_id, content: content.to_vec().into() };
    let body = Submission {
        submission_id: id.to_vec().into(),
        messages: vec![message],
        ..Submission::default()
    };
    // Without a provider of cryptography, reqwest makes no client, although nothing here needs one.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let response = reqwest::Client::new()
        .put(format!("{}/v1/messages/{}", relay.url, at.client.account()))
        .header("content-type", "application/x-protobuf")
        .header("access-key", URL_SAFE_NO_PAD.encode(key))
        .body(body.encode_to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_23_a_storm_of_junk_is_counted_told_a_few_times_and_stops_nothing() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    for n in 0..20 {
        // A version byte alone, and what looks a little more like an envelope; or no padding in its place.
        let mut junk = [0x11; 60][..1 + 3 * n].to_vec();
        match n % 4 {
            3 => junk.resize(1024, 0),
            _ => pad_envelope(&mut junk).unwrap(),
        }
        throw(&relay, &bob, &junk).await;
    }
    alice.send(&bob, "still there?").await;
    let mut events = bob.client.events();
    let running = [alice.spawn(), bob.spawn()];
    assert_eq!(collect(&bob, 1).await, ["still there?"]);
    let mut counts = Vec::new();
    loop {
        match events.recv().await.unwrap() {
            Event::Failure { account, reason, count } => {
                assert_eq!((account, reason), (None, Failure::Sealed));
                counts.push(count);
            }
            Event::Message(_) => break,
            _ => {}
        }
    }
    assert_eq!(counts, [1, 2, 4, 8, 16]);
    // All of it is acknowledged: nothing is delivered again.
    for running in running {
        running.stop().await;
    }
    let bob = bob.reopen().await;
    let mut events = bob.client.events();
    let _running = bob.spawn();
    let first = event(&mut events, |event| match event {
        Event::Failure { .. } | Event::Message(_) => Some("something"),
        Event::QueueEmpty => Some("nothing"),
        _ => None,
    });
    assert_eq!(first.await, "nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_28_a_one_time_prekey_is_used_once_and_the_server_is_supplied_again() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let keys = |person: &Person| {
        let sql = "SELECT (SELECT count(*) FROM one_time_prekey WHERE id <= 100),
                          (SELECT count(*) FROM one_time_prekey WHERE id > 100 AND state = 1),
                          (SELECT count(*) FROM kem_prekey WHERE use = 0)";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        database(person.folder.path()).query_row::<(u32, u32, u32), _, _>(sql, (), read).unwrap()
    };
    assert_eq!(keys(&bob), (100, 0, 50));
    alice.send(&bob, "first").await;
    let running = alice.spawn();
    alice.sent().await;
    drop(running);
    assert_eq!(keys(&bob), (100, 0, 50), "a key is kept until its message has come");

    // 99 are left at the server, which is low for this Bob.
    let mut settings = Settings::default();
    settings.prekeys_low = 100;
    let bob = bob.reopen_with(settings).await;
    let mut events = bob.client.events();
    let running = bob.spawn();
    assert_eq!(collect(&bob, 1).await, ["first"]);
    let refilled = async {
        while keys(&bob).1 < 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(stage::TIME, refilled).await.expect("the server was not supplied");
    let (kept, new, kem) = keys(&bob);
    assert_eq!((kept, new), (99, 1));
    // The KEM keys are filled up to 50 at the server when they are low, as they are here.
    assert!((49..=50).contains(&kem), "{kem}");
    running.stop().await;
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.recv()).await {
        assert!(!matches!(event, Event::Failure { .. }), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_10_a_server_that_has_forgotten_our_prekeys_gets_new_ones_on_connecting() {
    let mut relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    relay.stop().await;
    let server = rusqlite::Connection::open(relay.folder.path().join("tuckseal.db")).unwrap();
    server.execute_batch("DELETE FROM prekey_once; UPDATE prekey_state SET remaining = 0").unwrap();
    drop(server);
    relay.start_again().await;
    let running = bob.spawn();
    let sql = "SELECT count(*) FROM one_time_prekey WHERE id > 100 AND state = 1";
    let supplied = async {
        while database(bob.folder.path()).query_row(sql, (), |row| row.get::<_, u32>(0)).unwrap()
            < 100
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(stage::TIME, supplied).await.expect("the server was not supplied");
    alice.send(&bob, "with a new key").await;
    let _running = [running, alice.spawn()];
    assert_eq!(collect(&bob, 1).await, ["with a new key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_never_comes_is_waited_for_and_then_marked_as_missing() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let running = [alice.spawn(), bob.spawn()];
    alice.send(&bob, "1").await;
    assert_eq!(collect(&bob, 1).await, ["1"]);
    drop(running);
    // Two messages that Alice has sent and the relay has lost.
    let alice = alice.tampered("UPDATE device SET sent = sent + 2").await;
    let mut settings = Settings::default();
    settings.gap_wait = Duration::from_millis(50);
    let bob = bob.reopen_with(settings).await;
    let _running = [alice.spawn(), bob.spawn()];
    alice.send(&bob, "4").await;
    alice.send(&bob, "5").await;
    let (fourth, fifth) = (bob.next().await, bob.next().await);
    assert_eq!((fourth.text.as_str(), fourth.missing_before), ("4", 2));
    assert_eq!((fifth.text.as_str(), fifth.missing_before), ("5", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_trust_root_than_the_pinned_one_is_left() {
    let relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    let other = IdentityKeyPair::generate(&mut rand::rng()).identity_key().serialize();
    let hex: String = other.iter().map(|byte| format!("{byte:02x}")).collect();
    let alice = alice.tampered(&format!("UPDATE profile SET trust_root = x'{hex}'")).await;
    assert!(matches!(alice.spawn().ended().await, Err(RunError::WrongTrustRoot)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_of_the_same_device_ends_the_first_for_good() {
    let relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await.reopen().await;
    let copy = tempfile::tempdir().unwrap();
    for name in ["profile.db", "profile.db-wal"] {
        // The log is not there when it was written back.
        let _ = std::fs::copy(alice.folder.path().join(name), copy.path().join(name));
    }
    let copy = Person::open(copy).await;
    let mut events = alice.client.events();
    let first = alice.spawn();
    event(&mut events, |event| matches!(event, Event::Connected).then_some(())).await;
    let _second = copy.spawn();
    assert!(matches!(first.ended().await, Err(RunError::Displaced)));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_09_a_commit_that_fails_tells_of_nothing_and_is_made_up_for_later() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let running = alice.spawn();
    alice.send(&bob, "one").await;
    alice.send(&bob, "two").await;
    alice.sent().await;
    running.stop().await;
    // As a disk that is full when the second message of the batch is written.
    let full = "CREATE TRIGGER full BEFORE INSERT ON inbox WHEN (SELECT count(*) FROM inbox) = 1
                BEGIN SELECT raise(ABORT, 'database or disk is full'); END";
    let bob = bob.tampered(full).await;
    let mut events = bob.client.events();
    assert!(matches!(bob.spawn().ended().await, Err(RunError::Profile(_))));
    assert_eq!(bob.client.inbox().await.unwrap(), []);
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.recv()).await {
        assert!(!matches!(event, Event::Message(_)), "told of a message that is not in the inbox");
    }
    let bob = bob.tampered("DROP TRIGGER full").await;
    let _running = bob.spawn();
    assert_eq!(collect(&bob, 2).await, ["one", "two"]);
    assert_eq!(bob.client.inbox().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_23_peers_without_usable_keys_hold_up_nobody_else() {
    let mut relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    let mut broken = Vec::new();
    for n in 0..3 {
        broken.push(Person::register(&relay, &format!("broken{n}")).await);
    }
    relay.stop().await;
    let server = rusqlite::Connection::open(relay.folder.path().join("tuckseal.db")).unwrap();
    server.execute_batch("UPDATE prekey_fixed SET signature = zeroblob(64)").unwrap();
    drop(server);
    relay.start_again().await;
    let bob = Person::register(&relay, "bob").await;
    for person in &broken {
        alice.send(person, "in vain").await;
    }
    alice.send(&bob, "past them").await;
    let mut settings = Settings::default();
    settings.parallel = 2;
    let alice = alice.reopen_with(settings).await;
    let mut events = alice.client.events();
    let _running = [alice.spawn(), bob.spawn()];
    let bundle = |event| match event {
        Event::Failure { account, reason: Failure::Bundle, .. } => account,
        _ => None,
    };
    let failed = event(&mut events, bundle).await;
    assert!(broken.iter().any(|person| person.client.account() == failed));
    assert_eq!(collect(&bob, 1).await, ["past them"]);
    assert_eq!(alice.client.outbox_len().await.unwrap(), 3, "they are tried again, not given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_42_safety_numbers_agree_and_a_verified_contact_with_another_key_gets_nothing() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let running = [alice.spawn(), bob.spawn()];
    let account = bob.client.account();
    assert!(alice.client.safety_number(account).await.unwrap().is_none(), "no key is known yet");
    alice.send(&bob, "hello").await;
    collect(&bob, 1).await;
    bob.send(&alice, "hello").await;
    collect(&alice, 1).await;
    let (ours, key) = alice.client.safety_number(account).await.unwrap().unwrap();
    let (theirs, _) = bob.client.safety_number(alice.client.account()).await.unwrap().unwrap();
    assert_eq!(ours.to_string(), theirs.to_string());
    assert_eq!(ours.compare(&theirs.encode()).unwrap(), tuckseal::Comparison::Match);
    alice.client.set_verified(account, key, Verification::Verified).await.unwrap();
    assert!(alice.client.contacts().await.unwrap()[0].verified);
    let other = IdentityKeyPair::generate(&mut rand::rng()).identity_key();
    let wrong = alice.client.set_verified(account, other, Verification::Verified).await;
    assert!(matches!(wrong, Err(IdentityError::NotKnown)));
    for running in running {
        running.stop().await;
    }

    // Bob writes under a key that is not the verified one.
    let (alice, _) = with_other_known_key(alice).await;
    let mut events = alice.client.events();
    let _running = [alice.spawn(), bob.spawn()];
    bob.send(&alice, "from a new phone").await;
    let verified = |event| match event {
        Event::IdentityChanged { was_verified, .. } => Some(was_verified),
        _ => None,
    };
    assert!(event(&mut events, verified).await);
    let sent = alice.send(&bob, "who is there?").await;
    assert_eq!(alice.client.sent_state(sent).await.unwrap(), SentState::Waiting);
    let offered = bob.client.identity_key();
    alice.client.accept_identity(account, offered).await.unwrap();
    assert_eq!(collect(&bob, 1).await, ["who is there?"]);
    assert!(!alice.client.contacts().await.unwrap()[0].verified, "it has to be compared anew");
}
