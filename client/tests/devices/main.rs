//! An account with several devices, on real clients and a real server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod random;
#[path = "../stage/mod.rs"]
mod stage;

use stage::{Person, Relay, collect, database, event, registration};
use std::path::Path;
use tuckseal::{DeviceId, SessionRecord};
use tuckseal_client::{
    Client, DeviceError, Event, LinkError, LinkRequest, OfferedLink, RunError, SendError,
};

fn id(number: u8) -> DeviceId {
    DeviceId::new(number).unwrap()
}

/// A further device of a person, linked as people do it.
async fn link(person: &Person, name: &str) -> Person {
    let (request, folder) = (LinkRequest::new(), tempfile::tempdir().unwrap());
    let offer = person.client.offer_link(&request.code()).await.unwrap();
    let (linked, made) = tokio::join!(
        person.client.linked(&offer),
        Client::link(folder.path(), &request, &offer.code, name, None)
    );
    let _ = linked.unwrap();
    Person::of(made.unwrap(), folder)
}

async fn refused(folder: &Path, request: &LinkRequest, offer: &str) -> LinkError {
    Client::link(folder, request, offer, "", None).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn row_30_what_one_device_sends_and_gets_the_other_has_too() {
    let relay = Relay::start().await;
    let [phone, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let to_bob = phone.client.lookup("bob").await.unwrap();
    let running = [phone.spawn(), bob.spawn()];
    phone.send(&bob, "before").await;
    assert_eq!(collect(&bob, 1).await, ["before"]);

    let laptop = link(&phone, "laptop").await;
    assert_eq!(laptop.client.account(), phone.client.account());
    assert_eq!(laptop.client.identity_key(), phone.client.identity_key());
    let _laptop_runs = laptop.spawn();

    // To both.
    bob.send(&phone, "hello you two").await;
    for device in [&phone, &laptop] {
        let message = device.next().await;
        assert_eq!((message.from, message.sent_to), (bob.client.account(), None));
        assert_eq!((message.text.as_str(), message.missing_before), ("hello you two", 0));
    }
    // From either, for the record of the other.
    for (writer, reader, text) in
        [(&phone, &laptop, "from the phone"), (&laptop, &phone, "from the laptop")]
    {
        writer.send(&bob, text).await;
        assert_eq!(collect(&bob, 1).await, [text]);
        let record = reader.next().await;
        assert_eq!((record.from, record.sent_to), (phone.client.account(), Some(to_bob)));
        assert_eq!((record.text.as_str(), record.missing_before), (text, 0));
    }
    // The laptop knows whom the phone knows, by name.
    let contacts = laptop.client.contacts().await.unwrap();
    assert_eq!(contacts.len(), 1, "{contacts:?}");
    assert_eq!(contacts[0].username.as_deref(), Some("bob"));
    assert_eq!(contacts[0].identity, Some(bob.client.identity_key()));
    assert!(matches!(
        laptop.client.send(phone.client.account(), "me").await,
        Err(SendError::ToOurselves)
    ));

    // Everything that was said arrived once: after a reconnection nothing comes again.
    drop(running);
    let (phone, bob) = (phone.reopen().await, bob.reopen().await);
    let _running = [phone.spawn(), bob.spawn()];
    bob.send(&phone, "last").await;
    let texts = |messages: Vec<tuckseal_client::Message>| -> Vec<String> {
        messages.into_iter().map(|message| message.text).collect()
    };
    assert_eq!(laptop.next().await.text, "last");
    let all = ["hello you two", "from the phone", "last"];
    assert_eq!(texts(laptop.client.inbox().await.unwrap()), all);
    while phone.client.inbox().await.unwrap().len() < 3 {
        phone.next().await;
    }
    let all = ["hello you two", "from the laptop", "last"];
    assert_eq!(texts(phone.client.inbox().await.unwrap()), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_are_away_find_all_of_it_later_and_a_third_one_is_met() {
    let relay = Relay::start().await;
    let [phone, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    bob.client.lookup("alice").await.unwrap();
    let (laptop, tablet) = (link(&phone, "laptop").await, link(&phone, "tablet").await);

    // Each of them writes while no other is there.
    let to_bob = laptop.client.lookup("bob").await.unwrap();
    for (device, text) in [(&laptop, "one"), (&tablet, "two"), (&phone, "three")] {
        device.client.send(to_bob, text).await.unwrap();
        let running = device.spawn();
        device.sent().await;
        running.stop().await;
    }
    let _running = [phone.spawn(), laptop.spawn(), tablet.spawn(), bob.spawn()];
    let mut texts = collect(&bob, 3).await;
    texts.sort_unstable();
    assert_eq!(texts, ["one", "three", "two"]);
    // The laptop wrote before it had heard of the tablet.
    for (device, mut expected) in [
        (&laptop, vec!["three", "two"]),
        (&tablet, vec!["one", "three"]),
        (&phone, vec!["one", "two"]),
    ] {
        let mut got = collect(device, 2).await;
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got, expected);
    }
    bob.send(&phone, "to all").await;
    for device in [&phone, &laptop, &tablet] {
        assert_eq!(collect(device, 1).await, ["to all"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_reading_are_shared_by_the_devices_of_an_account() {
    let relay = Relay::start().await;
    let [phone, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let _running = [phone.spawn(), bob.spawn()];
    let to_bob = phone.client.lookup("bob").await.unwrap();
    let old = phone.client.create_group("old", &[to_bob]).await.unwrap();
    let laptop = link(&phone, "laptop").await;
    let mut events = laptop.client.events();
    let _laptop_runs = laptop.spawn();
    let changed = |event| match event {
        Event::GroupChanged { group } => Some(group),
        _ => None,
    };
    assert_eq!(event(&mut events, changed).await, old, "one that was there before");

    // Made by one, written to by the other.
    let new = phone.client.create_group("new", &[to_bob]).await.unwrap();
    assert_eq!(event(&mut events, changed).await, new);
    laptop.client.send_to_group(new, "from the laptop").await.unwrap();
    let (at_bob, at_phone) = (bob.next().await, phone.next().await);
    assert_eq!((at_bob.text.as_str(), at_bob.group), ("from the laptop", Some(new)));
    assert_eq!((at_phone.text.as_str(), at_phone.group), ("from the laptop", Some(new)));
    assert_eq!((at_phone.from, at_phone.sent_to), (phone.client.account(), None));
    bob.client.send_to_group(new, "from bob").await.unwrap();
    let (at_phone, at_laptop) = (phone.next().await, laptop.next().await);
    assert_eq!([at_phone.text.as_str(), at_laptop.text.as_str()], ["from bob"; 2]);

    // Read here, and known as read there.
    laptop.client.mark_read(&[at_laptop.id]).await.unwrap();
    let read = |event| match event {
        Event::ReadElsewhere { messages } => Some(messages),
        _ => None,
    };
    let mut at = phone.client.events();
    let marked = match phone.client.inbox().await.unwrap().iter().find(|it| it.text == "from bob") {
        Some(message) => message.id,
        None => panic!("it is not in the inbox"),
    };
    assert_eq!(event(&mut at, read).await, [marked]);

    // Left by one, left by both.
    phone.client.leave_group(new).await.unwrap();
    assert_eq!(event(&mut events, changed).await, new);
    let groups = laptop.client.groups().await.unwrap();
    let standing = |id| groups.iter().find(|group| group.id == id).unwrap().is_member;
    assert!(standing(old) && !standing(new));
    assert!(matches!(laptop.client.send_to_group(new, "x").await, Err(SendError::NotAMember)));
}

fn undecryptable(person: &Person) -> i64 {
    let sql = "SELECT coalesce(sum(count), 0) FROM failure WHERE reason = 4";
    database(person.folder.path()).query_row(sql, (), |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_met_by_what_it_writes_reads_the_next_group_message_and_the_other_shows_it_once()
 {
    let relay = Relay::start().await;
    let [alice, phone] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let _running = [alice.spawn(), phone.spawn()];
    let to_bob = phone.client.account();
    let group = alice.client.create_group("two", &[to_bob]).await.unwrap();
    alice.sent().await;
    alice.client.send_to_group(group, "before").await.unwrap();
    assert_eq!(collect(&phone, 1).await, ["before"]);
    let laptop = link(&phone, "laptop").await;
    let _laptop_runs = laptop.spawn();
    laptop.send(&alice, "from the laptop").await;
    assert_eq!(collect(&alice, 1).await, ["from the laptop"]);
    assert_eq!(collect(&phone, 1).await, ["from the laptop"]);
    alice.sent().await;

    alice.client.send_to_group(group, "to both").await.unwrap();
    assert_eq!(collect(&laptop, 1).await, ["to both"]);
    alice.sent().await;
    alice.send(&phone, "the end").await;
    assert_eq!(collect(&laptop, 1).await, ["the end"]);
    assert_eq!(collect(&phone, 2).await, ["to both", "the end"]);
    assert_eq!(undecryptable(&laptop), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_message_that_one_device_asks_for_again_comes_to_that_one_alone() {
    let relay = Relay::start().await;
    let [alice, phone] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let laptop = link(&phone, "laptop").await;
    let _running = [alice.spawn(), phone.spawn()];
    let laptop_runs = laptop.spawn();
    let group = alice.client.create_group("two", &[phone.client.account()]).await.unwrap();
    alice.sent().await;
    alice.client.send_to_group(group, "before").await.unwrap();
    for device in [&phone, &laptop] {
        assert_eq!(collect(device, 1).await, ["before"]);
    }
    laptop_runs.stop().await;
    let laptop = laptop.tampered("DELETE FROM sender_key").await;
    let _laptop_runs = laptop.spawn();
    for text in ["one", "two"] {
        alice.client.send_to_group(group, text).await.unwrap();
        assert_eq!(collect(&laptop, 1).await, [text]);
    }
    alice.sent().await;
    alice.send(&phone, "the end").await;
    assert_eq!(collect(&laptop, 1).await, ["the end"]);
    assert_eq!(collect(&phone, 3).await, ["one", "two", "the end"]);
    assert_eq!(undecryptable(&laptop), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_30_what_was_said_before_comes_to_a_new_device_if_a_person_wants_it() {
    let relay = Relay::start().await;
    let [phone, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let _running = [phone.spawn(), bob.spawn()];
    bob.send(&phone, "before").await;
    assert_eq!(collect(&phone, 1).await, ["before"]);
    let (laptop, tablet) = (link(&phone, "laptop").await, link(&phone, "tablet").await);
    let _others = [laptop.spawn(), tablet.spawn()];

    let archive = phone.folder.path().join("archive");
    std::fs::write(&archive, "what the app has of before").unwrap();
    let file = phone.client.upload(&archive, "application/x-archive", |_, _| {}).await.unwrap();
    for wrong in [id(1), id(9)] {
        let refused = phone.client.send_history(wrong, file.clone()).await;
        assert!(matches!(refused, Err(DeviceError::NoSuchDevice { .. })), "{refused:?}");
    }
    phone.client.send_history(id(2), file).await.unwrap();
    let message = laptop.next().await;
    assert!(message.is_history && message.from == phone.client.account());
    assert_eq!((message.device_id, message.sent_to, message.text.as_str()), (id(1), None, ""));
    let to = laptop.folder.path().join("archive");
    laptop.client.download(&message.attachments[0], &to, |_, _| {}).await.unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), std::fs::read(&archive).unwrap());
    // The tablet was not meant, and nothing is missing there.
    phone.send(&bob, "after").await;
    for device in [&tablet, &laptop] {
        let message = device.next().await;
        assert!(!message.is_history);
        assert_eq!((message.text.as_str(), message.missing_before), ("after", 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_device_gets_nothing_more_and_the_others_go_on() {
    let relay = Relay::start().await;
    let [phone, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let laptop = link(&phone, "the old laptop").await;
    let _running = [phone.spawn(), bob.spawn()];
    let laptop_runs = laptop.spawn();
    phone.send(&bob, "hello").await;
    bob.send(&phone, "hello to both").await;
    assert_eq!(collect(&bob, 1).await, ["hello"]);
    assert_eq!(collect(&phone, 1).await, ["hello to both"]);
    let mut texts = collect(&laptop, 2).await;
    texts.sort_unstable();
    assert_eq!(texts, ["hello", "hello to both"]);

    let listed = phone.client.devices().await.unwrap();
    let name = |number: usize| listed[number].name.as_deref();
    assert_eq!((listed.len(), name(0), name(1)), (2, None, Some("the old laptop")));
    assert!(listed[0].is_this && !listed[1].is_this && listed[1].linked_day > 20_000);
    laptop.client.name_device(id(2), "laptop").await.unwrap();
    let listed = phone.client.devices().await.unwrap();
    assert_eq!(listed[1].name.as_deref(), Some("laptop"));
    let refused = laptop.client.remove_device(id(1)).await;
    assert!(matches!(refused, Err(DeviceError::NotAllowed)), "{refused:?}");

    phone.client.remove_device(id(2)).await.unwrap();
    let ended = laptop_runs.ended().await;
    assert!(matches!(ended, Err(RunError::TokenRefused)), "{ended:?}");
    let again = phone.client.remove_device(id(2)).await;
    assert!(matches!(again, Err(DeviceError::NoSuchDevice { .. })), "{again:?}");
    bob.send(&phone, "to one").await;
    phone.send(&bob, "from one").await;
    assert_eq!(collect(&phone, 1).await, ["to one"]);
    assert_eq!(collect(&bob, 1).await, ["from one"]);
    phone.sent().await;
    assert_eq!(phone.client.devices().await.unwrap().len(), 1);
    assert!(laptop.client.inbox().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_went_while_the_other_was_away_holds_nothing_up() {
    let relay = Relay::start().await;
    let [phone, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let laptop = link(&phone, "laptop").await;
    // The laptop removes itself, and the phone, which writes at once, has not heard of it.
    laptop.client.remove_device(id(2)).await.unwrap();
    phone.send(&bob, "hello").await;
    let mut events = phone.client.events();
    let _running = [phone.spawn(), bob.spawn()];
    let gone = |event| match event {
        Event::DeviceRemoved { device_id } => Some(device_id),
        _ => None,
    };
    assert_eq!(event(&mut events, gone).await, id(2));
    assert_eq!(collect(&bob, 1).await, ["hello"]);
    phone.sent().await;
    phone.send(&bob, "on").await;
    assert_eq!(collect(&bob, 1).await, ["on"]);
    phone.sent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn linking_that_goes_wrong_says_why_and_leaves_the_folder_free() {
    let relay = Relay::start_with(|config| config.limits.max_devices = 2).await;
    let phone = Person::register(&relay, "alice").await;
    let (request, folder) = (LinkRequest::new(), tempfile::tempdir().unwrap());
    let offer = async || -> OfferedLink { phone.client.offer_link(&request.code()).await.unwrap() };
    for wrong in ["", "tuckseal-link:", "tuckseal-link:AAAA", &offer().await.code] {
        let refused = phone.client.offer_link(wrong).await.unwrap_err();
        assert!(matches!(refused, LinkError::Code), "{wrong}: {refused}");
    }
    let first = offer().await;
    let cut = &first.code[..first.code.len() - 8];
    for (code, request) in [(cut, &request), (first.code.as_str(), &LinkRequest::new())] {
        let refused = refused(folder.path(), request, code).await;
        assert!(matches!(refused, LinkError::Sealed(_)), "{refused}");
    }
    let refused_code = refused(folder.path(), &request, &request.code()).await;
    assert!(matches!(refused_code, LinkError::Code), "{refused_code}");
    // Another offer makes the first one void.
    let second = offer().await;
    let void = refused(folder.path(), &request, &first.code).await;
    assert!(matches!(void, LinkError::Ended), "{void}");
    let own_folder = refused(phone.folder.path(), &request, &second.code).await;
    assert!(matches!(own_folder, LinkError::Profile(_)), "in use: {own_folder}");
    // What was not linked keeps no keys, and is whoever it wants to be.
    let kept = "SELECT (SELECT count(*) FROM profile) + (SELECT count(*) FROM signed_prekey)";
    let kept: i64 = database(folder.path()).query_row(kept, (), |row| row.get(0)).unwrap();
    assert_eq!(kept, 0);
    // In the same folder it succeeds all the same, and once.
    let laptop = Client::link(folder.path(), &request, &second.code, "", None).await.unwrap();
    let name = laptop.name().to_owned();
    assert_eq!((name.as_str(), phone.client.linked(&second).await.unwrap()), ("alice", id(2)));
    drop(laptop);
    Person::close(&folder).await;
    let twice = refused(folder.path(), &request, &second.code).await;
    assert!(matches!(twice, LinkError::AlreadyRegistered { .. }), "{twice}");
    let other = tempfile::tempdir().unwrap();
    let used = refused(other.path(), &request, &second.code).await;
    assert!(matches!(used, LinkError::Ended), "{used}");
    let full = refused(other.path(), &request, &offer().await.code).await;
    assert!(matches!(full, LinkError::TooManyDevices), "{full}");
    let ended = phone.client.linked(&first).await.unwrap_err();
    assert!(matches!(ended, LinkError::Ended), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_registers_after_a_link_that_broke_off_does_not_take_its_keys() {
    let relay = Relay::start().await;
    let phone = Person::register(&relay, "alice").await;
    let laptop = link(&phone, "laptop").await;
    let key = phone.client.identity_key();
    // As a process leaves it that dies before the server's answer.
    let Person { client, folder, .. } = laptop;
    drop(client);
    Person::close(&folder).await;
    let begun = "UPDATE profile SET account = NULL, device = NULL, token = NULL, server = ''";
    database(folder.path()).execute_batch(begun).unwrap();
    let bob = Client::register(folder.path(), registration(&relay.url, "bob")).await.unwrap();
    assert!(bob.identity_key() != key && bob.account() != phone.client.account());
}

/// The app has not waited for the device, or its process has ended.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_before_the_first_further_device_is_heard_of_comes_to_it() {
    let relay = Relay::start().await;
    let [phone, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let to_bob = phone.client.lookup("bob").await.unwrap();
    let (request, folder) = (LinkRequest::new(), tempfile::tempdir().unwrap());
    let offer = phone.client.offer_link(&request.code()).await.unwrap();
    let phone = phone.reopen().await;
    let laptop = Client::link(folder.path(), &request, &offer.code, "", None).await.unwrap();
    let laptop = Person::of(laptop, folder);
    phone.client.send(to_bob, "to bob").await.unwrap();
    let _running = [phone.spawn(), laptop.spawn(), bob.spawn()];
    assert_eq!(collect(&bob, 1).await, ["to bob"]);
    let record = laptop.next().await;
    assert_eq!((record.text.as_str(), record.sent_to), ("to bob", Some(to_bob)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_nobody_takes_holds_nothing_up() {
    let relay = Relay::start().await;
    let [phone, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let to_bob = phone.client.lookup("bob").await.unwrap();
    phone.client.offer_link(&LinkRequest::new().code()).await.unwrap();
    phone.client.send(to_bob, "while nobody is there").await.unwrap();
    assert_eq!(phone.client.outbox_len().await.unwrap(), 2, "and for the device that may come");
    let _running = [phone.spawn(), bob.spawn()];
    phone.sent().await;
    phone.client.send(to_bob, "while connected").await.unwrap();
    phone.sent().await;
    assert_eq!(collect(&bob, 2).await, ["while nobody is there", "while connected"]);
}

/// Another device has the number of one that was removed, and a sibling asks for what both of them were sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_one_device_again_does_not_come_twice_to_another_that_was_linked_since() {
    let relay = Relay::start().await;
    let [alice, phone] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let old = link(&phone, "old").await;
    let _alice_runs = alice.spawn();
    let (phone_runs, old_runs) = (phone.spawn(), old.spawn());
    for text in ["1", "2"] {
        alice.send(&phone, text).await;
        assert_eq!([collect(&phone, 1).await, collect(&old, 1).await], [[text], [text]]);
    }
    phone.sent().await;
    phone_runs.stop().await;
    for text in ["3", "4"] {
        alice.send(&phone, text).await;
        assert_eq!(collect(&old, 1).await, [text]);
    }
    phone.client.remove_device(id(2)).await.unwrap();
    assert!(old_runs.ended().await.is_err());
    let new = link(&phone, "new").await;
    let _new_runs = new.spawn();
    for text in ["5", "6"] {
        alice.send(&phone, text).await;
        assert_eq!(collect(&new, 1).await, [text]);
    }
    alice.sent().await;
    let empty = hex::encode(&SessionRecord::new().encode()[..]);
    let phone = phone.tampered(&format!("UPDATE device SET session = x'{empty}'")).await;
    let _phone_runs = phone.spawn();
    assert_eq!(collect(&phone, 4).await, ["3", "4", "5", "6"]);
    alice.send(&phone, "7").await;
    assert_eq!(collect(&phone, 1).await, ["7"]);
    let mut texts = Vec::new();
    while texts.last().is_none_or(|last| last != "7") {
        texts.extend(collect(&new, 1).await);
    }
    assert!(!texts.iter().any(|text| ["5", "6"].contains(&text.as_str())), "{texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_between_two_devices_of_an_account_that_breaks_heals() {
    let relay = Relay::start().await;
    let [phone, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let laptop = link(&phone, "laptop").await;
    let running = [phone.spawn(), bob.spawn(), laptop.spawn()];
    phone.send(&bob, "one").await;
    laptop.send(&bob, "two").await;
    assert_eq!(collect(&laptop, 1).await, ["one"]);
    assert_eq!(collect(&phone, 1).await, ["two"]);
    let [phone_runs, bob_runs, laptop_runs] = running;
    laptop_runs.stop().await;
    let empty = hex::encode(&SessionRecord::new().encode()[..]);
    let laptop = laptop.tampered(&format!("UPDATE device SET session = x'{empty}'")).await;
    phone.send(&bob, "three").await;
    phone.sent().await;
    let mut events = laptop.client.events();
    let _laptop_runs = laptop.spawn();
    let asked = |event| match event {
        Event::AskedAgain { account, device_id } => Some((account, device_id)),
        _ => None,
    };
    assert_eq!(event(&mut events, asked).await, (phone.client.account(), id(1)));
    assert_eq!(collect(&laptop, 1).await, ["three"]);
    laptop.send(&bob, "four").await;
    assert_eq!(collect(&phone, 1).await, ["four"]);
    let mut texts = collect(&bob, 4).await;
    texts.sort_unstable();
    assert_eq!(texts, ["four", "one", "three", "two"]);
    for running in [phone_runs, bob_runs] {
        running.stop().await;
    }
}
