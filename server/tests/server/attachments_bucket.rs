//! What holds for attachments in a bucket alone: two nodes, two writers, memory, keys.

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tuckseal_server::storage::{AttachmentName, AttachmentStore, Uploaded};

use crate::attachments::{S3, bare, offset, patch, slot};
use crate::crash::{program, start_with};
use crate::nodes::KEYS;
use crate::world::{Party, World, refusal};

const PIECE: usize = 4 * 1024 * 1024;

/// As an operator gives them in the environment.
fn settings(s3: &S3) -> [(&'static str, String); 4] {
    let secret = s3.folder.path().join("secret");
    [
        ("TUCKSEAL_ATTACHMENTS", "s3://attachments".into()),
        ("TUCKSEAL_S3_ENDPOINT", s3.endpoint.clone()),
        ("TUCKSEAL_S3_ACCESS_KEY_ID", s3.id.clone()),
        ("TUCKSEAL_S3_SECRET_KEY_FILE", secret.to_str().unwrap().into()),
    ]
}

/// What `tuckseal-server check` says of the bucket.
async fn checked(s3: &S3) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = program(folder.path()).envs(settings(s3)).arg("check").output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.contains(" files ")).unwrap();
    // A bucket that is away keeps no relay down.
    assert!(output.status.success(), "{text}");
    line.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_goes_on_at_another_node_after_its_own_was_killed() {
    let Some(s3) = S3::start().await else { return };
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (mut first, address) = start_with(folders[0].path(), &settings(&s3)).await;
    for name in KEYS {
        std::fs::copy(folders[0].path().join(name), folders[1].path().join(name)).unwrap();
    }
    let (_second, other) = start_with(folders[1].path(), &settings(&s3)).await;
    let mut alice = Party::register(address, "alice").await;
    let content: Vec<u8> = (0..PIECE + 300_000).map(|n| (n % 251) as u8).collect();
    let slot = slot(&alice, content.len()).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "PATCH {} HTTP/1.1\r\nhost: x\r\ntus-resumable: 1.0.0\r\nupload-offset: 0\r\n\
         content-type: application/offset+octet-stream\r\ncontent-length: {}\r\n\r\n",
        slot.upload,
        content.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&content[..PIECE + 1000]).await.unwrap();
    alice.address = other;
    while offset(&alice, &slot).await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    first.kill().await.unwrap();
    // Whole pieces alone: the 1000 bytes behind them were in memory.
    assert_eq!(offset(&alice, &slot).await, PIECE);
    let rest = patch(&alice, &slot, PIECE, &content[PIECE..]).await;
    assert_eq!(rest.status(), StatusCode::NO_CONTENT);
    let read = bare(&alice, Method::GET, &slot.download).send().await.unwrap();
    assert!(read.bytes().await.unwrap() == content);
    let across = bare(&alice, Method::GET, &slot.download);
    let across = across.header("range", format!("bytes={}-{}", PIECE - 3, PIECE + 2));
    let across = across.send().await.unwrap().bytes().await.unwrap();
    assert_eq!(across, content[PIECE - 3..PIECE + 3]);
}

fn name(id: u8, size: u64) -> AttachmentName {
    AttachmentName { id: [id; 16], expires_ms: i64::MAX / 2, size }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_at_one_offset_one_gets_through() {
    let Some(s3) = S3::start().await else { return };
    // Two nodes.
    let [store, other] = [(); 2].map(|()| AttachmentStore::Bucket(s3.bucket(1024)));
    store.create(name(1, 10)).await.unwrap();
    let (mut slow, _) = store.resume(name(1, 10)).await.unwrap();
    let (mut quick, _) = other.resume(name(1, 10)).await.unwrap();
    slow.write("aaaa".into()).await.unwrap();
    quick.write("bbb".into()).await.unwrap();
    quick.pause().await.unwrap();
    let refused = slow.pause().await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(store.uploaded(name(1, 10)).await.unwrap(), Uploaded::Part(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_without_memory_go_in_smaller_pieces_and_none_waits_for_another() {
    let Some(mut s3) = S3::start().await else { return };
    // Room for one piece.
    let store = AttachmentStore::Bucket(s3.bucket(1));
    let bytes = Bytes::from(vec![7; 3 * 1024 * 1024]);
    let mut uploads = Vec::new();
    for id in 1..=2 {
        store.create(name(id, bytes.len() as u64)).await.unwrap();
        let (mut upload, _) = store.resume(name(id, bytes.len() as u64)).await.unwrap();
        for chunk in bytes.chunks(64 * 1024) {
            upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        uploads.push(upload);
    }
    for upload in uploads {
        upload.finish().await.unwrap();
    }
    for id in 1..=2 {
        let whole = store.uploaded(name(id, bytes.len() as u64)).await.unwrap();
        assert_eq!(whole, Uploaded::Whole(bytes.len() as u64));
    }
    // The first as one piece, the second as three, and what says that they were begun.
    assert_eq!(s3.keys().await.len(), 1 + 3 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_a_refused_key_and_uploads_are_to_be_tried_again() {
    let Some(s3) = S3::start().await else { return };
    assert!(checked(&s3).await.starts_with("ok"));
    let world = World::set(tempfile::tempdir().unwrap(), |config| s3.set(config)).await;
    let alice = world.party("alice").await;
    let slot = slot(&alice, 10).await;
    assert_eq!(patch(&alice, &slot, 0, b"abc").await.status(), StatusCode::NO_CONTENT);
    std::fs::write(s3.folder.path().join("secret"), "hunter2").unwrap();
    let said = checked(&s3).await;
    assert!(said.starts_with("warn") && said.contains("SignatureDoesNotMatch"), "{said}");
    assert!(!said.contains("hunter2"));
    let folder = world.stop().await;
    let world = World::set(folder, |config| s3.set(config)).await;
    let alice = Party { address: world.address, ..alice };
    let refused = patch(&alice, &slot, 3, b"defghij").await;
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refusal(refused).await, StatusCode::SERVICE_UNAVAILABLE);
}
