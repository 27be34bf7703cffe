//! What PostgreSQL does when a part of it fails, hangs or is full, and how much it reads for what it does.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_postgres::Client;
use tuckseal_server::storage::postgres::PostgresStore;
use tuckseal_server::storage::{AccountId, Append, AppendAnswer, MailboxId, Quota, Store, Taken};

use crate::cluster::{Line, Silent};
use crate::store::{ALL, LATER, NOW, add, append, fetch, seqs};
use crate::store_postgres::{LARGE, WRONG, client, number};
use crate::stores::{Database, Opened};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Rows that are more than a handful.
const MANY: i64 = 50_000;

/// Closes the store, and gives how many rows its connections have read since the counting began.
async fn rows_read(store: &Arc<dyn Store>, client: &Client, table: &str) -> i64 {
    store.close().await.unwrap();
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
                  AND backend_type = 'client backend'";
    while number(client, others).await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    read_so_far(client, table).await
}

async fn read_so_far(client: &Client, table: &str) -> i64 {
    client.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
    let sql = format!(
        "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_user_tables WHERE relname ~ '{table}'"
    );
    number(client, &sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn message_to_a_full_mailbox_costs_no_more_than_it_drops() {
    const HELD: i64 = 3000;
    let opened = Opened::postgres().await;
    let client = client(&opened).await;
    let mailbox = add(&opened.store, 1, 1).await;
    let quota = Quota { messages: HELD, bytes: 1_000_000 };
    let many = (0..u64::try_from(HELD).unwrap())
        .map(|n| opened.store.append(Append { quota, ..append(1, n, &[1], 3) }));
    futures_util::future::try_join_all(many).await.unwrap();
    let before = rows_read(&opened.store, &client, "^envelope_[0-9]+$").await;

    let store = opened.second_node().await;
    for n in 0..100 {
        let new = Append { quota, ..append(1, 10_000 + n, &[1], 3) };
        let [AppendAnswer::Stored(placed)] = &store.append(new).await.unwrap()[..] else {
            panic!("not stored")
        };
        assert_eq!(placed[0].dropped, 1);
    }
    let held = seqs(&store, mailbox).await;
    assert_eq!(held, (101..=HELD + 100).collect::<Vec<i64>>());
    let read = rows_read(&store, &client, "^envelope_[0-9]+$").await - before - HELD;
    assert!(read < 100 * 20, "{read} rows for 100 messages");
    assert_eq!(number(&client, WRONG).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_that_cannot_be_cleared_holds_up_nothing_else() {
    let opened = Opened::postgres().await;
    let (store, client) = (&opened.store, client(&opened).await);
    let mailbox = add(store, 1, 1).await;
    for n in 0..700 {
        let expires_ms = 2000 + LATER * ((n % 3) as i64);
        let new = Append { quota: LARGE, expires_ms, ..append(1, n, &[1], 3) };
        store.append(new).await.unwrap();
    }
    assert_eq!(number(&client, "SELECT count(*) FROM envelope_part").await, 3);
    let first = number(&client, "SELECT min(id) FROM envelope_part").await;
    // Of a restored backup, say.
    let damage = format!(
        "ALTER TABLE envelope DETACH PARTITION envelope_{first};
         ALTER TABLE envelope_{first} RENAME TO away;
         UPDATE envelope_part SET cleared_to = 0 WHERE id = {first}"
    );
    client.batch_execute(&damage).await.unwrap();
    store.purge(LATER * 20, NOW + 1).await.unwrap_err();
    assert!(seqs(store, mailbox).await.is_empty());
    assert_eq!(number(&client, "SELECT count(*) FROM submission").await, 0);
    assert_eq!(number(&client, "SELECT count(*) FROM envelope_part").await, 1);
    let repair = format!("ALTER TABLE away RENAME TO envelope_{first}");
    client.batch_execute(&repair).await.unwrap();
    while store.purge(LATER * 20, NOW + 1).await.unwrap() > 0 {}
    assert_eq!(number(&client, "SELECT count(*) FROM envelope_part").await, 0);
    assert_eq!(number(&client, WRONG).await, 0);
    assert_eq!(store.read_after(mailbox, 0, ALL, NOW).await.unwrap().dropped, 700);
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_envelopes_go_in_slices_of_rows_however_few_mailboxes_have_them() {
    let opened = Opened::postgres().await;
    let (store, client) = (&opened.store, client(&opened).await);
    let mut mailboxes = Vec::new();
    for account in 1..=20 {
        mailboxes.push(add(store, account, 1).await.0);
        store.append(Append { quota: LARGE, ..append(account, 1, &[1], 3) }).await.unwrap();
    }
    let part = number(&client, "SELECT id FROM envelope_part").await;
    let more = format!(
        "INSERT INTO envelope_{part} SELECT m, n, {NOW}, 2000, 3, NULL, 'abc' FROM unnest($1::bigint[]) m, generate_series(2, 1000) n"
    );
    client.execute(&more, &[&mailboxes]).await.unwrap();
    let counts = "UPDATE mailbox SET count = 1000, bytes = 3000, next_seq = 1001";
    client.batch_execute(counts).await.unwrap();
    let (mut slices, mut all) = (Vec::new(), 0);
    loop {
        match store.purge(LATER, 0).await.unwrap() {
            0 => break,
            gone => slices.push(gone),
        }
        all += slices.last().unwrap();
        // What went is told of at once, what did not is not.
        let told = number(&client, "SELECT sum(dropped)::bigint FROM mailbox").await;
        assert_eq!(told.unsigned_abs(), all);
    }
    assert_eq!(all, 20_000);
    assert!(slices.iter().all(|slice| *slice <= 4000), "{slices:?}");
    assert_eq!(number(&client, WRONG).await, 0);
    assert_eq!(number(&client, "SELECT count(*) FROM envelope_part").await, 0);
}

/// Clocks of the database and of the nodes are those of one machine here: that of the database is set by a function that is
/// found before its own.
#[tokio::test(flavor = "multi_thread")]
async fn node_whose_clock_is_far_from_that_of_the_database_purges_nothing() {
    let database = Database::create().await;
    let (client, connection) =
        tokio_postgres::connect(&database.setting(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let clock = |offset: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql \
             AS 'SELECT pg_catalog.clock_timestamp() + interval ''{offset}'''"
        )
    };
    client.batch_execute("CREATE SCHEMA clock").await.unwrap();
    client.batch_execute(&clock("-3 weeks")).await.unwrap();
    let path = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, clock, pg_catalog', current_database()); END $$";
    client.batch_execute(path).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(&database.setting()).await.unwrap());
    let mailbox = add(&store, 1, 1).await;
    store.append(append(1, 1, &[1], 3)).await.unwrap();
    let refused = store.purge(LATER, NOW + 1).await.unwrap_err();
    assert!(refused.to_string().contains("clock"), "{refused}");
    client.batch_execute(&clock("1 hour")).await.unwrap();
    store.purge(LATER, NOW + 1).await.unwrap_err();
    assert_eq!(seqs(&store, mailbox).await, [1]);
    assert_eq!(number(&client, "SELECT count(*) FROM submission").await, 1);
    client.batch_execute(&clock("20 seconds")).await.unwrap();
    assert_eq!(store.purge(LATER, NOW + 1).await.unwrap(), 2);
    store.close().await.unwrap();
}

/// As a host does that hangs, or a proxy whose other side is gone: connections stay and nothing comes out of them.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_went_silent_are_given_up() {
    let database = Database::create().await;
    let setting: tokio_postgres::Config = database.setting().parse().unwrap();
    let [tokio_postgres::config::Host::Tcp(host)] = setting.get_hosts() else { panic!("no host") };
    let far = tokio::net::lookup_host((host.as_str(), setting.get_ports()[0])).await.unwrap();
    let line = Line::to(far.last().unwrap()).await;
    let user = setting.get_user().unwrap();
    let through = line.address(&format!("postgresql://{user}@")).replace("@://", "@");
    let through = format!("{through}/{}", setting.get_dbname().unwrap());
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(&through).await.unwrap());
    let mailbox = add(&store, 1, 1).await;
    // Several connections are open.
    let many = (0..50).map(|n| store.append(Append { quota: LARGE, ..append(1, n, &[1], 3) }));
    let reads = (0..12).map(|_| store.states(vec![mailbox]));
    let (many, reads) = futures_util::future::join(join_all(many), join_all(reads)).await;
    assert!(many.iter().all(Result::is_ok) && reads.iter().all(Result::is_ok));
    line.go_silent(Silent::All);
    let submitting = async {
        while store.append(Append { quota: LARGE, ..append(1, 99, &[1], 3) }).await.is_err() {}
    };
    let reading = async { while store.read_after(mailbox, 0, ALL, NOW).await.is_err() {} };
    let deleting = async {
        store.delete(mailbox, vec![1]);
        while store.settle().await.is_err() {}
    };
    let asking = async { while store.check().await.is_err() {} };
    let all = futures_util::future::join4(submitting, reading, deleting, asking);
    tokio::time::timeout(PATIENCE, all).await.expect("it hangs");
    assert_eq!(seqs(&store, mailbox).await, (2..=51).collect::<Vec<i64>>());
    store.close().await.unwrap();
}

/// Each of what a store does in passing, once.
async fn each_once(store: &Arc<dyn Store>, n: u8, mailbox: MailboxId, account_row: i64) {
    let quota = Quota { messages: 2 * MANY, bytes: 10 * MANY };
    let new = append(1, u64::from(n), &[1], 3);
    let [AppendAnswer::Stored(placed)] = &store.append(Append { quota, ..new }).await.unwrap()[..]
    else {
        panic!("not stored")
    };
    store.delete(mailbox, vec![placed[0].seq]);
    store.settle().await.unwrap();
    assert!(matches!(store.take(fetch(account_row, None)).await.unwrap(), Taken::Now(_)));
    store.purge(0, 10).await.unwrap();
    store.purge_answers(10).await.unwrap();
    store.purge_links(10).await.unwrap();
    store.purge_reports(10, 10).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_planned_while_tables_were_empty_does_when_they_are_full() {
    let opened = Opened::postgres().await;
    let client = client(&opened).await;
    let mailbox = add(&opened.store, 1, 1).await;
    let account_row = opened.store.account(AccountId([1; 16])).await.unwrap().unwrap().row;
    opened.store.append(append(1, 0, &[1], 3)).await.unwrap();
    opened.store.delete(mailbox, vec![1]);
    opened.store.settle().await.unwrap();
    let part = number(&client, "SELECT id FROM envelope_part").await;
    let part = format!("envelope_{part}");
    let queues = [
        "submission",
        "taken_answer",
        "device_link",
        "report",
        "report_token",
        "prekey_once",
        &part,
    ];
    for table in queues {
        let empty =
            format!("ALTER TABLE {table} SET (autovacuum_enabled = false); TRUNCATE {table}");
        client.batch_execute(&empty).await.unwrap();
        client.batch_execute(&format!("VACUUM ANALYZE {table}")).await.unwrap();
    }
    let store = &opened.store;
    each_once(store, 1, mailbox, account_row).await;
    let fill = format!(
        "INSERT INTO submission SELECT gen_random_uuid(), n / 100 FROM generate_series(1, {MANY}) n;
         INSERT INTO taken_answer (request, at_ms, answer, account) SELECT gen_random_uuid(), n / 100, '', 1 FROM generate_series(1, {MANY}) n;
         INSERT INTO device_link (id, account, token_hash, expires_ms) SELECT int8send(n), {account_row}, int8send(n), n / 100 FROM generate_series(1, {MANY}) n;
         INSERT INTO report SELECT {account_row}, n - {MANY}, 1 FROM generate_series(1, {MANY}) n;
         INSERT INTO report_token SELECT int8send(n), n / 100 FROM generate_series(1, {MANY}) n;
         INSERT INTO prekey_once SELECT {m}, k, n, 'x', '' FROM generate_series(1, {MANY}) n, generate_series(1, 2) k;
         UPDATE prekey_state SET remaining = {MANY}, high_water = {MANY};
         INSERT INTO {part} SELECT {m}, n, {NOW}, 2000, 3, NULL, 'abc' FROM generate_series(1000, 1000 + {MANY} - 1) n;
         UPDATE mailbox SET count = count + {MANY}, bytes = bytes + 3 * {MANY}, next_seq = 1000 + {MANY};",
        m = mailbox.0,
    );
    client.batch_execute(&fill).await.unwrap();
    each_once(store, 2, mailbox, account_row).await;
    let mut read = Vec::new();
    for table in queues {
        read.push((table, rows_read(store, &client, &format!("^{table}$")).await));
    }
    assert!(read.iter().all(|(_, rows)| *rows < 10_000), "{read:?}");
    let count = async |table: &str| number(&client, &format!("SELECT count(*) FROM {table}")).await;
    for table in ["submission", "taken_answer", "device_link", "report", "report_token"] {
        // Two submissions were accepted.
        let left = MANY - 500 + 2 * i64::from(table == "submission");
        assert_eq!(count(table).await, left, "{table}");
    }
    assert_eq!(count("prekey_once").await, 2 * MANY - 2);
    assert_eq!(count(&part).await, MANY);
}
