//! What is refused, and leaves everything as it was.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use reqwest::{Method, StatusCode};
use tuckseal::PrivateKey;
use tuckseal::service::{DeviceRegistration, SignedDevice};

use super::{
    further, link, list, open, poll, registered, registration, remove, rename, send, signed,
};
use crate::world::{Party, World, kem_key, problem, random, refusal, rows};

const TABLES: [&str; 5] = ["device", "mailbox", "prekey_once", "prekey_fixed", "prekey_state"];

async fn kind(answer: reqwest::Response) -> (u16, String) {
    let (status, kind) = problem(answer).await;
    (status, kind.strip_prefix("urn:tuckseal:problem:").unwrap().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_that_is_not_right_leaves_the_token_good_and_nothing_behind() {
    let world = World::with(|limits| limits.link_burst = 100).await;
    let alice = world.party("alice").await;
    let (device, open) = (further(&alice), open(&alice).await);
    let good = registration(&device, &open);
    let counts = || TABLES.map(|table| rows(&world.database(), table));
    let before = counts();

    // Not signed by the identity key, for something else, or over other bytes.
    let stranger = Party { identity: PrivateKey::generate(&mut rand::rng()), ..device.clone() };
    assert_eq!(kind(send(&stranger, &good).await).await, (401, "not-proven".into()));
    let post = |signed: SignedDevice| device.post("/v1/devices", signed.encode_to_vec());
    let bytes = Bytes::from(good.encode_to_vec());
    for label in [&b""[..], b"tuckseal-registration-v1"] {
        let message = [label, &bytes].concat();
        let signature = device.identity.sign(&message, &mut rand::rng());
        let signature = Bytes::copy_from_slice(&signature);
        let other = SignedDevice { registration: bytes.clone(), signature };
        assert_eq!(kind(post(other).await).await, (401, "not-proven".into()));
    }
    let other = DeviceRegistration { name: Bytes::from_static(b"other"), ..good.clone() };
    let swapped =
        SignedDevice { registration: other.encode_to_vec().into(), ..signed(&device, &good) };
    assert_eq!(kind(post(swapped).await).await, (401, "not-proven".into()));
    let unsigned = SignedDevice { signature: Bytes::new(), ..signed(&device, &good) };
    assert_eq!(kind(post(unsigned).await).await, (401, "not-proven".into()));

    let foreign = PrivateKey::generate(&mut rand::rng());
    let with = |change: &dyn Fn(&mut DeviceRegistration)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad
    };
    let bad = [
        with(&|r| r.keys = None),
        with(&|r| r.keys.as_mut().unwrap().signed_prekey = None),
        with(&|r| r.keys.as_mut().unwrap().last_resort_kem = None),
        with(&|r| r.keys.as_mut().unwrap().last_resort_kem = Some(kem_key(&foreign, 1))),
        with(&|r| r.keys.as_mut().unwrap().last_resort_kem.as_mut().unwrap().id = 0),
        with(&|r| r.registration_id = 0),
        with(&|r| r.registration_id = 0x3FFD),
        with(&|r| r.registration_id = 0x1_0001),
        with(&|r| r.name = vec![7; 257].into()),
    ];
    for (n, bad) in bad.iter().enumerate() {
        assert_eq!(kind(send(&device, bad).await).await, (400, "invalid".into()), "case {n}");
    }
    assert_eq!(counts(), before);
    assert_eq!(poll_once(&alice, &open).await, StatusCode::NO_CONTENT);
    let device = Party { keys: good.keys.clone().unwrap(), ..device };
    let longest = with(&|r| r.name = vec![7; 256].into());
    assert_eq!(registered(device.clone(), send(&device, &longest).await).await.device, 2);
}

/// Asks, and gives up waiting on its own.
async fn poll_once(by: &Party, link: &tuckseal::service::DeviceLink) -> StatusCode {
    let asked = poll(by, link).timeout(Duration::from_millis(500)).send().await;
    asked.map_or(StatusCode::NO_CONTENT, |answer| answer.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_used_and_old_tokens_get_one_answer() {
    let world = World::with(|limits| limits.link_ttl_secs = 2).await;
    let alice = world.party("alice").await;
    let device = further(&alice);
    let (replaced, used) = (open(&alice).await, open(&alice).await);
    let first = registration(&device, &used);
    registered(device.clone(), send(&device, &first).await).await;
    let old = open(&alice).await;
    let unknown =
        tuckseal::service::DeviceLink { token: random::<32>().to_vec().into(), ..old.clone() };
    let short = tuckseal::service::DeviceLink { token: vec![1; 31].into(), ..old.clone() };
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let mut bodies = Vec::new();
    for link in [&replaced, &used, &old, &unknown, &short] {
        // A device that is not the one of before.
        let device = further(&alice);
        let answer = send(&device, &registration(&device, link)).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        bodies.push(answer.bytes().await.unwrap());
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert!(String::from_utf8_lossy(&bodies[0]).contains("link-token"));
    // Its repetition has ended, too, and nobody waits for it any more.
    assert_eq!(kind(send(&device, &first).await).await, (401, "link-token".into()));
    let ended = poll(&alice, &used).send().await.unwrap();
    assert_eq!(refusal(ended).await, StatusCode::NOT_FOUND);
    assert_eq!(list(&alice).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn account_with_all_its_devices_is_told_so_and_the_token_waits() {
    let world = World::with(|limits| limits.max_devices = 3).await;
    let alice = world.party("alice").await;
    link(&alice).await;
    let third = link(&alice).await;
    let (device, open) = (further(&alice), open(&third).await);
    let registration = registration(&device, &open);
    assert_eq!(kind(send(&device, &registration).await).await, (409, "too-many-devices".into()));
    assert_eq!(rows(&world.database(), "device"), 3);
    // Whoever removes one ends the link that is open, and opens another.
    assert_eq!(remove(&alice, 2).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(kind(send(&device, &registration).await).await, (401, "link-token".into()));
    assert_eq!(link(&alice).await.device, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn first_device_changes_all_and_another_one_itself() {
    let world = World::start().await;
    let alice = world.party("alice").await;
    let (second, third) = (link(&alice).await, link(&alice).await);
    let no = |kind: &str| (403, kind.to_owned());
    assert_eq!(kind(remove(&second, 1).await).await, no("not-first"));
    assert_eq!(kind(remove(&second, 3).await).await, no("not-first"));
    assert_eq!(kind(remove(&second, 9).await).await, no("not-first"));
    assert_eq!(kind(rename(&second, 1, b"x").await).await, no("not-first"));
    assert_eq!(kind(remove(&alice, 1).await).await, no("first-stays"));
    assert_eq!(kind(remove(&alice, 9).await).await, (404, "not-found".into()));
    assert_eq!(kind(rename(&alice, 9, b"x").await).await, (404, "not-found".into()));
    assert_eq!(kind(rename(&alice, 2, &[7; 257]).await).await, (400, "invalid".into()));
    assert_eq!(rename(&alice, 3, b"by the first").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(rename(&second, 2, b"by itself").await.status(), StatusCode::NO_CONTENT);
    let names: Vec<Vec<u8>> = list(&third).await.iter().map(|it| it.name.to_vec()).collect();
    assert_eq!(names, [b"".to_vec(), b"by itself".to_vec(), b"by the first".to_vec()]);
    assert_eq!(remove(&second, 2).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(refusal(remove(&second, 2).await).await, StatusCode::UNAUTHORIZED);
    assert_eq!(list(&alice).await.len(), 2);
    // Somebody else's devices are not there.
    let bob = world.party("bob").await;
    assert_eq!(kind(remove(&bob, 3).await).await, (404, "not-found".into()));
    assert_eq!(list(&bob).await.len(), 1);
    for path in ["0", "128", "02", "+2", "x", "2/", "-1"] {
        let answer =
            alice.own(Method::DELETE, &format!("/v1/devices/{path}")).send().await.unwrap();
        assert!(answer.status().is_client_error(), "{path}");
    }
    assert_eq!(list(&alice).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_device_has_an_end_and_a_bound() {
    let world = World::with(|limits| {
        limits.link_poll_secs = 3;
        limits.link_polls = 1;
        limits.link_burst = 2;
    });
    let world = world.await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let link = open(&alice).await;
    let begun = std::time::Instant::now();
    let first = tokio::spawn(poll(&alice, &link).send());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let over = poll(&alice, &link).send().await.unwrap();
    assert!(over.headers().contains_key("retry-after"));
    assert_eq!(kind(over).await, (429, "over-limit".into()));
    // Nobody else's business, and not distinguished from what is not there.
    let foreign = poll(&bob, &link).send().await.unwrap();
    assert_eq!(kind(foreign).await, (404, "not-found".into()));
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::NO_CONTENT);
    assert!(begun.elapsed() >= Duration::from_secs(3));
    for id in ["", "0", &"0".repeat(31), &"g".repeat(32), &"0".repeat(34)] {
        let path = format!("/v1/devices/links/{id}");
        let answer = alice.own(Method::GET, &path).send().await.unwrap();
        assert!(answer.status().is_client_error(), "{id}");
    }
    // And so have links.
    open(&alice).await;
    let over = alice.own(Method::POST, "/v1/devices/links").send().await.unwrap();
    assert_eq!(kind(over).await, (429, "over-limit".into()));
    assert_eq!(rows(&world.database(), "device_link"), 1);
    let nobody = alice.request(Method::POST, "/v1/devices/links").send().await.unwrap();
    assert_eq!(refusal(nobody).await, StatusCode::UNAUTHORIZED);
}
