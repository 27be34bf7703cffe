//! Groups of real clients over a real relay.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod stage;

use stage::{Person, Relay, Running, collect, database, event};
use std::time::Duration;
use tuckseal::{GroupDecryptError, SenderKeyMessage, SenderKeyRecord, ServiceId};
use tuckseal_client::{Event, Failure, Group, GroupError, GroupId, SendError, Settings};

async fn people<const N: usize>(relay: &Relay, names: [&str; N]) -> [Person; N] {
    let mut people = Vec::new();
    for name in names {
        people.push(Person::register(relay, name).await);
    }
    people.try_into().ok().unwrap()
}

fn accounts(people: &[&Person]) -> Vec<ServiceId> {
    people.iter().map(|person| person.client.account()).collect()
}

async fn group_of(person: &Person, id: GroupId) -> Option<Group> {
    person.client.groups().await.unwrap().into_iter().find(|group| group.id == id)
}

/// Waits until a person sees so many members.
async fn sees(person: &Person, id: GroupId, members: usize) {
    let mut events = person.client.events();
    let seen = async {
        while group_of(person, id).await.is_none_or(|group| group.members.len() != members) {
            let _ = tokio::time::timeout(Duration::from_millis(100), events.recv()).await;
        }
    };
    tokio::time::timeout(stage::TIME, seen).await.expect("the change did not come");
}

async fn says(person: &Person, id: GroupId, text: &str, to: &[&Person]) {
    person.client.send_to_group(id, text).await.unwrap();
    for other in to {
        let message = other.next().await;
        assert_eq!((message.text.as_str(), message.group), (text, Some(id)));
        assert_eq!(message.from, person.client.account());
        other.client.acknowledge(message.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_five_loses_one_who_reads_nothing_more_and_gains_one_who_does() {
    let relay = Relay::start().await;
    let [alice, bob, carol, dave, eve, frank] =
        people(&relay, ["alice", "bob", "carol", "dave", "eve", "frank"]).await;
    let running: Vec<Running> =
        [&alice, &bob, &carol, &dave, &eve, &frank].map(Person::spawn).into_iter().collect();
    let others = accounts(&[&bob, &carol, &dave, &eve]);
    let id = alice.client.create_group("five", &others).await.unwrap();
    for person in [&bob, &carol, &dave, &eve] {
        sees(person, id, 5).await;
    }
    assert_eq!(group_of(&eve, id).await.unwrap().name, "five");
    says(&alice, id, "hello all", &[&bob, &carol, &dave, &eve]).await;
    says(&bob, id, "hello alice", &[&alice, &carol, &dave, &eve]).await;
    says(&eve, id, "I am here", &[&alice, &bob, &carol, &dave]).await;
    // One upload a message, whatever the size of the group.
    let sent = alice.client.statistics().await.unwrap();
    assert_eq!(sent.sent_anonymously + sent.sent_with_token, 1);

    alice.client.remove_from_group(id, &accounts(&[&eve])).await.unwrap();
    for person in [&bob, &carol, &dave, &eve] {
        sees(person, id, 4).await;
    }
    says(&alice, id, "without eve", &[&bob, &carol, &dave]).await;
    says(&carol, id, "indeed", &[&alice, &bob, &dave]).await;
    // One after the other: what two people write at once comes in any order.
    for (person, text) in [(&alice, "sorry"), (&carol, "me too")] {
        person.send(&eve, text).await;
        assert_eq!(collect(&eve, 1).await, [text]);
    }
    assert_eq!(eve.client.inbox().await.unwrap(), [], "nothing of the group came in between");
    let refused = eve.client.send_to_group(id, "still here").await;
    assert!(matches!(refused, Err(SendError::NotAMember)));

    alice.client.add_to_group(id, &accounts(&[&frank])).await.unwrap();
    for person in [&bob, &carol, &dave, &frank] {
        sees(person, id, 5).await;
    }
    says(&alice, id, "welcome", &[&bob, &carol, &dave, &frank]).await;
    says(&dave, id, "welcome, frank", &[&alice, &bob, &carol, &frank]).await;
    says(&frank, id, "thank you", &[&alice, &bob, &carol, &dave]).await;
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_32_who_was_removed_cannot_read_even_the_bytes_themselves() {
    let relay = Relay::start().await;
    let [alice, bob, eve] = people(&relay, ["alice", "bob", "eve"]).await;
    let running = [alice.spawn(), bob.spawn(), eve.spawn()];
    let id = alice.client.create_group("three", &accounts(&[&bob, &eve])).await.unwrap();
    says(&alice, id, "before", &[&bob, &eve]).await;
    alice.client.remove_from_group(id, &accounts(&[&eve])).await.unwrap();
    sees(&eve, id, 2).await;
    for running in running {
        running.stop().await;
    }
    // Encrypted, and not on its way.
    alice.client.send_to_group(id, "after").await.unwrap();
    let sql = "SELECT body FROM ciphertext WHERE device = 0 AND body IS NOT NULL";
    let body: Vec<u8> = database(alice.folder.path()).query_row(sql, (), |row| row.get(0)).unwrap();
    let message = SenderKeyMessage::decode(&body).unwrap();
    let read = |person: &Person| {
        let sql = "SELECT record FROM sender_key WHERE account = ?1";
        let account = alice.client.account();
        let record: Vec<u8> = database(person.folder.path())
            .query_row(sql, (account.uuid(),), |row| row.get(0))
            .unwrap();
        SenderKeyRecord::decode(&record).unwrap().decrypt(&message)
    };
    let chain_id = message.chain_id();
    assert_eq!(read(&eve), Err(GroupDecryptError::UnknownChain { chain_id }));
    assert!(read(&bob).is_ok(), "who stays has the new key already");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_in_a_group_is_not_heard_in_it_and_cannot_change_it() {
    let relay = Relay::start().await;
    let [alice, bob, eve] = people(&relay, ["alice", "bob", "eve"]).await;
    let running = [alice.spawn(), bob.spawn(), eve.spawn()];
    let id = alice.client.create_group("three", &accounts(&[&bob, &eve])).await.unwrap();
    says(&alice, id, "before", &[&bob, &eve]).await;
    says(&eve, id, "also before", &[&alice, &bob]).await;
    alice.client.remove_from_group(id, &accounts(&[&eve])).await.unwrap();
    sees(&bob, id, 2).await;
    sees(&eve, id, 2).await;
    for running in running {
        running.stop().await;
    }
    // A client that does as if it were in it.
    let hex: String =
        eve.client.account().uuid().iter().map(|byte| format!("{byte:02x}")).collect();
    let eve = eve
        .tampered(&format!(
            "UPDATE chat_group SET standing = 0; INSERT INTO group_member (id, account) SELECT id, x'{hex}' FROM chat_group"
        ))
        .await;
    let mut events = bob.client.events();
    let _running = [alice.spawn(), bob.spawn(), eve.spawn()];
    eve.client.send_to_group(id, "hear me").await.unwrap();
    eve.client.rename_group(id, "mine").await.unwrap();
    let refused = |event| match event {
        Event::Failure { account, reason: Failure::NotAMember, .. } => account,
        _ => None,
    };
    assert_eq!(event(&mut events, refused).await, eve.client.account());
    // By now she writes at a revision that nobody else has heard of.
    eve.client.send_to_group(id, "hear me now").await.unwrap();
    eve.sent().await;
    eve.send(&bob, "to you alone").await;
    assert_eq!(collect(&bob, 1).await, ["to you alone"]);
    says(&alice, id, "among us", &[&bob]).await;
    assert_eq!(group_of(&bob, id).await.unwrap().name, "three");
    let not_in_it = bob.client.rename_group(GroupId([1; 16]), "none").await;
    assert!(matches!(not_in_it, Err(GroupError::NotAMember)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_put_into_a_group_knows_its_members_and_has_answered_once_they_write() {
    let relay = Relay::start().await;
    let [alice, bob, carol] = people(&relay, ["alice", "bob", "carol"]).await;
    let _running = [alice.spawn(), bob.spawn(), carol.spawn()];
    let unanswered = || -> i64 {
        let sql = "SELECT count(*) FROM chat_group WHERE inviter IS NOT NULL";
        database(bob.folder.path()).query_row(sql, (), |row| row.get(0)).unwrap()
    };
    let known = async || {
        let contacts = bob.client.contacts().await.unwrap();
        contacts.iter().map(|it| it.account).collect::<Vec<_>>()
    };
    for done in ["write", "rename", "leave"] {
        let id = alice.client.create_group(done, &accounts(&[&bob, &carol])).await.unwrap();
        sees(&bob, id, 3).await;
        assert_eq!(unanswered(), 1);
        match done {
            "write" => {
                assert_eq!(known().await, accounts(&[&alice]));
                says(&bob, id, "hello", &[&alice, &carol]).await;
                assert!(known().await.contains(&carol.client.account()));
            }
            "rename" => bob.client.rename_group(id, "renamed").await.unwrap(),
            _ => bob.client.leave_group(id).await.unwrap(),
        }
        assert_eq!(unanswered(), 0, "{done}");
    }
}

/// Puts what waits for the device that registered so many-th aside at the relay, or back.
async fn aside(relay: &mut Relay, device: u32) {
    relay.stop().await;
    let sql = "UPDATE envelope SET mailbox = -mailbox WHERE abs(mailbox) = ?1";
    assert!(stage::relay_database(relay).execute(sql, (device,)).unwrap() > 0);
    relay.start_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_overtakes_the_news_that_its_writer_was_added_waits_for_it() {
    let mut relay = Relay::start().await;
    let [alice, bob, carol, dave] = people(&relay, ["alice", "bob", "carol", "dave"]).await;
    let running = [alice.spawn(), carol.spawn()];
    let id = alice.client.create_group("two", &accounts(&[&carol])).await.unwrap();
    says(&alice, id, "before", &[&carol]).await;
    says(&carol, id, "hello", &[&alice]).await;
    let [alices, carols] = running;
    alice.sent().await;
    carol.sent().await;
    carols.stop().await;
    alice.client.add_to_group(id, &accounts(&[&bob])).await.unwrap();
    alice.sent().await;
    alices.stop().await;
    aside(&mut relay, 3).await;

    // He writes, changes it, and somebody whom he has added leaves again.
    let bobs = bob.spawn();
    sees(&bob, id, 3).await;
    bob.client.send_to_group(id, "first").await.unwrap();
    bob.client.add_to_group(id, &accounts(&[&dave])).await.unwrap();
    let daves = dave.spawn();
    sees(&dave, id, 4).await;
    dave.client.leave_group(id).await.unwrap();
    dave.sent().await;
    sees(&bob, id, 3).await;
    bob.client.rename_group(id, "three").await.unwrap();
    bob.client.send_to_group(id, "second").await.unwrap();
    bob.sent().await;
    bobs.stop().await;
    daves.stop().await;

    let mut events = carol.client.events();
    let carols = carol.spawn();
    event(&mut events, |event| matches!(event, Event::QueueEmpty).then_some(())).await;
    assert_eq!(carol.client.inbox().await.unwrap(), []);
    carols.stop().await;
    let carol = carol.reopen().await;
    aside(&mut relay, 3).await;
    let _carols = carol.spawn();
    assert_eq!(collect(&carol, 2).await, ["first", "second"]);
    let group = group_of(&carol, id).await.unwrap();
    assert_eq!((group.name.as_str(), group.members.len()), ("three", 3));
    let counted = "SELECT count(*) FROM failure";
    let counted: i64 =
        database(carol.folder.path()).query_row(counted, (), |row| row.get(0)).unwrap();
    assert_eq!(counted, 0);
    let _bobs = bob.spawn();
    says(&bob, id, "third", &[&carol]).await;
    says(&carol, id, "welcome", &[&bob]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_07_a_lost_sender_key_is_asked_for_and_the_message_comes_again() {
    let relay = Relay::start().await;
    let [alice, bob, carol] = people(&relay, ["alice", "bob", "carol"]).await;
    let (running, bobs) = ([alice.spawn(), carol.spawn()], bob.spawn());
    let id = alice.client.create_group("three", &accounts(&[&bob, &carol])).await.unwrap();
    says(&alice, id, "one", &[&bob, &carol]).await;
    bobs.stop().await;
    let bob = bob.tampered("DELETE FROM sender_key").await;
    let _bobs = bob.spawn();
    says(&alice, id, "two", &[&bob, &carol]).await;
    says(&alice, id, "three", &[&bob, &carol]).await;
    drop(running);
}

/// Whatever was asked of a device before: a request for group messages does not wait for the time in which
/// sessions are asked for and begun anew, an hour here.
#[tokio::test(flavor = "multi_thread")]
async fn row_07_messages_of_a_lost_sender_key_come_again_one_after_the_other() {
    let relay = Relay::start().await;
    let [alice, bob] = people(&relay, ["alice", "bob"]).await;
    let mut settings = Settings::default();
    settings.retry_interval = Duration::from_secs(60 * 60);
    let (alice, bob) = (alice.reopen_with(settings).await, bob.reopen_with(settings).await);
    let (_running, bobs) = (alice.spawn(), bob.spawn());
    let id = alice.client.create_group("two", &accounts(&[&bob])).await.unwrap();
    says(&alice, id, "before", &[&bob]).await;
    // Once he was heard, nothing needs to be told a second time.
    says(&bob, id, "hello", &[&alice]).await;
    says(&alice, id, "hello bob", &[&bob]).await;
    bobs.stop().await;
    let bob = bob.tampered("DELETE FROM sender_key").await.reopen_with(settings).await;
    // Three wait for him, and the key is lost again after each of those that follow.
    for text in ["one", "two", "three"] {
        alice.client.send_to_group(id, text).await.unwrap();
    }
    alice.sent().await;
    let mut events = bob.client.events();
    let mut bobs = bob.spawn();
    let mut texts = collect(&bob, 3).await;
    texts.sort();
    assert_eq!(texts, ["one", "three", "two"]);
    event(&mut events, |event| matches!(event, Event::AskedAgain { .. }).then_some(())).await;
    let mut bob = bob;
    for text in ["four", "five"] {
        bobs.stop().await;
        bob = bob.tampered("DELETE FROM sender_key").await.reopen_with(settings).await;
        bobs = bob.spawn();
        says(&alice, id, text, &[&bob]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_out_and_a_restart_of_everybody_changes_nothing() {
    let relay = Relay::start().await;
    let [alice, bob, carol] = people(&relay, ["alice", "bob", "carol"]).await;
    let running = [alice.spawn(), bob.spawn(), carol.spawn()];
    let id = alice.client.create_group("three", &accounts(&[&bob, &carol])).await.unwrap();
    sees(&bob, id, 3).await;
    says(&bob, id, "one", &[&alice, &carol]).await;
    carol.client.leave_group(id).await.unwrap();
    sees(&alice, id, 2).await;
    sees(&bob, id, 2).await;
    for running in running {
        running.stop().await;
    }
    let (alice, bob, carol) = (alice.reopen().await, bob.reopen().await, carol.reopen().await);
    let _running = [alice.spawn(), bob.spawn(), carol.spawn()];
    says(&bob, id, "two", &[&alice]).await;
    says(&alice, id, "three", &[&bob]).await;
    alice.client.rename_group(id, "two of us").await.unwrap();
    says(&alice, id, "four", &[&bob]).await;
    assert_eq!(group_of(&bob, id).await.unwrap().name, "two of us");
    assert!(!group_of(&carol, id).await.unwrap().is_member);
    assert_eq!(carol.client.inbox().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_07_a_restored_backup_uses_no_iteration_of_a_sender_key_twice() {
    let relay = Relay::start().await;
    let [alice, bob] = people(&relay, ["alice", "bob"]).await;
    let (running, _bobs) = (alice.spawn(), bob.spawn());
    let id = alice.client.create_group("two", &accounts(&[&bob])).await.unwrap();
    says(&alice, id, "one", &[&bob]).await;
    running.stop().await;
    let alice = alice.reopen().await;
    let backup = std::fs::read(alice.folder.path().join("profile.db")).unwrap();
    let running = alice.spawn();
    says(&alice, id, "two", &[&bob]).await;
    running.stop().await;
    let Person { client, folder, .. } = alice;
    drop(client);
    Person::close(&folder).await;
    std::fs::write(folder.path().join("profile.db"), backup).unwrap();
    let alice = Person::open(folder).await;
    let _running = alice.spawn();
    says(&alice, id, "another two", &[&bob]).await;
    let sql = "SELECT record FROM sender_key";
    let record: Vec<u8> = database(bob.folder.path()).query_row(sql, (), |row| row.get(0)).unwrap();
    let chains = SenderKeyRecord::decode(&record).unwrap().chain_ids().count();
    assert_eq!(chains, 2, "a chain of its own after the backup");
}
