//! What holds where several nodes share one database.

use std::sync::Arc;

use tuckseal_server::storage::postgres::{PostgresOpenError, PostgresStore};
use tuckseal_server::storage::{
    AppendAnswer, MailboxId, MailboxState, NodeId, RegisterAnswer, Store,
};

use super::{add, append, registering, submit};
use crate::stores::{Database, Opened};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_at_once_migrate_once() {
    let database = Database::create().await;
    let setting = database.setting();
    let opening = (0..4).map(|_| PostgresStore::open(&setting));
    for store in futures_util::future::join_all(opening).await {
        store.unwrap().check().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn database_of_a_newer_server_is_refused() {
    let opened = Opened::postgres().await;
    let setting = opened.setting();
    let (client, connection) =
        tokio_postgres::connect(&setting, tokio_postgres::NoTls).await.unwrap();
    let _connection = tokio::spawn(connection);
    client.execute("UPDATE schema_version SET version = 99", &[]).await.unwrap();
    let refused = PostgresStore::open(&setting).await.err().unwrap();
    assert!(matches!(refused, PostgresOpenError::Newer { found: 99, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_connection_has_the_mailbox_and_submissions_say_where_it_is() {
    let opened = Opened::postgres().await;
    let store = Arc::clone(&opened.store);
    let mailbox = add(&store, 1, 1).await;
    let node_of = async |dedup| {
        let AppendAnswer::Stored(placed) = submit(&store, append(1, dedup, &[1], 1)).await else {
            panic!("not stored")
        };
        placed[0].node
    };
    assert_eq!(node_of(1).await, None);
    let first = store.claim(mailbox, NodeId(7)).await.unwrap().unwrap();
    assert_eq!((first.displaced, node_of(2).await), (None, Some(NodeId(7))));
    let second = store.claim(mailbox, NodeId(8)).await.unwrap().unwrap();
    assert_eq!((second.displaced, node_of(3).await), (Some(NodeId(7)), Some(NodeId(8))));
    assert!(second.epoch > first.epoch);
    // Who was displaced gives up nothing but its own place.
    store.release(mailbox, first.epoch).await.unwrap();
    assert_eq!(node_of(4).await, Some(NodeId(8)));
    let states = store.states(vec![mailbox, MailboxId(-1)]).await.unwrap();
    assert_eq!(states, [MailboxState { mailbox, end: 4, epoch: second.epoch }]);
    store.release(mailbox, second.epoch).await.unwrap();
    assert_eq!(node_of(5).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_again_is_newer_than_the_streams_before_and_older_than_those_after() {
    let opened = Opened::postgres().await;
    let store = Arc::clone(&opened.store);
    let mailbox = add(&store, 1, 1).await;
    let before = store.claim(mailbox, NodeId(7)).await.unwrap().unwrap().epoch;
    let RegisterAnswer::As(_, _, registered) = store.register(registering(1, 1)).await.unwrap()
    else {
        panic!("not registered");
    };
    let after = store.claim(mailbox, NodeId(7)).await.unwrap().unwrap().epoch;
    assert!(before < registered && registered < after, "{before} {registered} {after}");
}
