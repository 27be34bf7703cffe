//! Devices where there are several nodes, and where a node dies.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use tuckseal::service::LinkedDevice;

use super::{further, link, list, open, poll, registered, registration, remove, send};
use crate::crash::start;
use crate::nodes::Cluster;
use crate::stores::BusServer;
use crate::world::{Party, message, refusal, texts};

/// Before whoever waits looks by itself.
const SOON: Duration = Duration::from_secs(4);

/// How long it took from the registration at one node to the answer at the other.
async fn linked_at_another_node(cluster: &Cluster, alice: &Party) -> (Party, Duration) {
    let link = open(alice).await;
    let waiting = tokio::spawn(poll(alice, &link).send());
    // It has looked and found nothing.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let device = cluster.at(1, further(alice));
    let answer = send(&device, &registration(&device, &link)).await;
    let second = registered(device, answer).await;
    let begun = Instant::now();
    let linked: LinkedDevice = message(waiting.await.unwrap().unwrap()).await;
    assert_eq!(linked.device_id, 2);
    (second, begun.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn device_linked_and_removed_at_one_node_is_noticed_at_another() {
    let cluster = Cluster::start(2, Some(BusServer::nats().await), 3600).await;
    let alice = cluster.nodes[0].party("alice").await;
    let (second, took) = linked_at_another_node(&cluster, &alice).await;
    assert!(took < SOON, "the bus told nothing: {took:?}");
    let mut stream = second.stream().await;
    assert!(stream.backlog().await.is_empty());
    let both = super::to(&[&alice, &second], "both");
    assert_eq!(alice.receive(&both).await.status(), StatusCode::OK);
    assert_eq!(stream.text().await, "both");
    // No sweep within this test: the bus told it.
    assert_eq!(remove(&alice, 2).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(stream.closed().await, Some(4410));
    assert_eq!(refusal(remove(&second, 2).await).await, StatusCode::UNAUTHORIZED);
    // What the other node remembers of the account is out of date.
    let there = cluster.at(1, alice.clone());
    assert_eq!(there.receive(&both).await.status(), StatusCode::OK, "it was accepted before");
    let new = super::to(&[&alice, &second], "new");
    assert_eq!(super::mismatch(there.receive(&new).await).await, super::differ(&[], &[2]));
    assert_eq!(there.receive(&super::to(&[&alice], "one")).await.status(), StatusCode::OK);
    assert_eq!(texts(&alice.stream().await.backlog().await), ["both", "one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_repeated_at_another_node_ends_the_stream_of_the_token_before() {
    let cluster = Cluster::start(2, Some(BusServer::nats().await), 3600).await;
    let alice = cluster.nodes[0].party("alice").await;
    let (device, open) = (further(&alice), open(&alice).await);
    let registration = registration(&device, &open);
    let first = registered(device.clone(), send(&device, &registration).await).await;
    let mut stream = first.stream().await;
    stream.backlog().await;
    let there = cluster.at(1, device);
    let second = registered(there.clone(), send(&there, &registration).await).await;
    assert_eq!((second.device, stream.closed().await), (2, Some(4409)));
    let mut stream = second.stream().await;
    assert!(stream.backlog().await.is_empty());
    assert_eq!(alice.receive(&super::to(&[&alice, &second], "both")).await.status(), 200);
    assert_eq!(stream.text().await, "both");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bus_looking_and_the_sweep_find_what_was_linked_and_removed() {
    let cluster = Cluster::start(2, None, 1).await;
    let alice = cluster.nodes[0].party("alice").await;
    let (second, _) = linked_at_another_node(&cluster, &alice).await;
    let mut stream = second.stream().await;
    stream.backlog().await;
    assert_eq!(remove(&alice, 2).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(stream.closed().await, Some(4410));
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_that_a_dying_server_did_not_answer_is_repeated_and_makes_one_device() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = start(folder.path()).await;
    let mut alice = Party::register(address, "alice").await;
    for n in 0..6_u64 {
        let (device, open) = (further(&alice), open(&alice).await);
        let registration = registration(&device, &open);
        // Killed before, while or after it is committed.
        let (answer, ()) = tokio::join!(
            {
                let (device, registration) = (device.clone(), registration.clone());
                tokio::spawn(async move {
                    let signed = super::signed(&device, &registration);
                    let body = prost::Message::encode_to_vec(&signed);
                    let request = device.request(reqwest::Method::POST, "/v1/devices").body(body);
                    request.send().await.is_ok()
                })
            },
            async {
                tokio::time::sleep(Duration::from_millis(8 * n)).await;
                child.kill().await.unwrap();
            }
        );
        let answered = answer.unwrap();
        let again;
        (child, again) = start(folder.path()).await;
        alice.address = again;
        let there = list(&alice).await.len();
        assert!(there == 2 || (there == 1 && !answered), "{there} devices, answered: {answered}");
        let device = Party { address: again, ..device };
        let second = registered(device.clone(), send(&device, &registration).await).await;
        assert_eq!((second.device, list(&second).await.len()), (2, 2));
        assert_eq!(remove(&alice, 2).await.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(link(&alice).await.device, 2);
}
