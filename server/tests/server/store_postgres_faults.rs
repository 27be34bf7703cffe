//! What PostgreSQL does when a part of it fails, hangs or is full, and how much it reads for what it does.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_postgres::Client;
use tuckseal_server::storage::postgres::PostgresStore;
use tuckseal_server::storage::{Append, AppendAnswer, Quota, Store};

use crate::cluster::{Line, Silent};
use crate::store::{ALL, NOW, add, append, seqs};
use crate::store_postgres::{LARGE, WRONG, client, number};
use crate::stores::{Database, Opened};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

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
