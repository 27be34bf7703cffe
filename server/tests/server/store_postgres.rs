//! Submissions that are committed together, and what becomes of envelopes that nobody fetches, in PostgreSQL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio_postgres::{Client, NoTls};
use tuckseal_server::storage::postgres::PostgresStore;
use tuckseal_server::storage::{
    AccountId, Append, AppendAnswer, Authority, MailboxId, Mismatch, Quota, Recipient, Registering,
    Store,
};

use crate::store::{ALL, LATER, NOW, add, append, registering, seqs};
use crate::stores::Opened;

pub(crate) const LARGE: Quota = Quota { messages: 10_000, bytes: 1_000_000 };

async fn purged(store: &Arc<dyn Store>, now_ms: i64) -> u64 {
    let mut all = 0;
    loop {
        match store.purge(now_ms, 0).await.unwrap() {
            0 => return all,
            gone => all += gone,
        }
    }
}

pub(crate) async fn client(opened: &Opened) -> Client {
    let (client, connection) = tokio_postgres::connect(&opened.setting(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Of mailboxes whose counts are not those of what is there.
pub(crate) const WRONG: &str = "SELECT count(*) FROM mailbox m LEFT JOIN \
     (SELECT mailbox, count(*) AS count, sum(size) AS bytes FROM envelope GROUP BY mailbox) e ON e.mailbox = m.device \
     WHERE m.count <> coalesce(e.count, 0) OR m.bytes <> coalesce(e.bytes, 0)";

/// To one device each of these accounts, with the same end.
fn for_many(accounts: std::ops::RangeInclusive<u8>, dedup: u64) -> Append {
    let recipients = accounts.map(|account| append(account, dedup, &[1], 3).recipients.remove(0));
    let recipients: Vec<Recipient> = recipients.collect();
    Append {
        recipients,
        shared: Bytes::from_static(b"for all"),
        quota: LARGE,
        ..append(1, 0, &[], 0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submissions_that_come_together_and_again_are_stored_once_and_without_holes() {
    let opened = Opened::postgres().await;
    let nodes = [Arc::clone(&opened.store), opened.second_node().await];
    let mut mailboxes = BTreeMap::new();
    for account in 1..=3 {
        mailboxes.insert(account, add(&nodes[0], account, 1).await);
    }
    let one = |n: u64| {
        let account = (n % 3) as u8 + 1;
        match n % 10 {
            // Some are for all, with an end that is stored once.
            0 => for_many(1..=3, n),
            _ => Append { quota: LARGE, ..append(account, n, &[1], 20) },
        }
    };
    // Each is handed in three times: twice at once, and once at the other node.
    let all = (0..300).flat_map(|n| [(0, n), (0, n), (1, n)]);
    let answers = join_all(all.map(|(node, n)| {
        let store = Arc::clone(&nodes[node]);
        tokio::spawn(async move { (n, store.append(one(n)).await.unwrap()) })
    }));
    let mut stored: BTreeMap<(u64, MailboxId), i64> = BTreeMap::new();
    let mut repeated = 0;
    for answer in answers.await {
        let (n, answers) = answer.unwrap();
        for answer in answers {
            match answer {
                AppendAnswer::Stored(placed) => {
                    let before = stored.insert((n, placed[0].mailbox), placed[0].seq);
                    assert_eq!(before, None, "{n} was stored twice");
                }
                AppendAnswer::Repeated => repeated += 1,
                other => panic!("{n}: {other:?}"),
            }
        }
    }
    assert_eq!((stored.len(), repeated), (270 + 30 * 3, 2 * (270 + 30 * 3)));
    for mailbox in mailboxes.into_values() {
        let mut given: Vec<i64> =
            stored.iter().filter(|((_, m), _)| *m == mailbox).map(|(_, seq)| *seq).collect();
        given.sort_unstable();
        let there: Vec<i64> = (1..=given.len() as i64).collect();
        assert_eq!((&given, seqs(&nodes[1], mailbox).await), (&there, there.clone()));
    }
    assert_eq!(number(&client(&opened).await, WRONG).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_goes_with_its_partition_and_leaves_counts_that_are_right() {
    let opened = Opened::postgres().await;
    let (store, client) = (&opened.store, client(&opened).await);
    let first = add(store, 1, 1).await;
    // More devices than one transaction puts right.
    for device in 2..=120 {
        add(store, 1, device).await;
    }
    for account in 2..=6 {
        for device in 1..=120 {
            add(store, account, device).await;
        }
    }
    let devices: Vec<u8> = (1..=120).collect();
    for account in 1..=6 {
        let shared = Bytes::from_static(b"for all");
        let new = append(account, 1, &devices, 3);
        store.append(Append { shared, quota: LARGE, ..new }).await.unwrap();
    }
    let mut late = append(1, 2, &devices, 3);
    late.expires_ms = LATER * 20;
    let late = Append { quota: LARGE, shared: Bytes::from_static(b"for some"), ..late };
    store.append(late).await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM envelope_part").await, 2);
    assert_eq!(number(&client, "SELECT count(*) FROM payload").await, 2);

    assert_eq!(purged(store, 1999).await, 0);
    assert_eq!(purged(store, LATER).await, 6 * 120);
    assert_eq!(number(&client, WRONG).await, 0);
    assert_eq!(number(&client, "SELECT count(*) FROM mailbox WHERE dropped = 1").await, 6 * 120);
    assert_eq!(number(&client, "SELECT count(*) FROM envelope_part").await, 1);
    assert_eq!(number(&client, "SELECT count(*) FROM payload").await, 1);
    let tables = "SELECT count(*) FROM pg_class WHERE relname ~ '^envelope_[0-9]+$'";
    assert_eq!(number(&client, tables).await, 1);
    let left = store.read_after(first, 0, ALL, NOW).await.unwrap();
    assert_eq!((left.envelopes.len(), left.envelopes[0].seq, left.dropped), (1, 2, 1));

    // A node that knew the partition finds that it is gone, and makes another.
    assert!(matches!(
        store.append(Append { quota: LARGE, ..append(1, 3, &devices, 3) }).await.unwrap()[..],
        [AppendAnswer::Stored(_)]
    ));
    assert_eq!(purged(store, LATER * 40).await, 240);
    assert_eq!(number(&client, WRONG).await, 0);
    assert_eq!(number(&client, "SELECT count(*) FROM payload").await, 0);
}

/// In one slice of what has expired are mailboxes that are gone: those behind them have their turn all the same.
#[tokio::test(flavor = "multi_thread")]
async fn expired_envelopes_of_removed_devices_do_not_hold_up_the_counts_of_others() {
    let opened = Opened::postgres().await;
    let (store, client) = (&opened.store, client(&opened).await);
    let devices: Vec<u8> = (1..=120).collect();
    for account in 1..=5 {
        for device in 1..=120 {
            add(store, account, device).await;
        }
        let shared = Bytes::from_static(b"for all");
        store
            .append(Append { shared, quota: LARGE, ..append(account, 1, &devices, 3) })
            .await
            .unwrap();
    }
    // As it is between the two steps of the expiry.
    let id = number(&client, "SELECT id FROM envelope_part").await;
    let detach = format!(
        "ALTER TABLE envelope DETACH PARTITION envelope_{id};
         UPDATE envelope_part SET cleared_to = 0"
    );
    client.batch_execute(&detach).await.unwrap();
    let row = store.account(AccountId([1; 16])).await.unwrap().unwrap().row;
    for device in 2..=120 {
        store.remove_device(row, device).await.unwrap().unwrap();
    }
    assert_eq!(purged(store, LATER).await, 5 * 120);
    assert_eq!(number(&client, WRONG).await, 0);
    assert_eq!(
        number(&client, "SELECT count(*) FROM mailbox WHERE dropped = 1").await,
        4 * 120 + 1
    );
    assert_eq!(number(&client, "SELECT count(*) FROM envelope_part").await, 0);
    assert_eq!(number(&client, "SELECT count(*) FROM payload").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_reads_all_envelopes_for_long_delays_the_expiry_and_nothing_else() {
    let opened = Opened::postgres().await;
    let (store, client) = (&opened.store, client(&opened).await);
    let mailbox = add(store, 1, 1).await;
    store.append(append(1, 1, &[1], 3)).await.unwrap();
    client.batch_execute("BEGIN; SELECT count(*) FROM envelope").await.unwrap();
    assert_eq!(purged(store, LATER).await, 0);
    store.append(append(1, 2, &[1], 3)).await.unwrap();
    assert_eq!(seqs(store, mailbox).await, [1, 2]);
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(purged(store, LATER).await, 2);
    assert!(seqs(store, mailbox).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_goes_by_what_is_there_while_expired_envelopes_are_taken_away() {
    let opened = Opened::postgres().await;
    let (store, client) = (&opened.store, client(&opened).await);
    let mailbox = add(store, 1, 1).await;
    for n in 1..=5 {
        store.append(append(1, n, &[1], 3)).await.unwrap();
    }
    // As it is between the two steps: nobody sees the envelopes, the counts stand for them still.
    let id = number(&client, "SELECT id FROM envelope_part").await;
    let detach = format!(
        "ALTER TABLE envelope DETACH PARTITION envelope_{id};
         UPDATE envelope_part SET cleared_to = 0"
    );
    client.batch_execute(&detach).await.unwrap();
    for n in 6..=10 {
        let mut new = append(1, n, &[1], 3);
        new.expires_ms = LATER * 20;
        store.append(new).await.unwrap();
    }
    assert_eq!(seqs(store, mailbox).await, [6, 7, 8, 9, 10]);
    assert_eq!(purged(store, LATER).await, 5);
    assert_eq!(number(&client, WRONG).await, 0);
    assert_eq!(store.read_after(mailbox, 0, ALL, NOW).await.unwrap().dropped, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_that_fail_wait_and_do_not_keep_others_from_their_turn() {
    let opened = Opened::postgres().await;
    let impatient = format!("{}?options=-c%20statement_timeout%3D500ms", opened.setting());
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(&impatient).await.unwrap());
    let mut mailboxes = Vec::new();
    for account in 1..=3 {
        mailboxes.push(add(&store, account, 1).await);
        store.append(append(account, 1, &[1], 3)).await.unwrap();
    }
    let mut holding = client(&opened).await;
    let held = holding.transaction().await.unwrap();
    let sql = "SELECT FROM mailbox WHERE device = $1 FOR UPDATE";
    held.query(sql, &[&mailboxes[0].0]).await.unwrap();
    store.delete(mailboxes[0], vec![1]);
    // Between them, so that they do not go together.
    store.delete(mailboxes[1], (2..20_000).collect());
    store.delete(mailboxes[2], vec![1]);
    // Nobody else waits for them.
    store.settle().await.unwrap();
    assert_eq!(seqs(&store, mailboxes[0]).await, [1]);
    assert!(seqs(&store, mailboxes[2]).await.is_empty());
    drop(held);
    let deleted = async {
        while !seqs(&store, mailboxes[0]).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), deleted).await.expect("it is not tried again");
    assert_eq!(number(&client(&opened).await, WRONG).await, 0);
    store.close().await.unwrap();
}

/// What one append for one account is answered with, in words.
async fn answer(store: &Arc<dyn Store>, new: Append) -> String {
    match store.append(new).await.unwrap().remove(0) {
        AppendAnswer::Stored(placed) => format!("stored at {}", placed[0].seq),
        AppendAnswer::Repeated => "repeated".into(),
        AppendAnswer::Unauthorised => "unauthorised".into(),
        AppendAnswer::UnknownAccount => "unknown".into(),
        AppendAnswer::Mismatch(Mismatch { missing, extra, stale }) => {
            format!("missing {missing:?} extra {extra:?} stale {stale:?}")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_remembers_of_an_account_ends_with_a_registration_at_another() {
    let opened = Opened::postgres().await;
    let (here, there) = (&opened.store, opened.second_node().await);
    let mailbox = add(here, 1, 1).await;
    add(here, 2, 1).await;
    let new = |n: u64, devices: &[u8]| Append { quota: LARGE, ..append(1, n, devices, 3) };
    assert_eq!(answer(here, new(1, &[1])).await, "stored at 1");

    let again = Registering { registration_id: 7, ..registering(1, 1) };
    there.register(again).await.unwrap();
    // Others that are stored together with it do not suffer from it.
    let others = (10..30).map(|n| here.append(Append { quota: LARGE, ..append(2, n, &[1], 3) }));
    let (of_before, others) = tokio::join!(answer(here, new(2, &[1])), join_all(others));
    assert_eq!(of_before, "missing [] extra [] stale [1]");
    assert!(
        others.iter().all(|one| matches!(one.as_ref().unwrap()[..], [AppendAnswer::Stored(_)]))
    );
    let to_the_new = |n: u64| {
        let mut new = new(n, &[1]);
        new.recipients[0].messages[0].registration_id = 7;
        new
    };
    assert_eq!(answer(here, to_the_new(3)).await, "stored at 2");

    // A repetition of what was stored before stays one.
    assert_eq!(answer(here, new(1, &[1])).await, "repeated");
    let other_key = Registering { access_hash: [3; 32], ..registering(1, 1) };
    there.register(Registering { registration_id: 7, ..other_key }).await.unwrap();
    assert_eq!(answer(here, to_the_new(4)).await, "unauthorised");
    let with_the_key = |n: u64| {
        let mut new = to_the_new(n);
        new.recipients[0].authority = Authority::AccessHash([3; 32]);
        new
    };
    assert_eq!(answer(here, with_the_key(5)).await, "stored at 3");
    there.register(Registering { access_hash: [3; 32], ..registering(1, 2) }).await.unwrap();
    assert_eq!(answer(here, with_the_key(6)).await, "missing [2] extra [] stale []");
    assert_eq!(seqs(here, mailbox).await, [1, 2, 3]);
    let noted = number(&client(&opened).await, "SELECT count(*) FROM submission").await;
    assert_eq!(noted, 3 + 20, "what was refused was noted as accepted");
}
