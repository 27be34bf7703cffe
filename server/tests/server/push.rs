//! Waking devices that are away: when, how often, and what a push service sees of it.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use prost::Message;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_postgres::{NoTls, connect};
use tuckseal::service::{
    PushOffer, PushRegistration, ServerInfo, WebPush, push_registration::Target,
};
use tuckseal_server::config::Limits;

use crate::nodes::Cluster;
use crate::peers::{Peer, python, script};
use crate::stores::{BusServer, Database};
use crate::world::{PATIENCE, Party, Stream, World, message, one_time_keys, refusal, rows};

/// The process that plays push service and device.
struct Endpoint {
    peer: Peer,
    port: u64,
    p256dh: Bytes,
    auth: Bytes,
}

impl Endpoint {
    async fn start() -> Option<Self> {
        let mut python = python("Web Push against an independent endpoint")?;
        let mut peer = Peer::start(python.arg(script("push_endpoint.py")));
        let said = peer.line().await;
        let bytes = |name: &str| hex::decode(said[name].as_str().unwrap()).unwrap().into();
        let port = said["port"].as_u64().unwrap();
        Some(Self { peer, port, p256dh: bytes("p256dh"), auth: bytes("auth") })
    }

    /// A subscription whose endpoint answers with this status.
    fn subscription(&self, answering: u16) -> PushRegistration {
        web(&format!("http://127.0.0.1:{}/push/{answering}", self.port), &self.p256dh, &self.auth)
    }

    async fn request(&mut self) -> Value {
        let line = self.peer.line().await;
        assert_eq!(line.get("error"), None, "{line}");
        line
    }
}

fn web(endpoint: &str, p256dh: &Bytes, auth: &Bytes) -> PushRegistration {
    let (p256dh, auth) = (p256dh.clone(), auth.clone());
    PushRegistration {
        target: Some(Target::Web(WebPush { endpoint: endpoint.into(), p256dh, auth })),
    }
}

fn quick(limits: &mut Limits) {
    (limits.push_interval_secs, limits.push_background_secs) = (1, 2);
    limits.push_unfetched_secs = 2;
}

async fn world() -> World {
    World::set(tempfile::tempdir().unwrap(), |config| {
        config.push.push_private_endpoints = true;
        config.push.push_contact = Some("mailto:op@example.org".into());
        quick(&mut config.limits);
    })
    .await
}

async fn register(party: &Party, registration: &PushRegistration) -> reqwest::Response {
    let request = party.own(Method::PUT, "/v1/push").body(registration.encode_to_vec());
    request.send().await.unwrap()
}

async fn registered(party: &Party, registration: &PushRegistration) {
    assert_eq!(register(party, registration).await.status(), StatusCode::NO_CONTENT);
}

async fn offer(party: &Party) -> PushOffer {
    let info = party.request(Method::GET, "/v1/server").send().await.unwrap();
    message::<ServerInfo>(info).await.push.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn wake_up_is_encrypted_signed_and_says_nothing() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let world = world().await;
    let bob = world.party("bob").await;
    registered(&bob, &endpoint.subscription(201)).await;
    bob.receive_text("a secret").await;
    let request = endpoint.request().await;
    assert_eq!(request["body"], "wake");
    assert_eq!((&request["encoding"], &request["topic"]), (&"aes128gcm".into(), &"wake".into()));
    assert_eq!((&request["urgency"], &request["ttl"]), (&"high".into(), &86_400.into()));
    assert_eq!(request["verified"], true);
    let claims = &request["claims"];
    assert_eq!(claims["aud"], format!("http://127.0.0.1:{}", endpoint.port));
    assert_eq!(claims["sub"], "mailto:op@example.org");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((now..=now + 24 * 3600).contains(&claims["exp"].as_u64().unwrap()));
    let key = base64::Engine::encode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        offer(&bob).await.vapid_key,
    );
    assert_eq!(request["key"], key.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_are_few_wake_ups_and_a_fetch_cancels() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let world = World::set(tempfile::tempdir().unwrap(), |config| {
        config.push.push_private_endpoints = true;
        (config.limits.push_interval_secs, config.limits.push_background_secs) = (5, 5);
    });
    let world = world.await;
    let bob = world.party("bob").await;
    registered(&bob, &endpoint.subscription(201)).await;
    let begun = std::time::Instant::now();
    for n in 0..50 {
        bob.receive_text(&n.to_string()).await;
    }
    endpoint.request().await;
    let mut wake_ups = 1;
    while !endpoint.peer.is_silent(1).await {
        wake_ups += 1;
    }
    assert!(wake_ups <= 1 + begun.elapsed().as_secs() / 5, "{wake_ups}");
    // The next one is due five seconds after the last; by then all is fetched.
    bob.receive_text("one more").await;
    let mut stream = bob.stream().await;
    let backlog = stream.backlog().await;
    stream.ack(&backlog).await;
    stream.leave().await;
    assert!(endpoint.peer.is_silent(7_000).await, "nothing waits, and somebody was woken");
    let mut submission = bob.submission(b"a receipt");
    submission.background = true;
    assert_eq!(bob.receive(&submission).await.status(), StatusCode::OK);
    assert_eq!(endpoint.request().await["urgency"], "low");
}

#[tokio::test(flavor = "multi_thread")]
async fn device_that_is_away_is_woken_once_when_its_prekeys_run_low() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let world = world().await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    registered(&bob, &endpoint.subscription(201)).await;
    bob.upload(&one_time_keys(&bob.identity, 1..=21)).await;
    alice.bundles(&bob).await;
    assert!(endpoint.peer.is_silent(1_500).await, "twenty are left");
    alice.bundles(&bob).await;
    assert_eq!(endpoint.request().await["urgency"], "low");
    for _ in 0..5 {
        alice.bundles(&bob).await;
    }
    assert!(endpoint.peer.is_silent(4_000).await, "it was woken again the same day");
    // One that is connected is told there.
    let carol = world.party("carol").await;
    registered(&carol, &endpoint.subscription(201)).await;
    let mut stream = carol.stream().await;
    stream.backlog().await;
    alice.bundles(&carol).await;
    assert_eq!(stream.key_counts().await.last_resort_uses, 1);
    assert!(endpoint.peer.is_silent(1_500).await, "it is connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn connected_device_is_woken_only_after_it_went_without_fetching_and_once() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let world = world().await;
    let bob = world.party("bob").await;
    registered(&bob, &endpoint.subscription(201)).await;
    let mut stream = bob.stream().await;
    stream.backlog().await;
    bob.receive_text("not acknowledged").await;
    stream.envelope().await;
    assert!(endpoint.peer.is_silent(1_500).await, "it is connected");
    drop(stream);
    endpoint.request().await;
    assert!(endpoint.peer.is_silent(4_000).await, "once is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn device_that_had_something_unfetched_when_the_server_stopped_is_woken() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let mut world = world().await;
    let (bob, carol) = (world.party("bob").await, world.party("carol").await);
    for party in [&bob, &carol] {
        registered(party, &endpoint.subscription(201)).await;
    }
    let (mut left, mut fetched) = (bob.stream().await, carol.stream().await);
    bob.receive_text("left").await;
    assert_eq!(left.text().await, "left");
    carol.receive_text("fetched").await;
    let envelope = fetched.envelope().await;
    fetched.ack(&[envelope]).await;
    while rows(&world.database(), "envelope") > 1 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.signal_stop();
    endpoint.request().await;
    world.ended().await;
    assert!(endpoint.peer.is_silent(200).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscription_that_is_gone_is_forgotten_and_one_that_took_its_place_is_not() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let world = world().await;
    let (bob, eve) = (world.party("bob").await, world.party("eve").await);
    let registrations = || crate::world::rows(&world.database(), "push");
    for status in [404, 410] {
        registered(&bob, &endpoint.subscription(status)).await;
        assert_eq!(registrations(), 1);
        bob.receive_text("x").await;
        endpoint.request().await;
        let forgotten = async {
            while registrations() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(crate::world::PATIENCE, forgotten).await.expect("it is kept");
    }
    // Refused for good and refused for now are no reason to forget.
    for (party, status) in [(&bob, 503), (&eve, 403)] {
        registered(party, &endpoint.subscription(status)).await;
        party.receive_text("y").await;
        endpoint.request().await;
    }
    assert_eq!(registrations(), 2);
    let gone = bob.own(Method::DELETE, "/v1/push").send().await.unwrap();
    assert_eq!((gone.status(), registrations()), (StatusCode::NO_CONTENT, 1));
}

/// The device's stream is at the first node, all else of it goes to the second.
async fn connected_to_the_first_of_two(endpoint: &Endpoint) -> (Cluster, Party, Stream) {
    let cluster = Cluster::set(2, Some(BusServer::nats().await), |config| {
        config.push.push_private_endpoints = true;
        quick(&mut config.limits);
    });
    let cluster = cluster.await;
    let bob = cluster.nodes[0].party("bob").await;
    registered(&bob, &endpoint.subscription(201)).await;
    let mut stream = bob.stream().await;
    stream.backlog().await;
    let bob = cluster.at(1, bob);
    (cluster, bob, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn device_of_a_node_that_died_is_woken_by_another() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let (_cluster, bob, mut stream) = connected_to_the_first_of_two(&endpoint).await;
    // The place is the first node's in the database; the device there gets it and does not acknowledge.
    bob.receive_text("for whoever is left").await;
    stream.envelope().await;
    endpoint.request().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn device_of_a_node_that_died_is_woken_for_what_came_shortly_before_it_would_have_been() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let (_cluster, bob, mut stream) = connected_to_the_first_of_two(&endpoint).await;
    bob.receive_text("fetched").await;
    let fetched = stream.envelope().await;
    stream.ack(&[fetched]).await;
    // What the other node means to do about the first one is due soon, and too early for the second.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    bob.receive_text("left").await;
    stream.envelope().await;
    endpoint.request().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn device_is_woken_when_a_submission_is_repeated_whose_node_woke_nobody() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let nodes = std::cell::Cell::new(0);
    let cluster = Cluster::set(2, Some(BusServer::nats().await), |config| {
        config.push.push_private_endpoints = true;
        quick(&mut config.limits);
        if nodes.replace(nodes.get() + 1) == 0 {
            // As one that is killed as soon as it has committed.
            config.limits.push_delay_secs = 1_000_000;
        }
    });
    let cluster = cluster.await;
    let bob = cluster.nodes[0].party("bob").await;
    registered(&bob, &endpoint.subscription(201)).await;
    let submission = bob.submission(b"the answer to this is lost");
    assert_eq!(bob.receive(&submission).await.status(), StatusCode::OK);
    let bob = cluster.at(1, bob);
    assert_eq!(bob.receive(&submission).await.status(), StatusCode::OK);
    assert_eq!(endpoint.request().await["urgency"], "high");
    let mut stream = bob.stream().await;
    assert_eq!(stream.backlog().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn device_that_is_being_looked_up_when_the_server_stops_is_woken() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let database = Database::create().await;
    let mut world = World::set(tempfile::tempdir().unwrap(), |config| {
        config.database = Some(database.setting().parse().unwrap());
        config.push.push_private_endpoints = true;
    })
    .await;
    let bob = world.party("bob").await;
    registered(&bob, &endpoint.subscription(201)).await;
    let (client, connection) = connect(&database.setting(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN; LOCK TABLE push IN ACCESS EXCLUSIVE MODE").await.unwrap();
    bob.receive_text("left").await;
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'push'::regclass AND NOT granted";
    let looked_up = async {
        while client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, looked_up).await.expect("it is not looked up");
    world.signal_stop();
    while TcpStream::connect(world.address).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(endpoint.request().await["urgency"], "high");
    world.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_beyond_the_line_of_their_host_are_woken_when_the_server_stops() {
    const DEVICES: usize = 60;
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let mut world = World::set(tempfile::tempdir().unwrap(), |config| {
        config.push.push_private_endpoints = true;
        config.limits.push_delay_secs = 1_000_000;
        config.limits.shutdown_secs = 60;
    })
    .await;
    for n in 0..DEVICES {
        let party = world.party(&format!("party{n}")).await;
        registered(&party, &endpoint.subscription(201)).await;
        party.receive_text("x").await;
    }
    world.signal_stop();
    for _ in 0..DEVICES {
        endpoint.request().await;
    }
    world.ended().await;
}

/// An endpoint that accepts connections and says nothing. Tells of each connection, and of its end.
async fn silent_endpoint() -> (String, UnboundedReceiver<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let tell = tell.clone();
            let _ = tell.send(true);
            tokio::spawn(async move {
                let mut bytes = [0; 1024];
                while matches!(socket.read(&mut bytes).await, Ok(1..)) {}
                let _ = tell.send(false);
            });
        }
    });
    (format!("http://localhost:{}/push", address.port()), told)
}

#[tokio::test(flavor = "multi_thread")]
async fn push_service_that_keeps_silent_keeps_the_devices_of_no_other_waiting() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let (silent, mut connections) = silent_endpoint().await;
    let world = world().await;
    let bob = world.party("bob").await;
    registered(&bob, &endpoint.subscription(201)).await;
    let silent = web(&silent, &endpoint.p256dh, &endpoint.auth);
    let (world, silent) = (&world, &silent);
    // More than are woken at the same time.
    let crowd = stream::iter(0..300).map(|n| async move {
        let party = world.party(&format!("crowd{n}")).await;
        registered(&party, silent).await;
        party
    });
    let crowd: Vec<Party> = crowd.buffer_unordered(16).collect().await;
    let messages = stream::iter(crowd).map(|party| async move { party.receive_text("x").await });
    messages.buffer_unordered(16).collect::<Vec<()>>().await;
    // All are due, and one of them at least is on its way.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert!(timeout(PATIENCE, connections.recv()).await.unwrap().unwrap());
    while connections.try_recv().is_ok() {}
    bob.receive_text("x").await;
    endpoint.request().await;
    // Nobody had to give up first; a few may have.
    let ended = std::iter::from_fn(|| connections.try_recv().ok()).filter(|open| !open).count();
    assert!(ended < 16, "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_in_an_inner_network_and_what_is_no_subscription_are_refused() {
    let world = World::with(|limits| limits.push_burst = 13).await;
    let bob = world.party("bob").await;
    let key = offer(&bob).await.vapid_key;
    let auth = Bytes::from_static(&[7; 16]);
    let refused = [
        web("https://127.0.0.1/x", &key, &auth),
        web("https://169.254.169.254/latest/meta-data", &key, &auth),
        web("https://[::1]:5432/", &key, &auth),
        web("http://push.example/x", &key, &auth),
        web("https://user:pw@push.example/x", &key, &auth),
        web("file:///etc/passwd", &key, &auth),
        web(&format!("https://push.example/{}", "x".repeat(1024)), &key, &auth),
        web("https://push.example/x", &Bytes::from_static(&[4; 65]), &auth),
        web("https://push.example/x", &key, &Bytes::from_static(&[7; 15])),
        PushRegistration { target: Some(Target::Apns("00ff".into())) },
        PushRegistration { target: Some(Target::Fcm("token".into())) },
        PushRegistration { target: None },
    ];
    for registration in &refused {
        assert_eq!(refusal(register(&bob, registration).await).await, 400, "{registration:?}");
    }
    registered(&bob, &web("https://push.example/x", &key, &auth)).await;
    assert_eq!(refusal(register(&bob, &refused[0]).await).await, 429);
    let anonymous = bob.request(Method::PUT, "/v1/push").send().await.unwrap();
    assert_eq!(refusal(anonymous).await, 401);
}
