//! Stories between real clients and a real server, all in this process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod stage;

use stage::{Person, Relay, collect, database, event, numbers};
use tempfile::TempDir;
use tuckseal::ServiceId;
use tuckseal::content::{ReceiptKind, Typing};
use tuckseal_client::{Event, Receipts, RunError, SendError, SentState, Settings};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_written_while_the_other_is_away_is_read_later() {
    let relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    let bob = Person::register(&relay, "bob").await;
    let to = alice.client.lookup("bob").await.unwrap();
    assert_eq!(to, bob.client.account());

    let sent = alice.client.send(to, "see you at nine 🦆").await.unwrap();
    assert_eq!(alice.client.sent_state(sent).await.unwrap(), SentState::Waiting);
    let running = alice.spawn();
    alice.sent().await;
    assert_eq!(alice.client.sent_state(sent).await.unwrap(), SentState::Accepted);
    running.stop().await;

    let _running = bob.spawn();
    let message = bob.next().await;
    assert_eq!(
        (message.from, message.text.as_str()),
        (alice.client.account(), "see you at nine 🦆")
    );
    assert_eq!(bob.client.contacts().await.unwrap()[0].name(), Some("alice"));
    bob.client.acknowledge(message.id).await.unwrap();
    assert!(bob.client.inbox().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_messages_in_both_directions_arrive_once_and_in_order() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let _running = [alice.spawn(), bob.spawn()];
    for n in 0..200 {
        alice.send(&bob, &format!("a{n}")).await;
        bob.send(&alice, &format!("b{n}")).await;
    }
    assert_eq!(collect(&bob, 200).await, (0..200).map(|n| format!("a{n}")).collect::<Vec<_>>());
    assert_eq!(collect(&alice, 200).await, (0..200).map(|n| format!("b{n}")).collect::<Vec<_>>());
    // Once each has heard from the other, the server does not learn who sends.
    let statistics = alice.client.statistics().await.unwrap();
    assert_eq!(statistics.sent_anonymously + statistics.sent_with_token, 200);
    assert!(statistics.sent_anonymously > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_for_a_while_costs_no_message() {
    let mut relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let _running = [alice.spawn(), bob.spawn()];
    for n in 0..120 {
        alice.send(&bob, &n.to_string()).await;
        if n == 40 {
            relay.stop().await;
        }
        if n == 80 {
            relay.start_again().await;
        }
    }
    assert_eq!(collect(&bob, 120).await, numbers(0..120));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_closed_and_opened_in_the_middle_lose_nothing() {
    let relay = Relay::start().await;
    let [mut alice, mut bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let mut got = Vec::new();
    for round in 0..4 {
        let running = [alice.spawn(), bob.spawn()];
        for n in 0..25 {
            alice.send(&bob, &(round * 25 + n).to_string()).await;
        }
        // Some arrive, some are left in the outbox, at the relay or unacknowledged in the inbox.
        got.extend(collect(&bob, 10).await);
        drop(running);
        alice = alice.reopen().await;
        bob = bob.reopen().await;
    }
    let _running = [alice.spawn(), bob.spawn()];
    got.extend(collect(&bob, 60).await);
    assert_eq!(got, numbers(0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unacknowledged_message_is_shown_again_after_a_restart() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    alice.send(&bob, "once more").await;
    let running = [alice.spawn(), bob.spawn()];
    let first = bob.next().await;
    drop(running);
    let bob = bob.reopen().await;
    assert_eq!(bob.next().await, first);
    bob.client.acknowledge(first.id).await.unwrap();
    let bob = bob.reopen().await;
    assert!(bob.client.inbox().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn first_messages_that_cross_each_other_both_arrive() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    for n in 0..5 {
        alice.send(&bob, &format!("a{n}")).await;
        bob.send(&alice, &format!("b{n}")).await;
    }
    let _running = [alice.spawn(), bob.spawn()];
    assert_eq!(collect(&alice, 5).await, ["b0", "b1", "b2", "b3", "b4"]);
    assert_eq!(collect(&bob, 5).await, ["a0", "a1", "a2", "a3", "a4"]);
    alice.send(&bob, "and on").await;
    assert_eq!(collect(&bob, 1).await, ["and on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_recipients_are_served_beside_each_other() {
    let relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    let mut others = Vec::new();
    for n in 0..12 {
        others.push(Person::register(&relay, &format!("peer{n}")).await);
    }
    for n in 0..3 {
        for other in &others {
            alice.send(other, &n.to_string()).await;
        }
    }
    let _running = alice.spawn();
    alice.sent().await;
    for other in &others {
        let _running = other.spawn();
        assert_eq!(collect(other, 3).await, ["0", "1", "2"]);
    }
}

/// A profile as a lost device would leave it to the next: the identity key and nothing else.
async fn reinstalled(person: &TempDir, relay: &Relay, name: &str) -> Person {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(person.path().join("profile.db"), folder.path().join("profile.db")).unwrap();
    let sql = "UPDATE profile SET account = NULL, device = NULL, token = NULL, registration_id = 1 + registration_id % 16380;
         DELETE FROM outbox; DELETE FROM device; DELETE FROM peer; DELETE FROM one_time_prekey; DELETE FROM kem_prekey WHERE use = 0;";
    stage::database(folder.path()).execute_batch(sql).unwrap();
    Person::register_in(folder, relay, name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_who_registers_anew_with_the_same_identity_gets_what_comes_after() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let account = bob.client.account();
    let _alice = alice.spawn();
    let running = bob.spawn();
    alice.send(&bob, "to the first device").await;
    assert_eq!(collect(&bob, 1).await, ["to the first device"]);
    running.stop().await;
    let Person { folder, .. } = bob.reopen().await;

    let bob = reinstalled(&folder, &relay, "bob").await;
    assert_eq!(bob.client.account(), account);
    for n in 0..3 {
        alice.send(&bob, &n.to_string()).await;
    }
    let _running = bob.spawn();
    // The numbers begin at 1 again: nothing is missing before the first.
    assert_eq!(collect(&bob, 3).await, numbers(0..3));
    bob.send(&alice, "hello again").await;
    assert_eq!(collect(&alice, 1).await, ["hello again"]);
    alice.send(&bob, "and on").await;
    assert_eq!(collect(&bob, 1).await, ["and on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_who_registers_anew_and_writes_first_is_answered() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let _alice = alice.spawn();
    let running = bob.spawn();
    for n in 0..3 {
        bob.send(&alice, &n.to_string()).await;
        alice.send(&bob, &n.to_string()).await;
    }
    assert_eq!(collect(&alice, 3).await, numbers(0..3));
    assert_eq!(collect(&bob, 3).await, numbers(0..3));
    running.stop().await;
    let Person { folder, .. } = bob.reopen().await;
    let bob = reinstalled(&folder, &relay, "bob").await;
    let _bob = bob.spawn();
    bob.send(&alice, "new device").await;
    assert_eq!(collect(&alice, 1).await, ["new device"]);
    alice.send(&bob, "welcome").await;
    assert_eq!(collect(&bob, 1).await, ["welcome"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_was_registered_anew_elsewhere_stops_and_says_so() {
    let relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await.reopen().await;
    let _second = reinstalled(&alice.folder, &relay, "alice").await;
    assert!(matches!(alice.spawn().ended().await, Err(RunError::TokenRefused)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_an_account_that_is_not_there_is_refused_and_said_so() {
    let relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    let mut events = alice.client.events();
    let sent = alice.client.send(ServiceId::aci([9; 16]), "anybody?").await.unwrap();
    let _running = alice.spawn();
    let refused =
        |event| if let Event::Refused { message, .. } = event { Some(message) } else { None };
    assert_eq!(stage::event(&mut events, refused).await, sent);
    assert_eq!(alice.client.sent_state(sent).await.unwrap(), SentState::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_message_arrives_whole() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let text = "🦆".repeat(80 * 1024 / 4);
    alice.send(&bob, &text).await;
    let refused = alice.client.send(bob.client.account(), &(text.clone() + "!")).await;
    assert!(matches!(refused, Err(SendError::TooLong { found: 81921, limit: 81920 })));
    let _running = [alice.spawn(), bob.spawn()];
    assert!(bob.next().await.text == text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_hears_that_a_message_arrived_and_that_it_was_read() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let mut events = alice.client.events();
    let _running = [alice.spawn(), bob.spawn()];
    let sent = alice.send(&bob, "have you seen this?").await;
    let receipt = |kind| {
        move |event| match event {
            Event::Receipt { kind: told, messages, .. } if told == kind => Some(messages),
            _ => None,
        }
    };
    let message = bob.next().await;
    assert_eq!(stage::event(&mut events, receipt(ReceiptKind::Delivered)).await, [sent]);
    assert_eq!(alice.client.sent_state(sent).await.unwrap(), SentState::Delivered);
    bob.client.mark_read(&[message.id]).await.unwrap();
    assert_eq!(stage::event(&mut events, receipt(ReceiptKind::Read)).await, [sent]);
    assert_eq!(alice.client.sent_state(sent).await.unwrap(), SentState::Read);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_no_receipts_sends_none() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let mut settings = Settings::default();
    settings.receipts = Receipts::Off;
    let bob = bob.reopen_with(settings).await;
    let mut events = alice.client.events();
    let _running = [alice.spawn(), bob.spawn()];
    let sent = alice.send(&bob, "quiet").await;
    let message = bob.next().await;
    bob.client.mark_read(&[message.id]).await.unwrap();
    bob.send(&alice, "yes").await;
    let told = |event| match event {
        Event::Receipt { .. } => Some("a receipt"),
        Event::Message(_) => Some("the answer"),
        _ => None,
    };
    assert_eq!(stage::event(&mut events, told).await, "the answer");
    assert_eq!(alice.client.sent_state(sent).await.unwrap(), SentState::Accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_writing_is_told_at_once_or_never() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let (running, bobs) = (alice.spawn(), bob.spawn());
    let (a, b) = (alice.client.account(), bob.client.account());
    let started = Typing::Started { group: None };
    // To a stranger nothing is said.
    alice.client.typing(b, started).await.unwrap();
    let group = alice.client.create_group("two", &[b]).await.unwrap();
    alice.send(&bob, "one").await;
    collect(&bob, 1).await;
    bob.send(&alice, "two").await;
    collect(&alice, 1).await;
    alice.sent().await;
    bobs.stop().await;

    // Bob is away: it is handed to nobody, and the relay keeps nothing of it.
    let before = relay.rows("submission");
    alice.client.typing(b, started).await.unwrap();
    alice.sent().await;
    assert_eq!(relay.rows("submission"), before);
    let bob = bob.reopen().await;
    let mut events = bob.client.events();
    let _bobs = bob.spawn();
    let early = event(&mut events, |event| match event {
        Event::Typing { .. } => Some(true),
        Event::QueueEmpty => Some(false),
        _ => None,
    });
    assert!(!early.await);
    let now_typing = |event| match event {
        Event::Typing { account, typing } => Some((account, typing)),
        _ => None,
    };
    for typing in [started, Typing::Stopped { group: None }] {
        alice.client.typing(b, typing).await.unwrap();
        assert_eq!(event(&mut events, now_typing).await, (a, typing));
        alice.sent().await;
    }
    // In a group that both are in, and in none.
    let nowhere = Typing::Started { group: Some([9; 16]) };
    alice.client.typing_in_group(nowhere).await.unwrap();
    alice.client.typing(b, nowhere).await.unwrap();
    alice.sent().await;
    let both = Typing::Started { group: Some(group.0) };
    alice.client.typing_in_group(both).await.unwrap();
    let heard = [event(&mut events, now_typing).await, event(&mut events, now_typing).await];
    // Of a group that Bob has not heard of yet, nobody knows who may write.
    assert_eq!(heard, [(a, nowhere), (a, both)]);

    // Without a stream nothing is put by for later.
    running.stop().await;
    let alice = alice.reopen().await;
    alice.client.typing(b, started).await.unwrap();
    let waiting = "SELECT count(*) FROM outbox WHERE state < 2";
    let count: u32 =
        database(alice.folder.path()).query_row(waiting, (), |row| row.get(0)).unwrap();
    assert_eq!(count, 0);
}

/// As a time limit around `run` does it, or a `select!`.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_dropped_in_the_middle_holds_nothing_up() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let running = [alice.spawn(), bob.spawn()];
    alice.send(&bob, "before").await;
    assert_eq!(collect(&bob, 1).await, ["before"]);
    alice.sent().await;
    for running in running {
        running.dropped().await;
    }
    alice.send(&bob, "in between").await;
    let _running = [alice.spawn(), bob.spawn()];
    alice.send(&bob, "after").await;
    assert_eq!(collect(&bob, 2).await, ["in between", "after"]);
    alice.sent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_made_with_prekeys_that_were_replaced_meanwhile_arrives() {
    // The second time they were the published ones for longer than replaced ones are kept.
    for age in [8, 31] {
        made_with_prekeys_that_were_replaced_at(age).await;
    }
}

async fn made_with_prekeys_that_were_replaced_at(days: u64) {
    let mut relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    // No one-time prekeys: it is the last-resort one that is used.
    relay.stop().await;
    let none = "DELETE FROM prekey_once; UPDATE prekey_state SET remaining = 0;";
    stage::relay_database(&relay).execute_batch(none).unwrap();
    relay.start_again().await;
    let running = alice.spawn();
    alice.send(&bob, "to the old ones").await;
    alice.sent().await;
    // From here on nobody can be asked to send it again.
    running.stop().await;

    // The message stays on its way until the keys are replaced.
    let aside = "UPDATE envelope SET mailbox = -mailbox";
    relay.stop().await;
    assert_eq!(stage::relay_database(&relay).execute(aside, ()).unwrap(), 1);
    relay.start_again().await;
    let before = stage::long_lived_ids(&relay, 2);
    let bob = bob.tampered(&stage::older_prekeys(days)).await;
    let running = bob.spawn();
    stage::until(|| stage::long_lived_ids(&relay, 2) != before).await;
    let after = stage::long_lived_ids(&relay, 2);
    assert!(after.0 > before.0 && after.1 > before.1);
    running.stop().await;
    relay.stop().await;
    assert_eq!(stage::relay_database(&relay).execute(aside, ()).unwrap(), 1);
    relay.start_again().await;

    let running = bob.spawn();
    assert_eq!(collect(&bob, 1).await, ["to the old ones"]);
    let carol = Person::register(&relay, "carol").await;
    let _carol = carol.spawn();
    carol.send(&bob, "to the new ones").await;
    assert_eq!(collect(&bob, 1).await, ["to the new ones"]);
    running.stop().await;

    let kept = |bob: &Person| -> (u32, u32) {
        let sql = "SELECT (SELECT count(*) FROM signed_prekey), (SELECT count(*) FROM kem_prekey WHERE use = 1)";
        let count = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        stage::database(bob.folder.path()).query_row(sql, (), count).unwrap()
    };
    assert_eq!(kept(&bob), (2, 2));
    // A month later: the second ones are replaced in their turn, the first ones deleted.
    let bob = bob.tampered(&stage::older_prekeys(31)).await;
    let _running = bob.spawn();
    stage::until(|| kept(&bob) == (2, 2) && stage::long_lived_ids(&relay, 2) != after).await;
}
