//! A database of the version before this one, as it was left, is brought up to date and goes on.

use std::sync::Arc;

use tokio_postgres::NoTls;
use tuckseal_server::storage::postgres::PostgresStore;
use tuckseal_server::storage::sqlite::SqliteStore;
use tuckseal_server::storage::{AppendAnswer, MailboxId, Store};

use super::devices::{linking, made, opening};
use super::{append, seqs, submit};
use crate::stores::Database;

macro_rules! steps {
    ($kind:literal: $($name:literal)+) => {
        [$(include_str!(concat!("../../../src/storage/migrations/", $kind, "/", $name, ".sql"))),+]
    };
}

/// An account with one device, the literal of so many equal bytes being that of the dialect.
fn account(bytes: impl Fn(u8, usize) -> String) -> String {
    let (aci, identity, access) = (bytes(1, 16), bytes(1, 33), bytes(9, 32));
    let (hash, key) = (bytes(7, 32), bytes(8, 33));
    format!(
        "INSERT INTO account (aci, username, identity_key, access_hash) VALUES ({aci}, 'name1', {identity}, {access});
         INSERT INTO device (account, device, registration_id, token_hash, registered_keys, last_upload)
             VALUES (1, 1, 101, {hash}, {hash}, {hash});
         INSERT INTO prekey_fixed (device, kind, id, key, signature) VALUES (1, 1, 1, {key}, {key}), (1, 2, 1, {key}, {key});
         INSERT INTO prekey_state (device, kind) VALUES (1, 1), (1, 2);
         INSERT INTO mailbox (device) VALUES (1);"
    )
}

async fn goes_on(store: Arc<dyn Store>) {
    let first = MailboxId(1);
    let there = store.devices(1).await.unwrap();
    assert_eq!((there.len(), there[0].registration_id, there[0].made_day), (1, 101, 0));
    assert!(there[0].name.is_empty());
    assert!(matches!(submit(&store, append(1, 1, &[1], 10)).await, AppendAnswer::Stored(_)));
    assert!(store.open_link(opening(first, 1)).await.unwrap());
    let linked = made(store.link_device(linking(1, 1)).await.unwrap());
    assert!(linked.device == 2 && linked.mailbox > first);
    assert!(matches!(submit(&store, append(1, 2, &[1, 2], 10)).await, AppendAnswer::Stored(_)));
    assert_eq!(
        (seqs(&store, first).await, seqs(&store, linked.mailbox).await),
        (vec![1, 2], vec![1])
    );
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_file_of_the_version_before_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let db = rusqlite::Connection::open(&path).unwrap();
    for step in steps!("sqlite": "0001_first" "0002_push" "0003_reports" "0005_life" "0006_takes") {
        db.execute_batch(step).unwrap();
    }
    db.execute_batch(&account(|byte, count| format!("x'{}'", hex::encode(vec![byte; count]))))
        .unwrap();
    db.execute("INSERT INTO taken_answer VALUES (x'00', 1, x'00')", []).unwrap();
    db.pragma_update(None, "user_version", 5).unwrap();
    drop(db);
    goes_on(Arc::new(SqliteStore::open(&path).unwrap())).await;
}

/// A node of the version before goes on beside those of this one, and writes what it wrote.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_database_of_the_version_before_is_brought_up_to_date() {
    let database = Database::create().await;
    let (client, connection) = tokio_postgres::connect(&database.setting(), NoTls).await.unwrap();
    tokio::spawn(connection);
    for step in steps!("postgres": "0001_first" "0002_push" "0003_reports" "0005_life" "0006_takes")
    {
        client.batch_execute(step).await.unwrap();
    }
    let version = "CREATE TABLE schema_version (version integer NOT NULL); INSERT INTO schema_version VALUES (5);";
    client.batch_execute(version).await.unwrap();
    let account = account(|byte, count| format!("'\\x{}'", hex::encode(vec![byte; count])));
    client.batch_execute(&account).await.unwrap();
    let take =
        "INSERT INTO taken_answer (request, at_ms, answer) VALUES (gen_random_uuid(), 1, '')";
    client.execute(take, &[]).await.unwrap();
    let store = PostgresStore::open(&database.setting()).await.unwrap();
    for statement in [
        take,
        "DELETE FROM taken_answer WHERE request IN (SELECT request FROM taken_answer WHERE at_ms < 2)",
        "INSERT INTO device (account, device, registration_id, token_hash, registered_keys, last_upload) \
         VALUES (1, 1, 101, '', '', '') ON CONFLICT (account, device) DO UPDATE SET registration_id = 101",
    ] {
        assert!(client.execute(statement, &[]).await.unwrap() > 0, "{statement}");
    }
    goes_on(Arc::new(store)).await;
}
