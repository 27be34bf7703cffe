//! What the server does by itself beside answering: one part of it does not hold up another, or the end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world::{PATIENCE, World, rows};

/// A server of S3 that begins each answer and never ends it; its address.
async fn endless_bucket() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
                let _ = socket.read(&mut [0; 4096]).await;
                let mut sent = socket.write_all(head).await;
                while sent.is_ok() {
                    sent = socket.write_all(b" ").await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_that_takes_long_holds_up_neither_the_sweep_nor_other_purges_nor_the_end() {
    let (folder, endpoint) = (tempfile::tempdir().unwrap(), endless_bucket().await);
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "secret\n").unwrap();
    let mut world = World::set(folder, |config| {
        config.attachments = "s3://attachments".parse().unwrap();
        config.s3.s3_endpoint = Some(endpoint);
        config.s3.s3_access_key_id = Some("id".into());
        config.s3.s3_secret_key_file = Some(secret);
        config.limits.purge_interval_secs = 1;
        config.limits.sweep_interval_secs = 1;
        config.limits.envelope_ttl_secs = 1;
    })
    .await;
    let bob = world.party("bob").await;
    bob.receive_text("is soon over").await;
    let purged = async {
        while rows(&world.database(), "envelope") > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, purged).await.expect("what is over stays");
    // The sweep sees that a device is gone.
    let mut stream = bob.stream().await;
    // That something was dropped, in this case.
    stream.raw().await.unwrap().unwrap();
    let db = rusqlite::Connection::open(world.folder.path().join("tuckseal.db")).unwrap();
    db.execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM mailbox").unwrap();
    assert_eq!(stream.closed().await, Some(4410));
    world.signal_stop();
    world.ended().await;
}
