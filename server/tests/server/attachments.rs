//! Attachments: what was uploaded in parts comes back whole or in ranges, by capability alone. All of it in a folder
//! and in a bucket.

mod slow;

use std::process::Stdio;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tuckseal::service::AttachmentSlot;
use tuckseal_server::Config;
use tuckseal_server::config::Limits;
use tuckseal_server::storage::{AttachmentBucket, AttachmentName, AttachmentStore, Uploaded};

use crate::peers::{Peer, python, script};
use crate::world::{PATIENCE, Party, World, refusal};

pub(crate) const SIZE: usize = 300_000;
const DAY: i64 = 86_400_000;

/// A server of S3 with one bucket.
pub(crate) struct S3 {
    peer: Peer,
    pub(crate) endpoint: String,
    pub(crate) id: String,
    pub(crate) folder: TempDir,
}

impl S3 {
    pub(crate) async fn start() -> Option<Self> {
        let mut python = python("attachments in a bucket of an independent server of S3")?;
        let mut peer = Peer::start(python.stdin(Stdio::piped()).arg(script("s3.py")));
        let said = peer.line().await;
        let text = |name: &str| said[name].as_str().unwrap().to_owned();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), format!("{}\n", text("secret"))).unwrap();
        Some(Self { peer, endpoint: text("endpoint"), id: text("id"), folder })
    }

    pub(crate) fn set(&self, config: &mut Config) {
        config.attachments = "s3://attachments/some/prefix".parse().unwrap();
        config.s3.s3_endpoint = Some(self.endpoint.clone());
        config.s3.s3_access_key_id = Some(self.id.clone());
        config.s3.s3_secret_key_file = Some(self.folder.path().join("secret"));
    }

    pub(crate) async fn keys(&mut self) -> Vec<String> {
        serde_json::from_value(self.peer.ask().await).unwrap()
    }

    pub(crate) fn bucket(&self, memory_kib: u64) -> AttachmentBucket {
        let mut config = Config::new(self.folder.path());
        self.set(&mut config);
        let tuckseal_server::config::AttachmentPlace::Bucket(place) = &config.attachments else {
            panic!("a folder")
        };
        AttachmentBucket::new(place, &config.s3, memory_kib).unwrap()
    }
}

pub(crate) enum Place {
    Folder,
    Bucket(Box<S3>),
}

impl Place {
    pub(crate) async fn world(&self, change: impl Fn(&mut Limits)) -> World {
        self.on(tempfile::tempdir().unwrap(), change).await
    }

    async fn on(&self, folder: TempDir, change: impl Fn(&mut Limits)) -> World {
        World::set(folder, |config| {
            if let Self::Bucket(s3) = self {
                s3.set(config);
            }
            change(&mut config.limits);
        })
        .await
    }

    async fn is_empty(&mut self, world: &World) -> bool {
        match self {
            Self::Folder => !world.folder.path().join("attachments").exists(),
            Self::Bucket(s3) => s3.keys().await.is_empty(),
        }
    }
}

/// Each as a test on a folder and on a bucket.
macro_rules! on_both {
    ($($name:ident)+) => {
        mod folder {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Place::Folder).await;
            })+
        }
        mod bucket {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(s3) = super::S3::start().await {
                    super::$name(super::Place::Bucket(Box::new(s3))).await;
                }
            })+
        }
    };
}

on_both! {
    upload_that_breaks_off_goes_on_where_it_was_and_is_read_by_whoever_has_the_path
    ranges_are_the_bytes_they_name
    capability_is_for_its_use_and_its_bytes_alone
    sizes_credentials_and_versions_are_checked_before_anything_is_made
    expired_attachment_is_gone
    day_that_is_over_is_dropped_and_the_next_one_stays
    upload_outlives_a_restart
    path_of_a_hanging_upload_does_not_hold_the_shutdown
}

pub(crate) fn content() -> Vec<u8> {
    (0..SIZE).map(|n| (n * 31 % 251) as u8).collect()
}

pub(crate) fn tus(request: RequestBuilder) -> RequestBuilder {
    request.header("tus-resumable", "1.0.0")
}

pub(crate) async fn create(party: &Party, size: usize) -> Response {
    let request = tus(party.own(Method::POST, "/v1/attachments"));
    request.header("upload-length", size.to_string()).send().await.unwrap()
}

pub(crate) async fn slot(party: &Party, size: usize) -> AttachmentSlot {
    let response = create(party, size).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let slot: AttachmentSlot = prost::Message::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!(location, slot.upload);
    slot
}

/// No credential but the path.
pub(crate) fn bare(party: &Party, method: Method, path: &str) -> RequestBuilder {
    crate::world::http().request(method, format!("http://{}{path}", party.address))
}

pub(crate) async fn patch(
    party: &Party,
    slot: &AttachmentSlot,
    offset: usize,
    bytes: &[u8],
) -> Response {
    let request = tus(bare(party, Method::PATCH, &slot.upload));
    let request = request.header("content-type", "application/offset+octet-stream");
    let request = request.header("upload-offset", offset.to_string());
    request.body(bytes.to_vec()).send().await.unwrap()
}

pub(crate) async fn offset(party: &Party, slot: &AttachmentSlot) -> usize {
    let response = tus(bare(party, Method::HEAD, &slot.upload)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["cache-control"], "no-store");
    response.headers()["upload-offset"].to_str().unwrap().parse().unwrap()
}

async fn uploaded(party: &Party) -> AttachmentSlot {
    let slot = slot(party, SIZE).await;
    assert_eq!(patch(party, &slot, 0, &content()).await.status(), StatusCode::NO_CONTENT);
    slot
}

/// An upload whose request has come only so far; the connection stays open as long as it is held.
async fn hanging(party: &Party, slot: &AttachmentSlot, sent: usize) -> TcpStream {
    let mut socket = TcpStream::connect(party.address).await.unwrap();
    let head = format!(
        "PATCH {} HTTP/1.1\r\nhost: x\r\ntus-resumable: 1.0.0\r\nupload-offset: 0\r\n\
         content-type: application/offset+octet-stream\r\ncontent-length: {SIZE}\r\n\r\n",
        slot.upload
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&content()[..sent]).await.unwrap();
    socket
}

async fn has_come(party: &Party, slot: &AttachmentSlot, bytes: usize) {
    while offset(party, slot).await < bytes {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn upload_that_breaks_off_goes_on_where_it_was_and_is_read_by_whoever_has_the_path(
    place: Place,
) {
    let world = place.world(|_| ()).await;
    let alice = world.party("alice").await;
    let slot = slot(&alice, SIZE).await;
    let early = bare(&alice, Method::GET, &slot.download).send().await.unwrap();
    assert_eq!(refusal(early).await, StatusCode::NOT_FOUND);

    drop(hanging(&alice, &slot, 100_000).await);
    // The server notices that the connection broke, keeps what came, and gives the upload free.
    has_come(&alice, &slot, 100_000).await;
    let rest = loop {
        let response = patch(&alice, &slot, 100_000, &content()[100_000..]).await;
        if response.status() != StatusCode::LOCKED {
            break response;
        }
    };
    assert_eq!(rest.status(), StatusCode::NO_CONTENT);
    assert_eq!(rest.headers()["upload-offset"], SIZE.to_string());
    assert_eq!(offset(&alice, &slot).await, SIZE);
    // The answer to the last part was lost: asking again is no error.
    assert_eq!(patch(&alice, &slot, SIZE, b"").await.status(), StatusCode::NO_CONTENT);
    let read = bare(&alice, Method::GET, &slot.download).send().await.unwrap();
    assert_eq!(read.bytes().await.unwrap(), content());
}

async fn ranges_are_the_bytes_they_name(place: Place) {
    let world = place.world(|_| ()).await;
    let alice = world.party("alice").await;
    let slot = uploaded(&alice).await;
    let all = content();
    for (range, bytes) in [
        ("bytes=0-0", &all[..1]),
        ("bytes=1000-1999", &all[1000..2000]),
        ("bytes=299990-", &all[299_990..]),
        ("bytes=-7", &all[SIZE - 7..]),
        ("bytes=299999-400000", &all[SIZE - 1..]),
    ] {
        let request = bare(&alice, Method::GET, &slot.download).header("range", range);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let first = SIZE - bytes.len();
        let place = response.headers()["content-range"].to_str().unwrap().to_owned();
        assert!(
            place.ends_with("/300000") && (first == 0 || place.starts_with("bytes ")),
            "{place}"
        );
        assert_eq!(response.bytes().await.unwrap(), bytes, "{range}");
    }
    for ignored in ["bytes=5-4", "bytes=0-1,5-6", "lines=0-1", "bytes=a-b"] {
        let request = bare(&alice, Method::GET, &slot.download).header("range", ignored);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{ignored}");
        assert_eq!(response.bytes().await.unwrap().len(), SIZE);
    }
    let beyond = bare(&alice, Method::GET, &slot.download).header("range", "bytes=300000-");
    let beyond = beyond.send().await.unwrap();
    assert_eq!(beyond.headers()["content-range"], "bytes */300000");
    assert_eq!(refusal(beyond).await, StatusCode::RANGE_NOT_SATISFIABLE);
    let head = bare(&alice, Method::HEAD, &slot.download).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], SIZE.to_string());
}

async fn capability_is_for_its_use_and_its_bytes_alone(place: Place) {
    let world = place.world(|_| ()).await;
    let alice = world.party("alice").await;
    let slot = slot(&alice, SIZE).await;
    let swapped = AttachmentSlot { upload: slot.download.clone(), ..slot.clone() };
    assert_eq!(refusal(patch(&alice, &swapped, 0, b"x").await).await, StatusCode::NOT_FOUND);
    let read = bare(&alice, Method::GET, &slot.upload).send().await.unwrap();
    assert_eq!(refusal(read).await, StatusCode::NOT_FOUND);
    for bad in ["", "x", "..", "%2e%2e%2flock", &"A".repeat(66), &slot.upload[16..80]] {
        let read = bare(&alice, Method::GET, &format!("/v1/attachments/{bad}"));
        let status = refusal(read.send().await.unwrap()).await;
        assert!(matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED), "{bad}");
    }
    let other = slot_of(&slot, 20);
    assert_eq!(refusal(patch(&alice, &other, 0, b"x").await).await, StatusCode::NOT_FOUND);
    let much = patch(&alice, &slot, 0, &[content(), vec![0]].concat()).await;
    assert_eq!(refusal(much).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refusal(patch(&alice, &slot, 5, b"x").await).await, StatusCode::CONFLICT);
    assert_eq!(offset(&alice, &slot).await, 0);
    let gone = tus(bare(&alice, Method::DELETE, &slot.upload)).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    assert_eq!(refusal(patch(&alice, &slot, 0, b"x").await).await, StatusCode::NOT_FOUND);
}

/// The same capability with one changed character.
fn slot_of(slot: &AttachmentSlot, at: usize) -> AttachmentSlot {
    let mut upload = slot.upload.clone().into_bytes();
    upload[at] = if upload[at] == b'A' { b'B' } else { b'A' };
    AttachmentSlot { upload: String::from_utf8(upload).unwrap(), ..slot.clone() }
}

async fn sizes_credentials_and_versions_are_checked_before_anything_is_made(mut place: Place) {
    let world = place
        .world(|limits| {
            limits.max_attachment_bytes = 1024 * 1024;
            limits.attachment_burst_kib = 1500;
            limits.attachment_kib_per_hour = 1;
        })
        .await;
    let alice = world.party("alice").await;
    let status = |response| async move { refusal(response).await };
    assert_eq!(status(create(&alice, 1024 * 1024 + 1).await).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(status(create(&alice, 0).await).await, StatusCode::BAD_REQUEST);
    let bare = tus(alice.request(Method::POST, "/v1/attachments")).header("upload-length", "5");
    assert_eq!(status(bare.send().await.unwrap()).await, StatusCode::UNAUTHORIZED);
    let old = alice.own(Method::POST, "/v1/attachments").header("upload-length", "5");
    let old = old.send().await.unwrap();
    assert_eq!(old.headers()["tus-version"], "1.0.0");
    assert_eq!(status(old).await, StatusCode::PRECONDITION_FAILED);
    assert!(place.is_empty(&world).await);
    let options = alice.request(Method::OPTIONS, "/v1/attachments").send().await.unwrap();
    assert_eq!(options.headers()["tus-max-size"], "1048576");
    slot(&alice, 1024 * 1024).await;
    let over = create(&alice, 1024 * 1024).await;
    assert!(over.headers().contains_key("retry-after"));
    assert_eq!(status(over).await, StatusCode::TOO_MANY_REQUESTS);
}

async fn expired_attachment_is_gone(place: Place) {
    let world = place.world(|limits| limits.attachment_ttl_secs = 1).await;
    let alice = world.party("alice").await;
    let slot = uploaded(&alice).await;
    while bare(&alice, Method::GET, &slot.download).send().await.unwrap().status() == StatusCode::OK
    {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let read = bare(&alice, Method::GET, &slot.download).send().await.unwrap();
    assert_eq!(refusal(read).await, StatusCode::NOT_FOUND);
}

async fn upload_outlives_a_restart(place: Place) {
    let world = place.world(|_| ()).await;
    let mut alice = world.party("alice").await;
    let slot = slot(&alice, SIZE).await;
    patch(&alice, &slot, 0, &content()[..1000]).await;
    let world = place.on(world.stop().await, |_| ()).await;
    alice.address = world.address;
    assert_eq!(offset(&alice, &slot).await, 1000);
    patch(&alice, &slot, 1000, &content()[1000..]).await;
    let read = bare(&alice, Method::GET, &slot.download).send().await.unwrap();
    assert_eq!(message_bytes(read).await, content());
}

pub(crate) async fn message_bytes(response: Response) -> Vec<u8> {
    assert_eq!(response.status(), StatusCode::OK);
    response.bytes().await.unwrap().to_vec()
}

async fn day_that_is_over_is_dropped_and_the_next_one_stays(mut place: Place) {
    let folder = tempfile::tempdir().unwrap();
    let store = match &place {
        Place::Folder => AttachmentStore::folder(folder.path().join("attachments")),
        Place::Bucket(s3) => AttachmentStore::Bucket(s3.bucket(1024)),
    };
    let name = |day: i64| AttachmentName { id: [7; 16], expires_ms: day * DAY + 5, size: 3 };
    for day in [20_000, 20_001] {
        store.create(name(day)).await.unwrap();
        let (mut upload, _) = store.resume(name(day)).await.unwrap();
        upload.write("abc".into()).await.unwrap();
        upload.finish().await.unwrap();
    }
    assert_eq!(store.purge(20_000 * DAY + DAY - 1).await.unwrap(), 0);
    assert_eq!(store.purge(20_001 * DAY).await.unwrap(), 1);
    let gone = store.uploaded(name(20_000)).await.unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(store.uploaded(name(20_001)).await.unwrap(), Uploaded::Whole(3));
    store.remove(name(20_001)).await.unwrap();
    assert!(store.open(name(20_001)).await.is_err());
    if let Place::Bucket(s3) = &mut place {
        assert!(s3.keys().await.is_empty());
    }
}

#[tokio::test]
async fn what_is_not_the_relays_own_stays_and_what_cannot_be_dropped_keeps_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let photos = ["2024", "100", "-5", "tuckseal-", "tuckseal-x", "tuckseal-0100", "tuckseal-+100"];
    for name in photos {
        std::fs::create_dir(root.join(name)).unwrap();
        std::fs::write(root.join(name).join("photo"), "a photo").unwrap();
    }
    let store = AttachmentStore::folder(root.into());
    let name = |day: i64| AttachmentName { id: [7; 16], expires_ms: day * DAY, size: 3 };
    for day in 100..120 {
        store.create(name(day)).await.unwrap();
    }
    // A file in the place of a day.
    std::fs::write(root.join("tuckseal-99"), "").unwrap();
    store.purge(20_000 * DAY).await.unwrap_err();
    for day in 100..120 {
        assert!(store.uploaded(name(day)).await.is_err(), "{day}");
    }
    for name in photos {
        assert!(root.join(name).join("photo").exists(), "{name}");
    }
    std::fs::remove_file(root.join("tuckseal-99")).unwrap();
    assert_eq!(store.purge(20_000 * DAY).await.unwrap(), 0);
}

async fn path_of_a_hanging_upload_does_not_hold_the_shutdown(place: Place) {
    let mut world = place.world(|limits| limits.shutdown_secs = 1).await;
    let alice = world.party("alice").await;
    let slot = slot(&alice, SIZE).await;
    let socket = hanging(&alice, &slot, 10).await;
    world.signal_stop();
    // A body may take longer than this waits.
    assert!(Duration::from_secs(Config::new("").limits.body_timeout_secs) > PATIENCE);
    world.ended().await;
    drop(socket);
}

#[tokio::test(flavor = "multi_thread")]
async fn file_has_one_writer_at_a_time() {
    let world = World::start().await;
    let alice = world.party("alice").await;
    let slot = slot(&alice, SIZE).await;
    let writing = hanging(&alice, &slot, 100_000).await;
    has_come(&alice, &slot, 100_000).await;
    assert_eq!(refusal(patch(&alice, &slot, 100_000, b"x").await).await, StatusCode::LOCKED);
    drop(writing);
}
