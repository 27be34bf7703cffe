//! Files of real clients through a real relay.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod stage;

use stage::{Person, Relay, database};
use std::path::{Path, PathBuf};
use tokio::sync::Notify;
use tuckseal::AttachmentError;
use tuckseal::content::{AttachmentPointer, Data};
use tuckseal_client::{ServerError, TransferError};

const MIB: usize = 1024 * 1024;

fn file(folder: &Path, bytes: usize) -> PathBuf {
    let path = folder.join("film.mp4");
    let mut content = vec![0; bytes];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut content);
    content[..9].copy_from_slice(b"plaintext");
    std::fs::write(&path, content).unwrap();
    path
}

/// All files of the relay's attachment store.
fn stored(relay: &Relay) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&relay.folder.path().join("attachments"), &mut found);
    found
}

async fn upload(person: &Person, path: &Path) -> AttachmentPointer {
    person.client.upload(path, "video/mp4", |_, _| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_through_the_relay_unread_and_comes_out_the_same() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let _running = [alice.spawn(), bob.spawn()];
    let folder = tempfile::tempdir().unwrap();
    for bytes in [10, 3 * MIB + 7] {
        let path = file(folder.path(), bytes);
        let pointer = upload(&alice, &path).await;
        let data = Data { attachments: vec![pointer], ..Data::text("look") };
        alice.client.send_data(bob.client.account(), data).await.unwrap();
        let message = bob.next().await;
        let came = &message.attachments[0];
        assert_eq!((came.file_name.as_str(), came.size), ("film.mp4", bytes as u64));
        let to = folder.path().join(format!("came{bytes}"));
        bob.client.download(came, &to, |_, _| {}).await.unwrap();
        assert!(std::fs::read(&to).unwrap() == std::fs::read(&path).unwrap());
        let again = bob.client.download(came, &to, |_, _| {}).await;
        assert!(matches!(again, Err(TransferError::Exists { .. })));
    }
    for file in stored(&relay) {
        let bytes = std::fs::read(file).unwrap();
        assert!(!bytes.windows(9).any(|part| part == b"plaintext"));
    }
}

/// Uploads until so many bytes are through, and lets it go.
async fn break_off(person: &Person, path: &Path, after: usize) {
    let reached = Notify::new();
    let progress = |done: u64, _| {
        if done >= after as u64 {
            reached.notify_one();
        }
    };
    tokio::select! {
        biased;
        () = reached.notified() => {}
        _ = person.client.upload(path, "", progress) => panic!("it was faster"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_broke_off_goes_on_where_it_was_over_restarts_of_both_sides() {
    let mut relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), 6 * MIB);
    break_off(&alice, &path, 2 * MIB).await;
    relay.stop().await;
    let alice = alice.reopen().await;
    relay.start_again().await;
    let sql = "SELECT download FROM upload";
    let begun: String = database(alice.folder.path()).query_row(sql, (), |row| row.get(0)).unwrap();
    let pointer = upload(&alice, &path).await;
    assert_eq!(pointer.path, begun, "it is the same upload");
    assert_eq!(stored(&relay).len(), 1);
    let to = folder.path().join("came");
    alice.client.download(&pointer, &to, |_, _| {}).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == std::fs::read(&path).unwrap());
    let left = "SELECT count(*) FROM upload";
    let left: u32 = database(alice.folder.path()).query_row(left, (), |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_changed_since_is_uploaded_from_the_beginning_under_other_keys() {
    let relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), 6 * MIB);
    break_off(&alice, &path, 2 * MIB).await;
    let sql = "SELECT download FROM upload";
    let begun: String = database(alice.folder.path()).query_row(sql, (), |row| row.get(0)).unwrap();
    let path = file(folder.path(), 5 * MIB);
    let pointer = upload(&alice, &path).await;
    assert_ne!(pointer.path, begun);
    let to = folder.path().join("came");
    alice.client.download(&pointer, &to, |_, _| {}).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == std::fs::read(&path).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_broke_off_goes_on_and_a_damaged_one_leaves_nothing() {
    let relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), 2 * MIB);
    let pointer = upload(&alice, &path).await;
    let [encrypted] = stored(&relay).try_into().unwrap();
    let (to, part) = (folder.path().join("came"), folder.path().join("came.part"));

    // As a download leaves it that was cut off.
    let mut bytes = std::fs::read(&encrypted).unwrap();
    std::fs::write(&part, &bytes[..MIB]).unwrap();
    let first = std::sync::Mutex::new(None);
    let progress = |done, _| {
        first.lock().unwrap().get_or_insert(done);
    };
    alice.client.download(&pointer, &to, progress).await.unwrap();
    assert!(first.lock().unwrap().unwrap() > MIB as u64, "it went on");
    assert!(std::fs::read(&to).unwrap() == std::fs::read(&path).unwrap());
    assert!(!part.exists());
    std::fs::remove_file(&to).unwrap();

    bytes[MIB] ^= 1;
    std::fs::write(&encrypted, bytes).unwrap();
    let damaged = alice.client.download(&pointer, &to, |_, _| {}).await;
    assert!(matches!(damaged, Err(TransferError::Attachment(AttachmentError::Damaged))));
    assert!(!to.exists() && !part.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_of_a_stranger_leads_to_no_other_place_of_the_server() {
    let relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    let folder = tempfile::tempdir().unwrap();
    let pointer = upload(&alice, &file(folder.path(), 10)).await;
    for path in ["/v1/keys", "/v1/attachments/../keys", "/v1/attachments/", "http://[::1]/", ""] {
        let pointer = AttachmentPointer { path: path.into(), ..pointer.clone() };
        let to = folder.path().join("came");
        let refused = alice.client.download(&pointer, &to, |_, _| {}).await;
        assert!(matches!(refused, Err(TransferError::Server(ServerError::NotFound))), "{path}");
    }
}
