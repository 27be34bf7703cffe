//! Junk to every resource and every frame: refused with a 4xx or a closed connection, and nothing is changed.

use std::net::SocketAddr;

use futures_util::SinkExt;
use prost::Message;
use rand::Rng;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tuckseal::service::{Ack, ClientFrame, client_frame};

use crate::devices;
use crate::world::{PATIENCE, Party, World, one_time_keys, random, refusal, rows};

const TABLES: [&str; 7] =
    ["account", "device", "prekey_once", "prekey_fixed", "mailbox", "envelope", "submission"];

struct Scene {
    world: World,
    alice: Party,
    bob: Party,
    before: Vec<i64>,
}

impl Scene {
    async fn set() -> Self {
        let world = World::with(|limits| {
            limits.fetch_caller_burst = 1_000_000;
            limits.lookup_burst = 1_000_000;
            limits.link_burst = 1_000_000;
        })
        .await;
        let (alice, bob) = (world.party("alice").await, world.party("bob").await);
        bob.upload(&one_time_keys(&bob.identity, 1..=3)).await;
        bob.receive_text("there already").await;
        let mut scene = Self { world, alice, bob, before: Vec::new() };
        scene.before = scene.counts();
        scene
    }

    fn counts(&self) -> Vec<i64> {
        let db = self.world.database();
        TABLES.iter().map(|table| rows(&db, table)).collect()
    }

    /// Nothing was stored or taken, and the server still works.
    async fn unchanged(&self) {
        assert_eq!(self.counts(), self.before);
        let ready = self.alice.request(Method::GET, "/readyz").send().await.unwrap();
        assert_eq!(ready.status(), StatusCode::OK);
        assert_eq!(self.bob.stream().await.backlog().await.len(), 1);
    }
}

fn assert_refused(status: StatusCode, what: &str) {
    assert!(status.is_client_error(), "{what}: {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_and_truncated_bodies_are_refused() {
    let scene = Scene::set().await;
    let (alice, bob) = (&scene.alice, &scene.bob);
    let registration = alice.signed(&alice.registration().await).encode_to_vec();
    let keys = one_time_keys(&alice.identity, 10..=12).encode_to_vec();
    let submission = bob.submission(b"never whole").encode_to_vec();
    let messages = format!("/v1/messages/{}", bob.account_text());
    let further = devices::further(alice);
    let device = devices::registration(&further, &devices::open(alice).await);
    let resources = [
        (Method::POST, "/v1/accounts", registration),
        (Method::POST, "/v1/devices", devices::signed(&further, &device).encode_to_vec()),
        (Method::PUT, "/v1/keys", keys),
        (Method::PUT, &messages, submission),
    ];
    for (method, path, whole) in &resources {
        let mut bodies: Vec<Vec<u8>> = (0..whole.len())
            .step_by(whole.len().div_ceil(40))
            .map(|n| whole[..n].to_vec())
            .collect();
        // An upload that ends between two keys is an upload of fewer keys: not junk.
        bodies.retain(|body| {
            path != &"/v1/keys" || tuckseal::service::KeysUpload::decode(&body[..]).is_err()
        });
        bodies.extend((1..60).map(|n| {
            // A field of wire type 7, which there is not, and noise.
            let mut noise = vec![0xFF; n];
            rand::rng().fill_bytes(&mut noise[1..]);
            noise
        }));
        for body in bodies {
            let response = alice.own(method.clone(), path).body(body).send().await.unwrap();
            assert_refused(refusal(response).await, path);
        }
    }
    scene.unchanged().await;
    // A name that is cut short is a name; what is no message is none.
    for body in [&[0x0A][..], &[0x0A, 9, 1], &[0xFF; 9], &vec![0x0A; 4_000]] {
        let named = alice.own(Method::PUT, "/v1/devices/1/name").body(body.to_vec());
        assert_refused(refusal(named.send().await.unwrap()).await, "a name");
    }
    assert!(devices::list(alice).await[0].name.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_that_happens_to_decode_is_refused_too() {
    let scene = Scene::set().await;
    let messages = format!("/v1/messages/{}", scene.bob.account_text());
    for seed in 0..300u32 {
        let body: Vec<u8> = (0..seed % 40).map(|_| (rand::rng().next_u32() % 32) as u8).collect();
        for (method, path) in [
            (Method::POST, "/v1/accounts"),
            (Method::POST, "/v1/devices"),
            (Method::PUT, &messages),
        ] {
            let response = scene.alice.own(method, path).body(body.clone()).send().await.unwrap();
            assert_refused(response.status(), path);
        }
    }
    scene.unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_methods_paths_types_and_headers_are_refused() {
    let scene = Scene::set().await;
    let (alice, bob) = (&scene.alice, &scene.bob);
    let messages = format!("/v1/messages/{}", bob.account_text());
    let bundles = format!("/v1/keys/{}/1", bob.account_text());
    let paths = [
        "/v1/server",
        "/v1/challenges",
        "/v1/accounts",
        "/v1/devices",
        "/v1/devices/links",
        "/v1/devices/1/name",
        "/v1/devices/links/00112233445566778899aabbccddeeff",
        "/v1/keys",
        &bundles,
        "/v1/certificates/sender",
        "/v1/usernames/bob",
        &messages,
        "/v1/stream",
        "/healthz",
    ];
    for path in paths {
        for method in
            [Method::DELETE, Method::PATCH, Method::TRACE, Method::from_bytes(b"BREW").unwrap()]
        {
            let response = alice.own(method, path).send().await.unwrap();
            assert_eq!(refusal(response).await, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }
    for path in [
        "/",
        "/v1",
        "/v2/keys",
        "/v1/keys/",
        "/v1/messages",
        "/v1/messages/",
        "/v1/keys/a/b/c",
        "//",
        "/v1/../v1/server/x",
        "/%00",
    ] {
        let response = alice.own(Method::GET, path).send().await.unwrap();
        assert_refused(refusal(response).await, path);
    }
    for account in
        ["x", "%F0%9F%98%80", "%FF%FE", &"a".repeat(3000), "00000000-0000-0000-0000-00000000000g"]
    {
        for (method, path) in [
            (Method::PUT, format!("/v1/messages/{account}")),
            (Method::GET, format!("/v1/keys/{account}/*")),
        ] {
            let response = alice
                .own(method, &path)
                .body(bob.submission(b"x").encode_to_vec())
                .send()
                .await
                .unwrap();
            assert_refused(refusal(response).await, &path);
        }
    }
    not_utf8(alice).await;
    let json = alice
        .http
        .put(format!("http://{}{messages}", alice.address))
        .header("content-type", "application/json");
    let json =
        json.header("access-key", bob.access_header()).body(bob.submission(b"x").encode_to_vec());
    assert_eq!(refusal(json.send().await.unwrap()).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let plain = alice.own(Method::GET, "/v1/stream").send().await.unwrap();
    assert_eq!(refusal(plain).await, StatusCode::BAD_REQUEST);
    for key in ["", "AAAA", "%%%", &"A".repeat(5000)] {
        let response =
            alice.request(Method::PUT, &messages).header("access-key", key).send().await.unwrap();
        assert_refused(response.status(), "access-key");
    }
    scene.unchanged().await;
}

/// Whatever part of a path is no text.
async fn not_utf8(alice: &Party) {
    for (method, path) in [
        (Method::PUT, "/v1/messages/%FF"),
        (Method::GET, "/v1/keys/%FF/*"),
        (Method::GET, "/v1/keys/00000000-0000-0000-0000-000000000000/%FF"),
        (Method::GET, "/v1/usernames/%FF"),
        (Method::GET, "/v1/devices/links/%FF"),
        (Method::PUT, "/v1/devices/%FF/name"),
        (Method::DELETE, "/v1/devices/%FF"),
        (Method::GET, "/v1/attachments/%FF"),
        (Method::PATCH, "/v1/attachments/%FF"),
        (Method::DELETE, "/v1/attachments/%FF"),
        (Method::GET, "/v2/%FF"),
    ] {
        let response = alice.own(method, path).send().await.unwrap();
        assert_refused(refusal(response).await, path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_bodies_are_refused_everywhere() {
    let scene = Scene::set().await;
    let messages = format!("/v1/messages/{}", scene.bob.account_text());
    for (method, path) in [
        (Method::POST, "/v1/accounts"),
        (Method::POST, "/v1/devices"),
        (Method::PUT, "/v1/devices/1/name"),
        (Method::PUT, "/v1/keys"),
        (Method::PUT, &messages),
    ] {
        let response = scene.alice.own(method, path).body(vec![0x0A; 5_000_000]).send().await;
        // The server may close before it has all of it: then there is no answer to read.
        if let Ok(response) = response {
            assert_eq!(refusal(response).await, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        }
    }
    scene.unchanged().await;
}

/// Sends bytes on a bare socket and reads what comes back until the server closes.
async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The server may close while this is written.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ =
        tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("left open");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http_are_refused() {
    let scene = Scene::set().await;
    let address = scene.world.address;
    let long_head = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 100_000], b"\r\n\r\n"].concat();
    let heads: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PUT /v1/keys HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"PUT /v1/keys HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"GET /v1/keys HTTP/1.1\r\nauthorization: Bearer \xff\xfe\r\nconnection: close\r\n\r\n",
        b"GET /healthz\0 HTTP/1.1\r\n\r\n",
        &long_head,
    ];
    for head in heads {
        let answer = raw(address, head).await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    for _ in 0..50 {
        let answer = raw(address, &[&random::<200>()[..], b"\r\n\r\n"].concat()).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"));
    }
    scene.unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_does_not_come_to_an_end_is_closed() {
    let world = World::with(|limits| {
        limits.header_timeout_secs = 1;
        limits.body_timeout_secs = 1;
    })
    .await;
    let head = raw(world.address, b"GET /healthz HTTP/1.1\r\nx: ").await;
    assert!(head.is_empty() || head.starts_with(b"HTTP/1.1 408"));
    let body = raw(world.address, b"POST /v1/accounts HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\nabc").await;
    assert!(body.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&body));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_frames_close_the_stream() {
    let scene = Scene::set().await;
    let truncated_ack = {
        let ids = vec![bytes::Bytes::copy_from_slice(&random::<16>())];
        let frame =
            ClientFrame { body: Some(client_frame::Body::Ack(Ack { ids })) }.encode_to_vec();
        frame[..frame.len() - 3].to_vec()
    };
    let short_id = ClientFrame {
        body: Some(client_frame::Body::Ack(Ack { ids: vec![bytes::Bytes::from_static(b"short")] })),
    };
    let frames = [
        (Frame::Binary(vec![0xFF; 30].into()), Some(1007)),
        (Frame::Binary(bytes::Bytes::new()), Some(1007)),
        (Frame::Binary(truncated_ack.into()), Some(1007)),
        (Frame::Binary(short_id.encode_to_vec().into()), Some(1007)),
        (Frame::Text("hello".into()), Some(1003)),
    ];
    for (frame, code) in frames {
        let mut stream = scene.bob.stream().await;
        stream.socket.send(frame.clone()).await.unwrap();
        assert_eq!(stream.closed().await, code, "{frame:?}");
    }
    let mut stream = scene.bob.stream().await;
    // The server may close before it has all of it.
    let _ = stream.socket.send(Frame::Binary(vec![0; 1_048_577].into())).await;
    assert!(matches!(stream.closed().await, None | Some(1002 | 1009)));
    scene.unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_frames_close_the_stream() {
    let scene = Scene::set().await;
    for n in 0..20usize {
        let mut socket = TcpStream::connect(scene.world.address).await.unwrap();
        let request = format!(
            "GET /v1/stream HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nauthorization: {}\r\n\r\n",
            scene.bob.bearer()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        // Reserved bits or an unmasked frame first, then noise.
        let first: u8 = if n % 2 == 0 { 0xF2 } else { 0x82 };
        socket.write_all(&[&[first, 0x05], &random::<64>()[..]].concat()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer))
            .await
            .expect("left open");
        assert!(answer.starts_with(b"HTTP/1.1 101"));
    }
    scene.unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledging_what_is_not_ones_own_deletes_nothing() {
    let scene = Scene::set().await;
    let envelope = scene.bob.stream().await.backlog().await.remove(0);
    let mut stream = scene.alice.stream().await;
    stream.ack(std::slice::from_ref(&envelope)).await;
    let made_up = tuckseal::service::Envelope {
        id: bytes::Bytes::copy_from_slice(&random::<16>()),
        ..envelope
    };
    stream.ack(&[made_up]).await;
    stream.leave().await;
    scene.unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_without_a_valid_token_is_not_opened() {
    let scene = Scene::set().await;
    let mut stranger = Party::new(scene.world.address, "x");
    stranger.account = scene.bob.account;
    assert!(stranger.try_stream().await.is_err());
    scene.unchanged().await;
}
