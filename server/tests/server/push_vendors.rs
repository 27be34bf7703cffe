//! APNs and FCM against stand-ins that check each request against what Apple and Google publish. Their own servers
//! cannot be reached from here: that they take these requests is not shown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use prost::Message;
use reqwest::Method;
use ring::signature::{self, KeyPair, UnparsedPublicKey};
use serde_json::{Value, json};
use tokio::sync::RwLock;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tuckseal::service::{PushRegistration, push_registration::Target};
use tuckseal_server::Config;

use crate::world::{PATIENCE, Party, World};

const APNS_DEVICE: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
const RSA_KEY: &str = include_str!("push/rsa.pem");
const EC_KEY: &str = include_str!("push/ec.pem");

/// What came to a stand-in.
struct Came {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone)]
struct Vendor {
    came: UnboundedSender<Came>,
    /// The answers to wake-ups that come next; 200 when there is none.
    answers: Arc<Mutex<Vec<(StatusCode, Value)>>>,
    /// The same for access tokens, which are given out when nobody holds this.
    tokens: Arc<RwLock<Vec<StatusCode>>>,
}

async fn wake(
    State(vendor): State<Vendor>,
    Path(_): Path<HashMap<String, String>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    // Before the test hears of it, and sets the next answer.
    let answer = vendor.answers.lock().unwrap().pop();
    vendor.came.send(Came { uri, headers, body }).unwrap();
    let (status, body) = answer.unwrap_or((StatusCode::OK, json!({})));
    (status, body.to_string())
}

async fn token(
    State(vendor): State<Vendor>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    vendor.came.send(Came { uri, headers, body }).unwrap();
    let granted = json!({ "access_token": "ya29.x", "expires_in": 3599, "token_type": "Bearer" });
    let status = vendor.tokens.write().await.pop().unwrap_or(StatusCode::OK);
    (status, granted.to_string())
}

/// A stand-in for both vendors, over plain HTTP/1.1 and HTTP/2.
struct StandIn {
    address: String,
    vendor: Vendor,
    came: UnboundedReceiver<Came>,
}

impl StandIn {
    async fn start() -> Self {
        let (sender, came) = unbounded_channel();
        let vendor = Vendor { came: sender, answers: Arc::default(), tokens: Arc::default() };
        let router = Router::new()
            .route("/3/device/{token}", post(wake))
            .route("/v1/projects/{project}/messages:send", post(wake))
            .route("/token", post(token))
            .with_state(vendor.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, vendor, came }
    }

    fn answer(&self, status: u16, body: Value) {
        let status = StatusCode::from_u16(status).unwrap();
        self.vendor.answers.lock().unwrap().push((status, body));
    }

    async fn request(&mut self) -> Came {
        tokio::time::timeout(PATIENCE, self.came.recv()).await.expect("nothing came").unwrap()
    }
}

fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    STANDARD.decode(lines.collect::<String>()).unwrap()
}

/// Header and claims of a token whose signature holds.
fn verified(token: &str, key: UnparsedPublicKey<Vec<u8>>) -> (Value, Value) {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let json = |text| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    (json(header), json(claims))
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs() as i64
}

async fn world(change: impl FnOnce(&mut Config)) -> World {
    World::set(tempfile::tempdir().unwrap(), |config| {
        config.limits.push_interval_secs = 1;
        config.limits.push_background_secs = 1;
        change(config);
    })
    .await
}

async fn register(party: &Party, target: Target) {
    let registration = PushRegistration { target: Some(target) };
    let request = party.own(Method::PUT, "/v1/push").body(registration.encode_to_vec());
    assert_eq!(request.send().await.unwrap().status(), 204);
}

fn write(folder: &World, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

async fn forgotten(world: &World) {
    let gone = async {
        while crate::world::rows(&world.database(), "push") > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn apns_request_is_what_apple_publishes() {
    let mut apple = StandIn::start().await;
    let keys = world(|_| ()).await;
    let key_file = write(&keys, "AuthKey.p8", EC_KEY);
    let world = world(|config| {
        config.push.apns_key_file = Some(key_file);
        config.push.apns_key_id = Some("KEY0000001".into());
        config.push.apns_team_id = Some("TEAM000001".into());
        config.push.apns_topic = Some("org.example.app".into());
        config.push.apns_server = Some(apple.address.clone());
    });
    let world = world.await;
    let bob = world.party("bob").await;
    register(&bob, Target::Apns(APNS_DEVICE.into())).await;
    bob.receive_text("a secret").await;
    let urgent = apple.request().await;
    assert_eq!(urgent.uri.path(), format!("/3/device/{APNS_DEVICE}"));
    let header = |name: &str| urgent.headers[name].to_str().unwrap().to_owned();
    let random = ring::rand::SystemRandom::new();
    let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = signature::EcdsaKeyPair::from_pkcs8(algorithm, &der(EC_KEY), &random).unwrap();
    let public = pair.public_key().as_ref().to_vec();
    let public = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, public);
    let authorization = header("authorization");
    let (head, claims) = verified(authorization.strip_prefix("bearer ").unwrap(), public);
    assert_eq!((&head["alg"], &head["kid"]), (&"ES256".into(), &"KEY0000001".into()));
    assert_eq!(claims["iss"], "TEAM000001");
    assert!((claims["iat"].as_i64().unwrap() - now()).abs() < 60);
    assert_eq!(header("apns-topic"), "org.example.app");
    assert_eq!((header("apns-push-type"), header("apns-priority")), ("alert".into(), "10".into()));
    assert!(header("apns-expiration").parse::<i64>().unwrap() > now());
    assert!(header("apns-collapse-id").len() <= 64);
    let body: Value = serde_json::from_slice(&urgent.body).unwrap();
    assert_eq!((&body["aps"]["mutable-content"], urgent.body.len() < 4096), (&1.into(), true));
    assert!(body["aps"]["alert"].is_object() && !body.to_string().contains("secret"));

    let mut receipt = bob.submission(b"receipt");
    receipt.background = true;
    bob.receive(&receipt).await;
    let quiet = apple.request().await;
    assert_eq!(
        (&quiet.headers["apns-push-type"], &quiet.headers["apns-priority"]),
        (&"background".parse().unwrap(), &"5".parse().unwrap())
    );
    assert_eq!(quiet.body, r#"{"aps":{"content-available":1}}"#);
    assert_eq!(
        quiet.headers["authorization"], urgent.headers["authorization"],
        "one token, not many"
    );

    apple.answer(410, json!({ "reason": "Unregistered", "timestamp": 1 }));
    bob.receive_text("to nobody").await;
    apple.request().await;
    forgotten(&world).await;
    register(&bob, Target::Apns(APNS_DEVICE.into())).await;
    apple.answer(400, json!({ "reason": "BadDeviceToken" }));
    bob.receive_text("to nobody").await;
    apple.request().await;
    forgotten(&world).await;
}

async fn google_world(keys: &World, google: &StandIn) -> World {
    let account = json!({
        "type": "service_account", "project_id": "a-project", "private_key_id": "key-1",
        "private_key": RSA_KEY, "client_email": "push@a-project.iam.example",
        "client_id": "1", "token_uri": format!("{}/token", google.address),
    });
    let account_file = write(keys, "account.json", &account.to_string());
    world(|config| {
        config.push.fcm_account_file = Some(account_file);
        config.push.fcm_server = Some(google.address.clone());
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn access_token_that_is_not_given_out_is_asked_for_once_for_all_who_wait() {
    const WAITING: usize = 5;
    let mut google = StandIn::start().await;
    let keys = world(|_| ()).await;
    let world = google_world(&keys, &google).await;
    let tokens = Arc::clone(&google.vendor.tokens);
    let mut answers = tokens.write().await;
    for n in 0..WAITING {
        let party = world.party(&format!("party{n}")).await;
        register(&party, Target::Fcm(format!("device{n}"))).await;
        party.receive_text("x").await;
    }
    assert_eq!(google.request().await.uri.path(), "/token");
    // All are due by then.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    answers.push(StatusCode::SERVICE_UNAVAILABLE);
    drop(answers);
    // They fail together, and are tried again together.
    let second = tokio::time::timeout(std::time::Duration::from_secs(1), google.came.recv()).await;
    assert!(second.is_err(), "another one asked at once");
    assert_eq!(google.request().await.uri.path(), "/token");
    for _ in 0..WAITING {
        assert_eq!(google.request().await.uri.path(), "/v1/projects/a-project/messages:send");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fcm_requests_are_what_google_publishes() {
    let mut google = StandIn::start().await;
    let keys = world(|_| ()).await;
    let world = google_world(&keys, &google).await;
    let token_uri = format!("{}/token", google.address);
    let bob = world.party("bob").await;
    register(&bob, Target::Fcm("device:token_-1".into())).await;
    bob.receive_text("a secret").await;
    let grant = google.request().await;
    assert_eq!(grant.uri.path(), "/token");
    assert_eq!(grant.headers["content-type"], "application/x-www-form-urlencoded");
    let body = std::str::from_utf8(&grant.body).unwrap();
    let grant_type = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    let pair = signature::RsaKeyPair::from_pkcs8(&der(RSA_KEY)).unwrap();
    let public = pair.public().as_ref().to_vec();
    let public = UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, public);
    let (head, claims) = verified(body.strip_prefix(grant_type).unwrap(), public);
    assert_eq!((&head["alg"], &head["kid"]), (&"RS256".into(), &"key-1".into()));
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&"push@a-project.iam.example".into(), &token_uri.into())
    );
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/firebase.messaging");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);

    let urgent = google.request().await;
    assert_eq!(urgent.uri.path(), "/v1/projects/a-project/messages:send");
    assert_eq!(urgent.headers["authorization"], "Bearer ya29.x");
    let body: Value = serde_json::from_slice(&urgent.body).unwrap();
    let android =
        |priority| json!({ "priority": priority, "ttl": "86400s", "collapse_key": "wake" });
    let wake_up = |priority| json!({ "message": { "token": "device:token_-1", "data": { "wake": "" }, "android": android(priority) } });
    assert_eq!(body, wake_up("HIGH"));

    let mut receipt = bob.submission(b"receipt");
    receipt.background = true;
    bob.receive(&receipt).await;
    let quiet = google.request().await;
    assert_eq!(quiet.uri, urgent.uri, "the access token is still good");
    assert_eq!(serde_json::from_slice::<Value>(&quiet.body).unwrap(), wake_up("NORMAL"));

    google.answer(
        404,
        json!({ "error": { "status": "NOT_FOUND", "details": [{ "errorCode": "UNREGISTERED" }] } }),
    );
    bob.receive_text("to nobody").await;
    google.request().await;
    forgotten(&world).await;
}
