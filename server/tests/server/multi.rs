//! One upload for many recipients: each gets its own beginning and the common end, which is stored once.

use bytes::Bytes;
use prost::Message;
use reqwest::{Method, Response, StatusCode};
use tuckseal::SentMessage;
use tuckseal::service::{MultiAccepted, MultiSubmission, RecipientAccess};

use crate::world::{Party, World, message, problem, random, refusal, rows};

/// W§15.3, for these recipients in this order; C and AT are the recipient's number.
fn sent(recipients: &[&Party], shared: &[u8]) -> Vec<u8> {
    let mut sent = vec![0x23, recipients.len() as u8];
    for (n, to) in recipients.iter().enumerate() {
        sent.push(0);
        sent.extend(to.account);
        sent.push(to.device);
        sent.extend((to.registration_id as u16).to_be_bytes());
        sent.extend([n as u8; 48]);
    }
    sent.extend(shared);
    sent
}

/// The same, padded as a client does it.
fn padded(recipients: &[&Party], shared: &[u8]) -> Vec<u8> {
    let mut sent = sent(recipients, shared);
    SentMessage::pad(&mut sent).unwrap();
    sent
}

pub(crate) fn submission(recipients: &[&Party], shared: &[u8]) -> MultiSubmission {
    submission_of(recipients, padded(recipients, shared))
}

pub(crate) fn unpadded(recipients: &[&Party], shared: &[u8]) -> MultiSubmission {
    submission_of(recipients, sent(recipients, shared))
}

pub(crate) fn without_access(submission: MultiSubmission) -> MultiSubmission {
    MultiSubmission { access: Vec::new(), ..submission }
}

fn submission_of(recipients: &[&Party], sent: Vec<u8>) -> MultiSubmission {
    let access = recipients.iter().map(|to| RecipientAccess {
        account: Bytes::copy_from_slice(&to.account),
        access_key: Bytes::copy_from_slice(&to.access_key),
    });
    MultiSubmission {
        submission_id: Bytes::copy_from_slice(&random::<16>()),
        sent: sent.into(),
        access: access.collect(),
        ..MultiSubmission::default()
    }
}

pub(crate) async fn submit(party: &Party, submission: &MultiSubmission) -> Response {
    let request = party.request(Method::PUT, "/v1/messages/multi");
    request.body(submission.encode_to_vec()).send().await.unwrap()
}

fn received(n: u8, shared: &[u8]) -> Vec<u8> {
    [&[0x22], &[n; 48][..], shared].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_for_accounts_that_are_full_stores_nothing() {
    let world = World::with(|limits| {
        (limits.inbound_burst_kib, limits.inbound_kib_per_hour) = (1, 1);
    });
    let world = world.await;
    let bob = world.party("bob").await;
    bob.receive_text("more than the burst").await;
    bob.receive_text("more than the burst").await;
    for n in 0..3 {
        let submission = submission(&[&bob], &[n; 5000]);
        let accepted: MultiAccepted = message(submit(&bob, &submission).await).await;
        assert_eq!(accepted.refused.len(), 1);
    }
    let db = world.database();
    assert_eq!((rows(&db, "envelope"), rows(&db, "payload")), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipient_gets_its_own_form_and_the_common_part_is_stored_once() {
    let world = World::start().await;
    let (a, b, c) = (world.party("a").await, world.party("b").await, world.party("c").await);
    let shared = [7; 5000];
    let mut online = c.stream().await;
    online.backlog().await;
    let submission = submission(&[&a, &b, &c], &shared);
    for _ in 0..2 {
        let accepted: MultiAccepted = message(submit(&a, &submission).await).await;
        assert!(accepted.refused.is_empty());
    }
    assert_eq!(online.envelope().await.content, received(2, &shared));
    let db = world.database();
    assert_eq!((rows(&db, "envelope"), rows(&db, "payload")), (3, 1));
    for (n, party) in [(0, &a), (1, &b), (2, &c)] {
        let mut stream = party.stream().await;
        let backlog = stream.backlog().await;
        assert_eq!(backlog.len(), 1);
        assert_eq!(backlog[0].content, received(n, &shared));
        stream.ack(&backlog).await;
        stream.leave().await;
    }
    let folder = world.stop().await;
    let db = crate::world::database(folder.path());
    assert_eq!((rows(&db, "envelope"), rows(&db, "payload")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_one_by_one_and_hinder_nobody_else() {
    let world = World::start().await;
    let (a, b, mut c) = (world.party("a").await, world.party("b").await, world.party("c").await);
    let stranger = Party::new(world.address, "nobody");
    c.registration_id ^= 1;
    let mut submission = submission(&[&a, &b, &c, &stranger], &[9; 40]);
    submission.access[0].access_key = Bytes::from_static(&[0; 16]);
    let accepted: MultiAccepted = message(submit(&a, &submission).await).await;
    let refused: Vec<_> = accepted
        .refused
        .iter()
        .map(|refusal| (refusal.account.to_vec(), refusal.devices.clone().map(|d| d.stale)))
        .collect();
    assert_eq!(
        refused,
        [
            (a.account.to_vec(), None),
            (c.account.to_vec(), Some(vec![1])),
            (stranger.account.to_vec(), None)
        ]
    );
    assert_eq!(b.stream().await.backlog().await[0].content, received(1, &[9; 40]));
    assert!(a.stream().await.backlog().await.is_empty());
    assert_eq!(rows(&world.database(), "payload"), 0, "small ones are not shared");

    // By token no access keys are needed, nor taken.
    let request = a.own(Method::PUT, "/v1/messages/multi").body(submission.encode_to_vec());
    assert_eq!(refusal(request.send().await.unwrap()).await, StatusCode::BAD_REQUEST);
    submission.access.clear();
    let request = a.own(Method::PUT, "/v1/messages/multi").body(submission.encode_to_vec());
    let accepted: MultiAccepted = message(request.send().await.unwrap()).await;
    // Of its own account the device is none that gets something.
    assert_eq!(accepted.refused.len(), 3);
    let own = accepted.refused.iter().find(|refusal| refusal.account == a.account[..]).unwrap();
    assert_eq!(own.devices.clone().unwrap().extra, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_sent_message_is_refused_and_nothing_is_stored() {
    let world = World::start().await;
    let (a, b) = (world.party("a").await, world.party("b").await);
    let bare = sent(&[&a, &b], &[1; 32]);
    let mut bad: Vec<Vec<u8>> = (0..bare.len()).map(|n| bare[..n].to_vec()).collect();
    let good = padded(&[&a, &b], &[1; 32]);
    // Not 0x22: that is an older form, in which account ids are found elsewhere, and some random ones are sound.
    for (at, byte) in [(0, 0x24), (1, 0x82), (1, 5), (2, 2), (19, 0x80), (20, 0xC0)] {
        let mut changed = good.to_vec();
        changed[at] = byte;
        bad.push(changed);
    }
    let mut excluded_and_listed = good.to_vec();
    excluded_and_listed[1] = 3;
    excluded_and_listed.splice(2 + 2 * 69.., [&[0][..], &a.account, &[0], &[1; 32]].concat());
    bad.push(excluded_and_listed);
    for sent in bad {
        let text = hex::encode(&sent);
        let refused = problem(submit(&a, &submission_of(&[&a, &b], sent)).await).await;
        assert_eq!(refused, (400, "urn:tuckseal:problem:invalid".into()), "{text}");
    }
    let large = unpadded(&[&a], &vec![0; 98_304]);
    assert_eq!(refusal(submit(&a, &large).await).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(rows(&world.database(), "envelope"), 0);
}
