//! Reports of spam: the first messages bring a token, and whoever got one can report, once, without a trace of who wrote to whom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod stage;

use stage::{Person, Relay, database, relay_database};
use tuckseal_client::ReportError;

fn counted(relay: &Relay) -> Vec<(String, u64)> {
    let database = relay_database(relay);
    let sql = "SELECT username, count FROM report JOIN account ON account.id = report.account";
    let mut query = database.prepare(sql).unwrap();
    let rows = query.query_map((), |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)));
    rows.unwrap().map(Result::unwrap).collect()
}

fn number(person: &Person, sql: &str) -> i64 {
    database(person.folder.path()).query_row(sql, (), |row| row.get(0)).unwrap()
}

fn tokens(person: &Person, column: &str) -> Vec<Vec<u8>> {
    let database = database(person.folder.path());
    let sql = format!("SELECT {column} FROM report_peer WHERE {column} IS NOT NULL");
    let mut query = database.prepare(&sql).unwrap();
    query.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

const LEFT: &str = "SELECT count(*) FROM report_token";

#[tokio::test(flavor = "multi_thread")]
async fn first_messages_can_be_reported_once_and_the_relay_knows_no_more_than_the_count() {
    let relay = Relay::start().await;
    let (alice, bob) =
        (Person::register(&relay, "alice").await, Person::register(&relay, "bob").await);
    let (alice_runs, bob_runs) = (alice.spawn(), bob.spawn());
    let stock = number(&alice, LEFT);
    for text in ["buy", "now", "cheap"] {
        alice.send(&bob, text).await;
        assert_eq!(bob.next().await.text, text);
    }
    assert_eq!(number(&alice, LEFT), stock - 1, "one token is for all that is not answered");
    assert_eq!(tokens(&bob, "received"), tokens(&alice, "given"));
    // What went through the relay, and is there until it is acknowledged and after, names no token.
    let token = tokens(&bob, "received").remove(0);
    assert_eq!(token.len(), 52);
    let spammer = alice.client.account();
    for _ in 0..2 {
        bob.client.report_spam(spammer).await.unwrap();
        assert_eq!(counted(&relay), [("alice".into(), 1)]);
    }
    for file in relay.folder.path().read_dir().unwrap() {
        let path = file.unwrap().path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let found = bytes.windows(token.len()).any(|window| window == token);
        assert!(!found, "{} has the token", path.display());
    }
    // Bob has sent nothing.
    let refused = alice.client.report_spam(bob.client.account()).await;
    assert!(matches!(refused, Err(ReportError::NoToken)), "{refused:?}");
    alice_runs.stop().await;
    bob_runs.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_answered_brings_no_token_any_more_and_a_false_one_is_not_good() {
    let relay = Relay::start().await;
    let (alice, bob) =
        (Person::register(&relay, "alice").await, Person::register(&relay, "bob").await);
    let (alice_runs, bob_runs) = (alice.spawn(), bob.spawn());
    alice.send(&bob, "hi").await;
    bob.next().await;
    bob.send(&alice, "hello").await;
    alice.next().await;
    assert!(tokens(&alice, "received").is_empty(), "who answers was not asked for one");
    bob_runs.stop().await;
    let bob = bob.tampered("UPDATE report_peer SET received = zeroblob(52)").await;
    let bob_runs = bob.spawn();
    alice.send(&bob, "how are you").await;
    bob.next().await;
    assert_eq!(tokens(&bob, "received"), [vec![0; 52]], "there was another token");
    let refused = bob.client.report_spam(alice.client.account()).await;
    assert!(matches!(refused, Err(ReportError::NotGood)), "{refused:?}");
    assert!(counted(&relay).is_empty());
    alice_runs.stop().await;
    bob_runs.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_put_into_a_group_by_a_stranger_can_report_them() {
    let relay = Relay::start().await;
    let (alice, bob) =
        (Person::register(&relay, "alice").await, Person::register(&relay, "bob").await);
    let runs = [alice.spawn(), bob.spawn()];
    let group = alice.client.create_group("buy", &[bob.client.account()]).await.unwrap();
    alice.client.send_to_group(group, "now").await.unwrap();
    assert_eq!(bob.next().await.text, "now");
    assert_eq!(tokens(&bob, "received"), tokens(&alice, "given"));
    bob.client.report_spam(alice.client.account()).await.unwrap();
    assert_eq!(counted(&relay), [("alice".into(), 1)]);
    for running in runs {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_is_filled_up_and_without_one_messages_go_all_the_same() {
    let relay = Relay::start_with(|config| config.limits.report_tokens = 4).await;
    let (alice, bob) =
        (Person::register(&relay, "alice").await, Person::register(&relay, "bob").await);
    assert_eq!(number(&alice, LEFT), 4);
    let alice_runs = alice.spawn();
    stage::until(|| number(&alice, LEFT) == 8).await;
    alice_runs.stop().await;
    let alice = alice.tampered("DELETE FROM report_token").await;
    alice.send(&bob, "without").await;
    let (alice_runs, bob_runs) = (alice.spawn(), bob.spawn());
    assert_eq!(bob.next().await.text, "without");
    assert!(tokens(&bob, "received").is_empty());
    stage::until(|| number(&alice, LEFT) == 4).await;
    alice.send(&bob, "with").await;
    assert_eq!(bob.next().await.text, "with");
    bob.client.report_spam(alice.client.account()).await.unwrap();
    assert_eq!(counted(&relay), [("alice".into(), 1)]);
    alice_runs.stop().await;
    bob_runs.stop().await;
}
