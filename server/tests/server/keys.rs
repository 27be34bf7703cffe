//! Prekeys: uploaded whole, given out exactly once, oldest first, within budgets.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use reqwest::{Method, StatusCode};
use sha2::{Digest, Sha256};
use tuckseal::service::{Bundles, KeysUpload, PublicPreKey};

use crate::world::{
    Party, World, fixed_keys, kem_key, message, one_time_key, one_time_keys, refusal, signed_key,
};

const PLENTY: u64 = 1_000_000;

async fn generous() -> World {
    World::with(|limits| {
        limits.fetch_caller_burst = PLENTY;
        limits.fetch_target_burst = PLENTY;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_time_prekeys_go_out_exactly_once_under_concurrency() {
    const TASKS: usize = 32;
    const TARGETS: usize = 5;
    const EACH: u32 = 400;
    let world = generous().await;
    let caller = Arc::new(world.party("caller").await);
    let mut targets = Vec::new();
    for n in 0..TARGETS {
        let target = world.party(&format!("target{n}")).await;
        for batch in 0..EACH / 100 {
            let mut keys = one_time_keys(&target.identity, batch * 100 + 1..=batch * 100 + 100);
            keys.one_time_kem.truncate(20);
            keys.one_time_kem.retain(|_| batch == 0);
            assert_eq!(target.upload(&keys).await.status(), StatusCode::OK);
        }
        targets.push(target);
    }
    let targets = Arc::new(targets);
    let taking: Vec<_> = (0..TASKS)
        .map(|task| {
            let (caller, targets) = (Arc::clone(&caller), Arc::clone(&targets));
            tokio::spawn(async move {
                let mut taken = Vec::new();
                // Each task asks somewhat more than its share, so that all is taken in the end.
                for n in 0..TARGETS * EACH as usize / TASKS + TARGETS {
                    let of = (task + n) % TARGETS;
                    let bundle = caller.bundles(&targets[of]).await.devices.remove(0);
                    taken.push((of, bundle.one_time.map(|key| key.id), bundle.kem.unwrap().id));
                }
                taken
            })
        })
        .collect();
    let (mut given, mut fresh) = (0, BTreeSet::new());
    for task in taking {
        let taken = task.await.unwrap();
        for of in 0..TARGETS {
            let ids: Vec<u32> = taken
                .iter()
                .filter(|(from, ..)| *from == of)
                .filter_map(|(_, id, _)| *id)
                .collect();
            assert!(ids.is_sorted(), "one caller gets the oldest first: {ids:?}");
        }
        for (of, id, _) in taken {
            given += usize::from(id.is_some());
            fresh.extend(id.map(|id| (of, id)));
        }
    }
    assert_eq!(given, fresh.len(), "a prekey was given twice");
    // What is left is what was not given, and the last-resort key did the rest.
    let mut left = 0;
    for target in targets.iter() {
        let counts = target.counts().await;
        left += counts.one_time as usize;
        assert_eq!(counts.one_time_kem, 0);
    }
    assert_eq!(fresh.len() + left, TARGETS * EACH as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn oldest_goes_first_and_the_last_resort_is_counted_when_none_is_left() {
    let world = World::start().await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let mut keys = one_time_keys(&bob.identity, 5..=7);
    keys.one_time.reverse();
    assert_eq!(bob.upload(&keys).await.status(), StatusCode::OK);
    for id in 5..=7 {
        let bundle = alice.bundles(&bob).await.devices.remove(0);
        assert_eq!((bundle.one_time.unwrap().id, bundle.kem.unwrap().id), (id, id));
    }
    assert_eq!(bob.counts().await.last_resort_uses, 0);
    for uses in 1..=2 {
        let bundles = alice.bundles(&bob).await;
        assert_eq!(bundles.identity_key, bob.identity.public_key().serialize()[..]);
        let bundle = &bundles.devices[0];
        assert_eq!((&bundle.one_time, &bundle.kem), (&None, &bob.keys.last_resort_kem));
        assert_eq!(bob.counts().await.last_resort_uses, uses);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_gets_the_first_answer_and_takes_nothing() {
    let world = World::start().await;
    let (alice, bob, carol) =
        (world.party("alice").await, world.party("bob").await, world.party("carol").await);
    bob.upload(&one_time_keys(&bob.identity, 1..=10)).await;
    let id = "00112233445566778899aabbccddeeff";
    let ask = |caller: &Party| caller.fetch(&bob).header("request-id", id).send();
    let answers = futures_util::future::join_all((0..6).map(|_| ask(&alice))).await;
    let mut bodies = BTreeSet::new();
    for answer in answers {
        bodies.insert(answer.unwrap().bytes().await.unwrap());
    }
    assert_eq!((bodies.len(), bob.counts().await.one_time), (1, 9));
    // Another caller with the same id is another request.
    let other = ask(&carol).await.unwrap().bytes().await.unwrap();
    assert!(!bodies.contains(&other));
    assert_eq!(bob.counts().await.one_time, 8);
    let bad = alice.fetch(&bob).header("request-id", "xyz").send().await.unwrap();
    assert_eq!(refusal(bad).await, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_key_fetches_bundles_of_its_account() {
    let world = World::start().await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let fetch = |of: &Party, device: &str| {
        let path = format!("/v1/keys/{}/{device}", of.account_text());
        bob.request(Method::GET, &path).header("access-key", bob.access_header()).send()
    };
    let bundles: Bundles = message(fetch(&bob, "1").await.unwrap()).await;
    assert_eq!(bundles.devices[0].signed_prekey, bob.keys.signed_prekey);
    assert_eq!(refusal(fetch(&alice, "*").await.unwrap()).await, StatusCode::UNAUTHORIZED);
    assert_eq!(refusal(fetch(&bob, "2").await.unwrap()).await, StatusCode::NOT_FOUND);
    for device in ["0", "128", "01", "-1", "x", "%2A%2A"] {
        assert_eq!(
            refusal(fetch(&bob, device).await.unwrap()).await,
            StatusCode::BAD_REQUEST,
            "{device}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn used_up_target_budget_gives_bundles_without_one_time_prekeys() {
    let world = World::with(|limits| limits.fetch_target_burst = 2).await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    bob.upload(&one_time_keys(&bob.identity, 1..=10)).await;
    for taken in [true, true, false, false] {
        let bundle = alice.bundles(&bob).await.devices.remove(0);
        assert_eq!(bundle.one_time.is_some(), taken);
        assert_eq!(bundle.kem == bob.keys.last_resort_kem, !taken);
    }
    let counts = bob.counts().await;
    assert_eq!((counts.one_time, counts.one_time_kem, counts.last_resort_uses), (8, 8, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn used_up_caller_budget_is_told_and_does_not_touch_others() {
    let world = World::with(|limits| limits.fetch_caller_burst = 2).await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    for _ in 0..2 {
        alice.bundles(&bob).await;
    }
    let over = alice.fetch(&bob).send().await.unwrap();
    assert!(over.headers().contains_key("retry-after"));
    assert_eq!(refusal(over).await, StatusCode::TOO_MANY_REQUESTS);
    bob.bundles(&alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_share_an_access_key_cannot_keep_each_other_from_bundles() {
    let world = World::with(|limits| limits.fetch_caller_burst = 2).await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    bob.upload(&one_time_keys(&bob.identity, 1..=10)).await;
    let path = format!("/v1/keys/{}/*", bob.account_text());
    let request = || bob.request(Method::GET, &path).header("access-key", bob.access_header());
    for taken in [true, true, false, false] {
        let bundles: Bundles = message(request().send().await.unwrap()).await;
        let bundle = &bundles.devices[0];
        assert_eq!(bundle.one_time.is_some(), taken);
        assert_eq!(bundle.kem == bob.keys.last_resort_kem, !taken);
        assert_eq!(bundle.signed_prekey, bob.keys.signed_prekey);
    }
    assert_eq!(bob.counts().await.one_time, 8);
    // Whoever shows a token has a budget of his own.
    assert!(alice.bundles(&bob).await.devices[0].one_time.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn uploaded_again_is_ignored_and_used_ids_with_other_bytes_are_refused_whole() {
    let world = World::start().await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let first = one_time_keys(&bob.identity, 1..=10);
    bob.upload(&first).await;
    alice.bundles(&bob).await;
    // The same upload again, though one of its keys is gone: the answer to it may have been lost.
    assert_eq!(bob.upload(&first).await.status(), StatusCode::OK);
    assert_eq!(bob.counts().await.one_time, 9);

    // Known keys with new ones: the new ones are added.
    let mut grown = KeysUpload { one_time: first.one_time[5..].to_vec(), ..KeysUpload::default() };
    grown.one_time.push(one_time_key(11));
    assert_eq!(bob.upload(&grown).await.status(), StatusCode::OK);
    assert_eq!(bob.counts().await.one_time, 10);

    let before = bob.counts().await;
    let other_bytes =
        KeysUpload { one_time: vec![one_time_key(12), one_time_key(7)], ..KeysUpload::default() };
    assert_eq!(refusal(bob.upload(&other_bytes).await).await, StatusCode::CONFLICT);
    let taken = KeysUpload {
        one_time: vec![first.one_time[0].clone(), one_time_key(12)],
        ..KeysUpload::default()
    };
    assert_eq!(refusal(bob.upload(&taken).await).await, StatusCode::CONFLICT);
    let signed =
        KeysUpload { signed_prekey: Some(signed_key(&bob.identity, 1)), ..KeysUpload::default() };
    let refused = bob.upload(&signed).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let problem: serde_json::Value =
        serde_json::from_slice(&refused.bytes().await.unwrap()).unwrap();
    let marks = serde_json::json!(
        { "one_time": 11, "one_time_kem": 10, "signed": 1, "last_resort": 1 }
    );
    assert_eq!(problem["high_water"], marks);
    assert_eq!(bob.counts().await, before);

    assert_eq!(bob.upload(&fixed_keys(&bob.identity, 2)).await.status(), StatusCode::OK);
    assert_eq!(bob.counts().await.one_time, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_with_a_fault_are_refused_whole() {
    let world = World::with(|limits| limits.one_time_prekeys = 120).await;
    let bob = world.party("bob").await;
    let good = one_time_keys(&bob.identity, 1..=3);
    let (ec, kem) = (&good.one_time[0], &good.one_time_kem[0]);
    let foreign = tuckseal::PrivateKey::generate(&mut rand::rng());
    let ec_with = |key: PublicPreKey| KeysUpload {
        one_time: vec![good.one_time[1].clone(), key],
        ..KeysUpload::default()
    };
    let kem_with = |key: PublicPreKey| KeysUpload {
        one_time_kem: vec![good.one_time_kem[1].clone(), key],
        ..KeysUpload::default()
    };
    let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let bad = [
        ec_with(PublicPreKey { id: 0, ..ec.clone() }),
        ec_with(PublicPreKey { id: 2, ..ec.clone() }),
        ec_with(PublicPreKey { key: bytes(&ec.key[..32]), ..ec.clone() }),
        ec_with(PublicPreKey { key: bytes(&[&ec.key[..], &[0]].concat()), ..ec.clone() }),
        ec_with(PublicPreKey { key: bytes(&[&[6], &ec.key[1..]].concat()), ..ec.clone() }),
        ec_with(PublicPreKey { signature: bytes(&[0; 64]), ..ec.clone() }),
        ec_with(kem.clone()),
        kem_with(ec.clone()),
        kem_with(PublicPreKey { signature: Bytes::new(), ..kem.clone() }),
        kem_with(PublicPreKey { key: bytes(&[&[7], &kem.key[1..]].concat()), ..kem.clone() }),
        kem_with(kem_key(&foreign, 9)),
        KeysUpload { one_time: (1..=101).map(one_time_key).collect(), ..KeysUpload::default() },
        KeysUpload {
            signed_prekey: Some(signed_key(&foreign, 9)),
            one_time: good.one_time.clone(),
            ..KeysUpload::default()
        },
    ];
    let before = bob.counts().await;
    for (n, bad) in bad.iter().enumerate() {
        assert_eq!(refusal(bob.upload(bad).await).await, StatusCode::BAD_REQUEST, "case {n}");
    }
    assert_eq!(bob.counts().await, before);
    let batch = |from: u32| KeysUpload {
        one_time: (from..from + 80).map(one_time_key).collect(),
        ..KeysUpload::default()
    };
    assert_eq!(bob.upload(&batch(1)).await.status(), StatusCode::OK);
    assert_eq!(refusal(bob.upload(&batch(81)).await).await, StatusCode::CONFLICT);
    assert_eq!(bob.counts().await.one_time, 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn digest_is_over_identity_and_fixed_prekeys() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    let mut all = bob.identity.public_key().serialize().to_vec();
    for key in
        [bob.keys.signed_prekey.as_ref(), bob.keys.last_resort_kem.as_ref()].map(Option::unwrap)
    {
        all.extend(key.id.to_be_bytes());
        all.extend(&key.key[..]);
        all.extend(&key.signature[..]);
    }
    assert_eq!(bob.counts().await.digest, Sha256::digest(&all)[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn device_is_told_on_its_stream_when_prekeys_run_low() {
    let world = World::start().await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    bob.upload(&one_time_keys(&bob.identity, 1..=21)).await;
    let mut stream = bob.stream().await;
    // 21 and 20 left are enough: the first notice is that of 19.
    assert!(stream.backlog().await.is_empty());
    alice.bundles(&bob).await;
    alice.bundles(&bob).await;
    let counts = stream.key_counts().await;
    assert_eq!((counts.one_time, counts.one_time_kem), (19, 19));
    stream.leave().await;
    // Low when it connects: told at once.
    assert_eq!(bob.stream().await.key_counts().await.one_time, 19);
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_at_its_largest_is_taken() {
    let world = World::start().await;
    let bob = world.party("bob").await;
    let mut keys = one_time_keys(&bob.identity, 1..=100);
    keys.signed_prekey = Some(signed_key(&bob.identity, 2));
    keys.last_resort_kem = Some(kem_key(&bob.identity, 2));
    assert!(keys.encoded_len() > 160_000);
    assert_eq!(bob.upload(&keys).await.status(), StatusCode::OK);
    let counts = bob.counts().await;
    assert_eq!(
        (counts.one_time, counts.one_time_kem, counts.one_time_kem_high_water),
        (100, 100, 100)
    );
}
