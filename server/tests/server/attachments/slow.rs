//! Downloads from a bucket by readers that are slow and by readers that stall.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tuckseal::service::AttachmentSlot;

use super::{patch, slot};
use crate::world::{PATIENCE, Party, World};

const PIECE: usize = 4 * 1024 * 1024;
const SIZE: usize = 5 * PIECE;
const CHUNK: usize = 64 * 1024;
const LIMIT_SECS: u64 = 2;

/// As much of S3 as the relay uses, and how many answers it is reading.
#[derive(Clone, Default)]
struct Bucket {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    open: Arc<AtomicUsize>,
    /// The end of each piece but the first does not come: otherwise the sockets between would take it in.
    holds_back: Arc<AtomicBool>,
}

/// An answer of which not all was taken.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Bucket {
    async fn start() -> (Self, String) {
        let bucket = Self::default();
        let router = Router::new().fallback(answer).with_state(bucket.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (bucket, endpoint)
    }

    fn list(&self) -> Response {
        let object = |(key, bytes): (&String, &Bytes)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 <ETag>\"1\"</ETag><Size>{}</Size></Contents>",
                bytes.len()
            )
        };
        let objects: String = self.objects.lock().unwrap().iter().map(object).collect();
        format!("<ListBucketResult>{objects}</ListBucketResult>").into_response()
    }

    fn get(&self, key: &str) -> Response {
        let Some(bytes) = self.objects.lock().unwrap().get(key).cloned() else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let (length, open) = (bytes.len(), Open::count(&self.open));
        let holds_back =
            self.holds_back.load(Ordering::SeqCst) && !key.ends_with("/0000000000000000");
        let chunks = stream::unfold((bytes, open), move |(mut bytes, open)| async move {
            // A bucket far away.
            sleep(Duration::from_millis(1)).await;
            if holds_back && bytes.len() <= CHUNK {
                std::future::pending::<()>().await;
            }
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            (!chunk.is_empty()).then_some((Ok::<_, std::io::Error>(chunk), (bytes, open)))
        });
        // Only whole pieces are asked for here.
        let range = format!("bytes 0-{}/{length}", length - 1);
        let headers = [("content-length", length.to_string()), ("content-range", range)];
        (StatusCode::PARTIAL_CONTENT, headers, Body::from_stream(chunks)).into_response()
    }
}

async fn answer(State(bucket): State<Bucket>, request: Request) -> Response {
    let key = request.uri().path().trim_start_matches("/attachments").trim_start_matches('/');
    let key = key.to_owned();
    match *request.method() {
        Method::PUT => {
            let bytes = axum::body::to_bytes(request.into_body(), PIECE).await.unwrap();
            bucket.objects.lock().unwrap().insert(key, bytes);
            [("etag", "\"1\"")].into_response()
        }
        Method::GET if key.is_empty() => bucket.list(),
        _ => bucket.get(&key),
    }
}

fn content() -> Vec<u8> {
    (0..SIZE).map(|n| (n / 1000 % 251) as u8).collect()
}

async fn world() -> (World, Bucket, Party, AttachmentSlot) {
    let (bucket, endpoint) = Bucket::start().await;
    let world = World::set(tempfile::tempdir().unwrap(), |config| {
        let secret = config.data_dir.join("s3-secret");
        std::fs::write(&secret, "secret\n").unwrap();
        config.attachments = "s3://attachments/p".parse().unwrap();
        config.s3.s3_endpoint = Some(endpoint);
        config.s3.s3_access_key_id = Some("id".into());
        config.s3.s3_secret_key_file = Some(secret);
        config.limits.stream_write_secs = LIMIT_SECS;
    });
    let world = world.await;
    let alice = world.party("alice").await;
    let slot = slot(&alice, SIZE).await;
    assert_eq!(patch(&alice, &slot, 0, &content()).await.status(), StatusCode::NO_CONTENT);
    (world, bucket, alice, slot)
}

/// A download that was begun, by a reader whose system takes little on its own.
async fn begun(alice: &Party, slot: &AttachmentSlot) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut socket = socket.connect(alice.address).await.unwrap();
    let head = format!("GET {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", slot.download);
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 15];
    socket.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_that_stalls_is_disconnected_and_what_was_read_for_it_is_let_go() {
    let (_world, bucket, alice, slot) = world().await;
    bucket.holds_back.store(true, Ordering::SeqCst);
    let mut socket = begun(&alice, &slot).await;
    let is_read = || bucket.open.load(Ordering::SeqCst) > 0;
    let released = async {
        while !is_read() {
            sleep(Duration::from_millis(1)).await;
        }
        while is_read() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, released).await.expect("the bucket is still being read");
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("it is still open");
    assert!(rest.len() < SIZE);
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_that_is_slow_gets_all_of_it() {
    let (_world, _bucket, alice, slot) = world().await;
    let mut socket = begun(&alice, &slot).await;
    let mut rest = Vec::new();
    // Longer than the limit in all.
    for _ in 0..15 {
        let mut some = vec![0; SIZE / 20];
        let read = socket.read_exact(&mut some).await.unwrap();
        rest.extend_from_slice(&some[..read]);
        sleep(Duration::from_millis(1000 * LIMIT_SECS / 10)).await;
    }
    socket.read_to_end(&mut rest).await.unwrap();
    let all = content();
    assert!(rest.ends_with(&all));
}
