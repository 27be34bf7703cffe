//! What went wrong between two real clients and a real relay, and that the conversation goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod stage;

use stage::{Person, Relay, collect, database, event, numbers};
use std::path::Path;
use std::time::Duration;
use tuckseal::{SessionRecord, unpad_envelope};
use tuckseal_client::{Event, Events, Failure};

async fn pair(relay: &Relay) -> [Person; 2] {
    [Person::register(relay, "alice").await, Person::register(relay, "bob").await]
}

/// Both have heard from each other, and the ratchet has moved.
async fn converse(alice: &Person, bob: &Person, rounds: u32) {
    for n in 0..rounds {
        alice.send(bob, &n.to_string()).await;
        assert_eq!(collect(bob, 1).await, [n.to_string()]);
        bob.send(alice, &n.to_string()).await;
        assert_eq!(collect(alice, 1).await, [n.to_string()]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As if the session had been overwritten, and nothing else.
async fn without_session(person: Person) -> Person {
    let empty = hex(&SessionRecord::new().encode());
    person.tampered(&format!("UPDATE device SET session = x'{empty}'")).await
}

/// All that has been told so far.
async fn heard(events: &mut Events) -> Vec<Event> {
    let mut heard = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.recv()).await {
        heard.push(event);
    }
    heard
}

fn count(events: &[Event], wanted: impl Fn(&Event) -> bool) -> usize {
    events.iter().filter(|event| wanted(event)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn row_25_a_lost_session_is_begun_anew_and_what_it_could_not_read_comes_again() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let (running, bobs) = (alice.spawn(), bob.spawn());
    converse(&alice, &bob, 2).await;
    bobs.stop().await;
    let bob = without_session(bob).await;
    for n in 0..20 {
        alice.send(&bob, &n.to_string()).await;
    }
    alice.sent().await;
    let (mut of_alice, mut of_bob) = (alice.client.events(), bob.client.events());
    let _running = [running, bob.spawn()];
    assert_eq!(collect(&bob, 20).await, numbers(0..20));
    converse(&alice, &bob, 2).await;

    let of_bob = heard(&mut of_bob).await;
    let is_failure =
        |event: &Event| matches!(event, Event::Failure { reason: Failure::Undecryptable, .. });
    assert!(count(&of_bob, is_failure) <= 5, "twenty failures are told as a few");
    assert!(count(&of_bob, is_failure) >= 1);
    assert_eq!(count(&of_bob, |event| matches!(event, Event::AskedAgain { .. })), 1);
    let of_alice = heard(&mut of_alice).await;
    assert_eq!(count(&of_alice, |event| matches!(event, Event::SessionReset { .. })), 1);
    let again = |event: &Event| matches!(event, Event::SentAgain { messages: 20, .. });
    assert_eq!(count(&of_alice, again), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_25_both_sides_lose_the_session_at_once() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let running = [alice.spawn(), bob.spawn()];
    converse(&alice, &bob, 2).await;
    // Each has a message in the old session on its way when the other loses it.
    for running in running {
        running.stop().await;
    }
    alice.send(&bob, "a").await;
    bob.send(&alice, "b").await;
    let (alice, bob) = (without_session(alice).await, without_session(bob).await);
    let _running = [alice.spawn(), bob.spawn()];
    assert_eq!(collect(&bob, 1).await, ["a"]);
    assert_eq!(collect(&alice, 1).await, ["b"]);
    converse(&alice, &bob, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_23_an_envelope_that_was_corrupted_at_the_relay_is_asked_for_again() {
    a_damaged_envelope_comes_again(|envelope| envelope.len() - 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_23_an_envelope_whose_padding_was_corrupted_at_the_relay_is_asked_for_again() {
    a_damaged_envelope_comes_again(|envelope| envelope.len() + 1).await;
}

async fn a_damaged_envelope_comes_again(place: impl Fn(&[u8]) -> usize) {
    let mut relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let (running, bobs) = (alice.spawn(), bob.spawn());
    converse(&alice, &bob, 2).await;
    bobs.stop().await;
    for n in 0..3 {
        alice.send(&bob, &n.to_string()).await;
    }
    alice.sent().await;
    running.stop().await;
    relay.stop().await;
    corrupt_second_envelope(&relay, place);
    relay.start_again().await;
    let mut of_bob = bob.client.events();
    let _running = [alice.spawn(), bob.spawn()];
    assert_eq!(collect(&bob, 3).await, numbers(0..3));
    converse(&alice, &bob, 2).await;
    let of_bob = heard(&mut of_bob).await;
    let sealed = |event: &Event| {
        matches!(event, Event::Failure { reason: Failure::Sealed, account: None, .. })
    };
    assert_eq!(count(&of_bob, sealed), 1);
    assert_eq!(count(&of_bob, |event| matches!(event, Event::AskedAgain { .. })), 1);
}

/// In a byte that is named by the envelope without its padding.
fn corrupt_second_envelope(relay: &Relay, place: impl Fn(&[u8]) -> usize) {
    let server = rusqlite::Connection::open(relay.folder.path().join("tuckseal.db")).unwrap();
    let sql = "SELECT rowid, body FROM envelope ORDER BY rowid LIMIT 1 OFFSET 1";
    let (id, mut body): (i64, Vec<u8>) =
        server.query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let place = place(unpad_envelope(&body).unwrap());
    body[place] ^= 1;
    assert_eq!(
        server.execute("UPDATE envelope SET body = ?2 WHERE rowid = ?1", (id, body)).unwrap(),
        1
    );
}

/// The files of a closed profile.
struct Backup(Vec<(&'static str, Vec<u8>)>);

impl Backup {
    fn of(folder: &Path, names: &[&'static str]) -> Self {
        Self(names.iter().map(|name| (*name, std::fs::read(folder.join(name)).unwrap())).collect())
    }

    /// Over the same files, as `cp` does it.
    async fn put_back(self, person: Person) -> Person {
        let Person { client, folder, .. } = person;
        drop(client);
        Person::close(&folder).await;
        for (name, bytes) in self.0 {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        Person::open(folder).await
    }
}

fn is_restored(event: &Event) -> bool {
    matches!(event, Event::Restored)
}

#[tokio::test(flavor = "multi_thread")]
async fn row_14_a_backup_of_last_week_is_noticed_and_what_has_come_since_comes_again() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let (running, _bobs) = (alice.spawn(), bob.spawn());
    converse(&alice, &bob, 3).await;
    running.stop().await;
    let alice = alice.reopen().await;
    let backup = Backup::of(alice.folder.path(), &["profile.db"]);
    let running = alice.spawn();
    for n in 0..5 {
        bob.send(&alice, &format!("since {n}")).await;
    }
    collect(&alice, 5).await;
    converse(&alice, &bob, 3).await;
    running.stop().await;
    bob.send(&alice, "while away").await;
    bob.sent().await;

    let alice = backup.put_back(alice).await;
    let mut events = alice.client.events();
    alice.send(&bob, "after").await;
    let _running = alice.spawn();
    event(&mut events, |event| is_restored(&event).then_some(())).await;
    assert_eq!(collect(&bob, 1).await, ["after"]);
    let since =
        ["since 0", "since 1", "since 2", "since 3", "since 4", "0", "1", "2", "while away"];
    assert_eq!(collect(&alice, since.len()).await, since);
    converse(&alice, &bob, 2).await;
    assert_eq!(alice.client.inbox().await.unwrap(), []);
    assert_eq!(bob.client.inbox().await.unwrap(), []);
}

/// Of the peer the backup knows nothing, and nothing that comes names a way to read it.
#[tokio::test(flavor = "multi_thread")]
async fn row_14_a_backup_from_before_somebody_was_known_reads_them_again() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let alice = alice.reopen().await;
    let backup = Backup::of(alice.folder.path(), &["profile.db"]);
    let (running, _bobs) = (alice.spawn(), bob.spawn());
    converse(&alice, &bob, 3).await;
    running.stop().await;
    let alice = backup.put_back(alice).await;
    let _running = alice.spawn();
    bob.send(&alice, "unknown to you").await;
    assert_eq!(collect(&alice, 4).await, ["0", "1", "2", "unknown to you"]);
    converse(&alice, &bob, 2).await;
    alice.sent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_14_a_whole_folder_of_last_week_is_noticed_by_the_peer() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let (running, _bobs) = (alice.spawn(), bob.spawn());
    converse(&alice, &bob, 2).await;
    running.stop().await;
    let alice = alice.reopen().await;
    let backup = Backup::of(alice.folder.path(), &["profile.db", "generation"]);
    let running = alice.spawn();
    for n in 0..5 {
        alice.send(&bob, &n.to_string()).await;
    }
    assert_eq!(collect(&bob, 5).await, numbers(0..5));
    alice.sent().await;
    running.stop().await;

    // Nothing on this machine tells it from the one that was closed.
    let alice = backup.put_back(alice).await;
    let (mut events, mut of_bob) = (alice.client.events(), bob.client.events());
    let _running = alice.spawn();
    alice.send(&bob, "uses a counter a second time").await;
    alice.send(&bob, "and another").await;
    assert_eq!(collect(&bob, 2).await, ["uses a counter a second time", "and another"]);
    event(&mut events, |event| is_restored(&event).then_some(())).await;
    let duplicate =
        |event: &Event| matches!(event, Event::Failure { reason: Failure::Duplicate, .. });
    assert!(count(&heard(&mut of_bob).await, duplicate) >= 1);
    converse(&alice, &bob, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_14_prekeys_that_the_backup_does_not_have_stop_nobody_who_writes_for_the_first_time() {
    let relay = Relay::start().await;
    let [alice, carol] = pair(&relay).await;
    let mut settings = tuckseal_client::Settings::default();
    settings.prekeys_low = 100;
    let alice = alice.reopen_with(settings).await;
    let backup = Backup::of(alice.folder.path(), &["profile.db"]);
    let running = alice.spawn();
    // All one-time prekeys of the backup are used up, and others have taken their place.
    use_up_prekeys(&relay);
    running.stop().await;
    let running = alice.spawn();
    let sql = "SELECT count(*) FROM one_time_prekey WHERE id > 100 AND state = 1";
    let supplied = async {
        let count = || database(alice.folder.path()).query_row(sql, (), |row| row.get::<_, u32>(0));
        while count().unwrap() < 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(stage::TIME, supplied).await.expect("the server was not supplied");
    running.stop().await;

    let _carols = carol.spawn();
    carol.send(&alice, "hello").await;
    carol.send(&alice, "can you read me?").await;
    carol.sent().await;
    let alice = backup.put_back(alice).await;
    let mut of_alice = alice.client.events();
    let _running = alice.spawn();
    assert_eq!(collect(&alice, 2).await, ["hello", "can you read me?"]);
    converse(&alice, &carol, 2).await;
    let of_alice = heard(&mut of_alice).await;
    let failed = |event: &Event| matches!(event, Event::Failure { reason: Failure::NoPreKey, .. });
    assert!(count(&of_alice, failed) >= 1);
    assert_eq!(count(&of_alice, is_restored), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_14_relay_gives_out_no_prekey_that_the_backup_does_not_have() {
    let relay = Relay::start().await;
    let [alice, _carol] = pair(&relay).await;
    let alice = alice.reopen().await;
    let backup = Backup::of(alice.folder.path(), &["profile.db"]);
    let waiting = || {
        let sql = "SELECT id FROM prekey_once WHERE device = 1 AND kind = 1 ORDER BY id";
        let db = stage::relay_database(&relay);
        let mut query = db.prepare(sql).unwrap();
        let ids = query.query_map([], |row| row.get::<_, u32>(0)).unwrap();
        ids.map(Result::unwrap).collect::<Vec<_>>()
    };
    let running = alice.spawn();
    use_up_prekeys(&relay);
    running.stop().await;
    let running = alice.spawn();
    stage::until(|| waiting().len() == 100).await;
    running.stop().await;
    let lost = waiting();

    let alice = backup.put_back(alice).await;
    let _running = alice.spawn();
    stage::until(|| waiting().first() > lost.last()).await;
    let held = waiting();
    assert_eq!(held.len(), 100);
    for id in held {
        let sql = "SELECT count(*) FROM one_time_prekey WHERE id = ?1";
        let count = database(alice.folder.path()).query_row(sql, (id,), |row| row.get::<_, u32>(0));
        assert_eq!(count.unwrap(), 1, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_cannot_be_read_in_the_database_and_goes_after_its_time() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let running = [alice.spawn(), bob.spawn()];
    alice.send(&bob, "a sentence of twenty-nine byte").await;
    collect(&bob, 1).await;
    alice.sent().await;
    for running in running {
        running.stop().await;
    }
    let alice = alice.reopen().await;
    let read = |name: &str| std::fs::read(alice.folder.path().join(name)).unwrap_or_default();
    let all = [read("profile.db"), read("profile.db-wal")].concat();
    assert!(!all.windows(29).any(|part| part == &b"a sentence of twenty-nine byte"[..29]));
    let logged = |person: &Person| {
        let sql = "SELECT count(*) FROM outbox WHERE state = 3";
        database(person.folder.path()).query_row(sql, (), |row| row.get::<_, u32>(0)).unwrap()
    };
    assert_eq!(logged(&alice), 1);
    let mut settings = tuckseal_client::Settings::default();
    settings.sent_kept = Duration::ZERO;
    let alice = alice.reopen_with(settings).await;
    let mut events = alice.client.events();
    let _running = alice.spawn();
    event(&mut events, |event| matches!(event, Event::QueueEmpty).then_some(())).await;
    assert_eq!(logged(&alice), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn prekey_ids_that_the_relay_knows_with_other_keys_are_left_for_new_ones() {
    let relay = Relay::start().await;
    let [alice, bob] = pair(&relay).await;
    let alice = alice.tampered(&stage::older_prekeys(8)).await;
    let backup = Backup::of(alice.folder.path(), &["profile.db"]);
    let running = alice.spawn();
    let before = stage::long_lived_ids(&relay, 1);
    stage::until(|| stage::long_lived_ids(&relay, 1) != before).await;
    running.stop().await;
    let lost = stage::long_lived_ids(&relay, 1);

    // The backup replaces its prekeys too: under the ids of those that the relay has already, which are refused (409).
    let alice = backup.put_back(alice).await;
    let _running = [alice.spawn(), bob.spawn()];
    stage::until(|| stage::long_lived_ids(&relay, 1) != lost).await;
    let (signed, last_resort) = stage::long_lived_ids(&relay, 1);
    assert!(signed > lost.0 && last_resort > lost.1);
    bob.send(&alice, "to the newest").await;
    assert_eq!(collect(&alice, 1).await, ["to the newest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_of_several_rotations_ago_goes_on_above_all_ids_after_one_refusal() {
    let relay = Relay::start().await;
    let [mut alice, bob] = pair(&relay).await;
    alice = alice.reopen().await;
    let backup = Backup::of(alice.folder.path(), &["profile.db"]);
    for _ in 0..4 {
        let before = stage::long_lived_ids(&relay, 1);
        alice = alice.tampered(&stage::older_prekeys(8)).await;
        use_up_prekeys(&relay);
        let running = alice.spawn();
        // Stored, and known to be.
        let waiting = || count_rows(&alice, "one_time_prekey WHERE state = 0");
        stage::until(|| stage::long_lived_ids(&relay, 1) != before && waiting() == 0).await;
        running.stop().await;
    }
    let lost = stage::long_lived_ids(&relay, 1);
    assert_eq!(lost.0, 5);
    use_up_prekeys(&relay);

    // All four kinds are refused: some one-time prekeys of the backup wait to be uploaded too.
    let alice = backup.put_back(alice).await;
    let waiting = "UPDATE one_time_prekey SET state = 0 WHERE id > 90;
                   UPDATE kem_prekey SET state = 0 WHERE id > 40 AND use = 0;";
    let alice = alice.tampered(waiting).await;
    let _running = [alice.spawn(), bob.spawn()];
    stage::until(|| stage::long_lived_ids(&relay, 1) != lost).await;
    let (signed, last_resort) = stage::long_lived_ids(&relay, 1);
    assert!(signed == lost.0 + 1 && last_resort > lost.1);
    // A refused upload leaves a signed prekey behind that was never the relay's.
    assert_eq!(count_rows(&alice, "signed_prekey WHERE id > 1"), 1);
    let once = "SELECT min(id) FILTER (WHERE kind = 1), min(id) FILTER (WHERE kind = 2), count(*) FROM prekey_once WHERE device = 1";
    let once = stage::relay_database(&relay).query_row(once, (), |row| {
        Ok::<(u32, u32, u32), _>((row.get(0)?, row.get(1)?, row.get(2)?))
    });
    // Five rounds of 100 and, with the last-resort prekeys, of 51 came before. What was refused with the long-lived ones, and had
    // ids above the marks, goes with the next upload.
    assert_eq!(once.unwrap(), (501, 256, 150));
    bob.send(&alice, "to the newest").await;
    assert_eq!(collect(&alice, 1).await, ["to the newest"]);
    converse(&alice, &bob, 2).await;
}

fn count_rows(person: &Person, rows: &str) -> u32 {
    let sql = format!("SELECT count(*) FROM {rows}");
    database(person.folder.path()).query_row(&sql, (), |row| row.get(0)).unwrap()
}

/// As if peers had fetched all of them.
fn use_up_prekeys(relay: &Relay) {
    let sql = "DELETE FROM prekey_once; UPDATE prekey_state SET remaining = 0";
    stage::relay_database(relay).execute_batch(sql).unwrap();
}
