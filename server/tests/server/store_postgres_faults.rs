//! What PostgreSQL does when a part of it fails, hangs or is full, and how much it reads for what it does.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tuckseal_server::storage::postgres::PostgresStore;
use tuckseal_server::storage::{Append, Store};

use crate::cluster::{Line, Silent};
use crate::store::{ALL, NOW, add, append, seqs};
use crate::store_postgres::LARGE;
use crate::stores::Database;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

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
