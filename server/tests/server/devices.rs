//! Further devices of an account: linked, listed, named, written to and removed, from outside.

mod nodes;
mod refused;

use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message;
use reqwest::{Method, Response, StatusCode};
use tuckseal::SenderCertificate;
use tuckseal::service::{
    DeviceInfo, DeviceLink, DeviceMismatch, DeviceName, DeviceRegistration, Devices, LinkedDevice,
    MultiAccepted, Registered, SenderCertificateAnswer, SignedDevice, Submission,
    submission_answer,
};

use crate::multi;
use crate::world::{
    PATIENCE, Party, World, fixed_keys, message, mismatch, one_time_keys, problem, random, refusal,
    rows, texts,
};

/// A device that is to be linked: it has the identity key from the other by now.
pub(crate) fn further(of: &Party) -> Party {
    let fresh = Party::new(of.address, &of.name);
    let keys = fixed_keys(&of.identity, 1);
    Party { device: 0, registration_id: fresh.registration_id, keys, token: [0; 32], ..of.clone() }
}

pub(crate) async fn open(by: &Party) -> DeviceLink {
    message(by.own(Method::POST, "/v1/devices/links").send().await.unwrap()).await
}

pub(crate) fn registration(device: &Party, link: &DeviceLink) -> DeviceRegistration {
    DeviceRegistration {
        link_token: link.token.clone(),
        registration_id: device.registration_id,
        name: Bytes::from_static(b"encrypted name"),
        keys: Some(device.keys.clone()),
    }
}

pub(crate) fn signed(device: &Party, registration: &DeviceRegistration) -> SignedDevice {
    let registration = Bytes::from(registration.encode_to_vec());
    let message = [b"tuckseal-device-v1", &registration[..]].concat();
    let signature = device.identity.sign(&message, &mut rand::rng());
    SignedDevice { registration, signature: Bytes::copy_from_slice(&signature) }
}

pub(crate) async fn send(device: &Party, registration: &DeviceRegistration) -> Response {
    device.post("/v1/devices", signed(device, registration).encode_to_vec()).await
}

/// The device as the answer to its registration makes it.
async fn registered(device: Party, answer: Response) -> Party {
    let registered: Registered = message(answer).await;
    assert_eq!(registered.account, device.account[..]);
    let token = registered.token[..].try_into().unwrap();
    Party { device: registered.device_id.try_into().unwrap(), token, ..device }
}

/// A further device, linked by this one.
pub(crate) async fn link(by: &Party) -> Party {
    link_with_token(by).await.1
}

/// The same, with the linking token that it used.
pub(crate) async fn link_with_token(by: &Party) -> (Bytes, Party) {
    let (device, open) = (further(by), open(by).await);
    let answer = send(&device, &registration(&device, &open)).await;
    (open.token, registered(device, answer).await)
}

fn poll(by: &Party, link: &DeviceLink) -> reqwest::RequestBuilder {
    by.own(Method::GET, &format!("/v1/devices/links/{}", hex::encode(&link.id)))
}

pub(crate) async fn list(of: &Party) -> Vec<DeviceInfo> {
    let answer = of.own(Method::GET, "/v1/devices").send().await.unwrap();
    message::<Devices>(answer).await.devices
}

async fn remove(by: &Party, device: u8) -> Response {
    by.own(Method::DELETE, &format!("/v1/devices/{device}")).send().await.unwrap()
}

async fn rename(by: &Party, device: u8, name: &[u8]) -> Response {
    let body = DeviceName { name: Bytes::copy_from_slice(name) }.encode_to_vec();
    by.own(Method::PUT, &format!("/v1/devices/{device}/name")).body(body).send().await.unwrap()
}

/// The same text to these devices of an account.
fn to(devices: &[&Party], text: &str) -> Submission {
    let messages = devices.iter().map(|it| it.submission(text.as_bytes()).messages.remove(0));
    let submission_id = Bytes::copy_from_slice(&random::<16>());
    Submission { submission_id, messages: messages.collect(), ..Submission::default() }
}

/// Handed in with the device's token.
async fn submit(by: &Party, account: &Party, submission: &Submission) -> Response {
    let path = format!("/v1/messages/{}", account.account_text());
    by.own(Method::PUT, &path).body(submission.encode_to_vec()).send().await.unwrap()
}

fn differ(missing: &[u32], extra: &[u32]) -> (StatusCode, DeviceMismatch) {
    let (missing, extra) = (missing.to_vec(), extra.to_vec());
    (StatusCode::CONFLICT, DeviceMismatch { missing, extra, stale: Vec::new() })
}

#[tokio::test(flavor = "multi_thread")]
async fn device_is_linked_while_the_other_waits_and_does_what_devices_do() {
    let world = World::start().await;
    let (alice, caller) = (world.party("alice").await, world.party("caller").await);
    let link = open(&alice).await;
    assert_eq!((link.id.len(), link.token.len(), link.expires_in_secs), (16, 32, 600));
    let waiting = tokio::spawn(poll(&alice, &link).send());
    let device = further(&alice);
    let answer = send(&device, &registration(&device, &link)).await;
    let second = registered(device, answer).await;
    let linked: LinkedDevice = message(waiting.await.unwrap().unwrap()).await;
    assert_eq!((linked.device_id, second.device), (2, 2));
    let again: LinkedDevice = message(poll(&alice, &link).send().await.unwrap()).await;
    assert_eq!(again, linked);

    let listed = list(&second).await;
    assert_eq!(listed, list(&alice).await);
    let of = |it: &DeviceInfo| (it.device_id, it.registration_id, it.name.to_vec());
    assert_eq!(
        listed.iter().map(of).collect::<Vec<_>>(),
        [
            (1, alice.registration_id, Vec::new()),
            (2, second.registration_id, b"encrypted name".to_vec()),
        ]
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let today = (now.as_secs() / 86_400) as u32;
    assert!(listed.iter().all(|it| (today - 1..=today).contains(&it.made_day)));

    assert_eq!(second.upload(&one_time_keys(&second.identity, 1..=5)).await.status(), 200);
    let bundles = caller.bundles(&alice).await.devices;
    assert_eq!(bundles.iter().map(|it| it.device_id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(bundles[1].signed_prekey, second.keys.signed_prekey);
    assert_eq!((second.counts().await.one_time, alice.counts().await.one_time), (4, 0));
    let certificate = second.own(Method::GET, "/v1/certificates/sender").send().await.unwrap();
    let certificate: SenderCertificateAnswer = message(certificate).await;
    let certificate = SenderCertificate::decode(&certificate.certificate).unwrap();
    assert_eq!(certificate.device_id().get(), 2);

    // Whoever knows of the first alone is told; sealed or not, both get it, each its own.
    let old = to(&[&alice], "old");
    assert_eq!(mismatch(alice.receive(&old).await).await, differ(&[2], &[]));
    assert_eq!(mismatch(submit(&caller, &alice, &old).await).await, differ(&[2], &[]));
    assert_eq!(alice.receive(&to(&[&alice, &second], "sealed")).await.status(), 200);
    let known = to(&[&second, &alice], "known");
    assert_eq!(submit(&caller, &alice, &known).await.status(), 200);
    for device in [&alice, &second] {
        let mut stream = device.stream().await;
        let backlog = stream.backlog().await;
        assert_eq!(texts(&backlog), ["sealed", "known"]);
        stream.ack(&backlog).await;
        stream.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_use_one_token_at_once_one_gets_a_device() {
    let world = World::with(|limits| limits.link_burst = 100).await;
    let alice = world.party("alice").await;
    let link = open(&alice).await;
    let tries = (0..16).map(|_| {
        let (device, link) = (further(&alice), link.clone());
        tokio::spawn(async move { send(&device, &registration(&device, &link)).await })
    });
    let answers = join_all(tries).await.into_iter().map(Result::unwrap);
    let (won, lost): (Vec<_>, Vec<_>) = answers.partition(|answer| answer.status() == 200);
    assert_eq!((won.len(), lost.len()), (1, 15));
    for answer in lost {
        assert_eq!(problem(answer).await, (401, "urn:tuckseal:problem:link-token".into()));
    }
    assert_eq!(list(&alice).await.len(), 2);
    assert_eq!((rows(&world.database(), "device"), rows(&world.database(), "mailbox")), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_registration_gives_the_same_device_another_token_until_it_is_removed() {
    let world = World::start().await;
    let alice = world.party("alice").await;
    let (mut device, link) = (further(&alice), open(&alice).await);
    device.keys.one_time = one_time_keys(&device.identity, 1..=2).one_time;
    let registration = registration(&device, &link);
    let first = registered(device.clone(), send(&device, &registration).await).await;
    let mut stream = first.stream().await;
    stream.backlog().await;
    let taken = alice.bundles(&alice).await.devices[1].one_time.clone();
    assert_eq!(taken.unwrap().id, 1);
    // The answer was lost, it seems.
    let second = registered(device.clone(), send(&device, &registration).await).await;
    assert_eq!(second.device, first.device);
    assert_ne!(second.token, first.token);
    assert_eq!(stream.closed().await, Some(4409));
    let old = first.own(Method::GET, "/v1/devices").send().await.unwrap();
    assert_eq!(refusal(old).await, StatusCode::UNAUTHORIZED);
    assert_eq!(second.counts().await.one_time, 1);
    assert_eq!(list(&second).await.len(), 2);

    assert_eq!(remove(&alice, 2).await.status(), StatusCode::NO_CONTENT);
    let gone = send(&device, &registration).await;
    assert_eq!(problem(gone).await, (401, "urn:tuckseal:problem:link-token".into()));
    assert_eq!(list(&alice).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn device_that_is_removed_leaves_nothing_and_its_stream_ends() {
    let world = World::start().await;
    let (alice, caller) = (world.party("alice").await, world.party("caller").await);
    let tables = ["device", "mailbox", "envelope", "prekey_once", "prekey_fixed", "prekey_state"];
    let counts = || tables.map(|table| rows(&world.database(), table));
    assert_eq!(alice.receive(&to(&[&alice], "stays")).await.status(), 200);
    let before = counts();
    let second = link(&alice).await;
    assert_eq!(second.upload(&one_time_keys(&second.identity, 1..=5)).await.status(), 200);
    assert_eq!(submit(&alice, &alice, &to(&[&second], "goes")).await.status(), 200);
    let mut stream = second.stream().await;
    assert_eq!(texts(&stream.backlog().await), ["goes"]);
    assert_ne!(counts(), before);
    // A bundle request that is repeated gets what it got, while that is true.
    let asked = || caller.fetch(&alice).header("request-id", "00112233445566778899aabbccddeeff");
    let kept = asked().send().await.unwrap().bytes().await.unwrap();
    assert_eq!(asked().send().await.unwrap().bytes().await.unwrap(), kept);

    assert_eq!(remove(&alice, 2).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(stream.closed().await, Some(4410));
    assert_eq!(counts(), before);
    assert_ne!(asked().send().await.unwrap().bytes().await.unwrap(), kept);
    let late = second.own(Method::GET, "/v1/keys").send().await.unwrap();
    assert_eq!(refusal(late).await, StatusCode::UNAUTHORIZED);
    assert!(second.try_stream().await.is_err());
    let both = to(&[&alice, &second], "both");
    assert_eq!(mismatch(alice.receive(&both).await).await, differ(&[], &[2]));
    assert_eq!(mismatch(submit(&caller, &alice, &both).await).await, differ(&[], &[2]));
    assert_eq!(refusal(remove(&alice, 2).await).await, StatusCode::NOT_FOUND);
    // Another one gets the number, and nothing of what was.
    let third = link(&alice).await;
    assert_eq!(third.device, 2);
    assert!(third.stream().await.backlog().await.is_empty());
    let late = second.own(Method::GET, "/v1/keys").send().await.unwrap();
    assert_eq!(refusal(late).await, StatusCode::UNAUTHORIZED);
    assert_eq!(texts(&alice.stream().await.backlog().await), ["stays"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn device_sends_to_the_others_of_its_account_over_http_and_over_the_stream() {
    let world = World::start().await;
    let alice = world.party("alice").await;
    // It is alone: there is nobody to send to, and no mistake in asking.
    assert_eq!(submit(&alice, &alice, &to(&[], "")).await.status(), 200);
    let (second, third) = (link(&alice).await, link(&alice).await);
    let own = async |by: &Party, devices: &[&Party], text: &str| {
        submit(by, &alice, &to(devices, text)).await
    };
    assert_eq!(mismatch(own(&alice, &[], "").await).await, differ(&[2, 3], &[]));
    let all = [&alice, &second, &third];
    assert_eq!(mismatch(own(&second, &all, "all").await).await, differ(&[], &[2]));
    assert_eq!(own(&second, &[&alice, &third], "by the second").await.status(), 200);
    let mut stream = alice.stream().await;
    assert_eq!(texts(&stream.backlog().await), ["by the second"]);
    let mut one = alice.stream_submission(b"");
    one.access_key = Bytes::new();
    one.submission = Some(to(&[&second, &third], "by the first"));
    stream.hand_in(vec![one.clone()]).await;
    let answer = stream.answers(1).await.into_values().next().unwrap();
    assert!(matches!(answer, submission_answer::Result::Accepted(_)), "{answer:?}");
    one.submission = Some(to(&all, "all"));
    stream.hand_in(vec![one]).await;
    let answer = stream.answers(1).await.into_values().next().unwrap();
    let expected = submission_answer::Result::Devices(differ(&[], &[1]).1);
    assert_eq!(answer, expected);
    // What is not stored goes the same way.
    let passing = Submission { ephemeral: true, ..to(&[&alice, &second], "now") };
    let mut at_second = second.stream().await;
    assert_eq!(texts(&at_second.backlog().await), ["by the first"]);
    assert_eq!(submit(&third, &alice, &passing).await.status(), 200);
    let came = at_second.next().await;
    assert!(
        matches!(&came, tuckseal::service::server_frame::Body::Ephemeral(it) if it.content == "now"),
        "{came:?}"
    );
    assert_eq!(texts(&third.stream().await.backlog().await), ["by the second", "by the first"]);
    // Whoever does not say which device it is sends to all.
    let sealed = to(&[&second, &third], "sealed");
    assert_eq!(mismatch(alice.receive(&sealed).await).await, differ(&[1], &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_for_many_goes_to_the_others_of_the_own_account() {
    let world = World::start().await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let second = link(&alice).await;
    let upload = multi::without_access(multi::submission(&[&second, &bob], &[7; 2000]));
    let by = async |device: &Party| {
        let request = device.own(Method::PUT, "/v1/messages/multi").body(upload.encode_to_vec());
        message::<MultiAccepted>(request.send().await.unwrap()).await.refused
    };
    let refused = by(&second).await;
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].account, alice.account[..]);
    assert_eq!(refused[0].devices, Some(differ(&[1], &[2]).1));
    assert!(by(&alice).await.is_empty());
    for (device, count) in [(&alice, 0), (&second, 1), (&bob, 1)] {
        assert_eq!(device.stream().await.backlog().await.len(), count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_again_keeps_further_devices_and_ends_the_link_that_is_open() {
    let world = World::start().await;
    let mut alice = world.party("alice").await;
    let second = link(&alice).await;
    assert_eq!(rename(&alice, 1, b"the first").await.status(), StatusCode::NO_CONTENT);
    let open = open(&alice).await;
    // Restored from nothing but the identity key: other keys, another registration id.
    alice.keys = fixed_keys(&alice.identity, 1);
    alice.registration_id = alice.registration_id % 0x3FFC + 1;
    alice.register_again().await;
    let listed = list(&second).await;
    assert_eq!(listed.iter().map(|it| it.device_id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        (&listed[0].name[..], listed[0].registration_id),
        (&b"the first"[..], alice.registration_id)
    );
    let device = further(&alice);
    let late = send(&device, &registration(&device, &open)).await;
    assert_eq!(refusal(late).await, StatusCode::UNAUTHORIZED);
    assert_eq!(alice.receive(&to(&[&alice, &second], "both")).await.status(), 200);
    assert_eq!(link(&second).await.device, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_device_ends_when_the_server_stops() {
    let world = World::start().await;
    let alice = world.party("alice").await;
    let link = open(&alice).await;
    let waiting = tokio::spawn(poll(&alice, &link).send());
    // It waits by now, or is answered by the end of the server just the same.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let begun = std::time::Instant::now();
    world.stop().await;
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert!(begun.elapsed() < PATIENCE);
}
