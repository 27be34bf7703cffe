//! Registration, tokens, names, certificates.

use bytes::Bytes;
use prost::Message;
use reqwest::{Method, StatusCode};
use sha2::Digest;
use tuckseal::service::{
    AccountAnswer, Challenge, Registered, Registration, SenderCertificateAnswer, ServerInfo,
    SignedRegistration,
};
use tuckseal::{PrivateKey, PublicKey, SenderCertificate, Timestamp};

use crate::world::{
    Party, World, fixed_keys, kem_key, message, one_time_keys, random, refusal, rows,
};

#[tokio::test(flavor = "multi_thread")]
async fn registering_again_gives_the_same_account_and_a_new_token() {
    let world = World::start().await;
    let mut alice = world.party("alice").await;
    let (account, token, bearer) = (alice.account, alice.token, alice.bearer());
    alice.register_again().await;
    assert_eq!(alice.account, account);
    assert_ne!(alice.token, token);
    assert_eq!(alice.counts().await.one_time, 0);
    let old = alice
        .request(Method::GET, "/v1/keys")
        .header("authorization", bearer)
        .send()
        .await
        .unwrap();
    assert_eq!(refusal(old).await, StatusCode::UNAUTHORIZED);
    assert_eq!((rows(&world.database(), "account"), rows(&world.database(), "device")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_registration_does_not_offer_a_taken_prekey_again() {
    let world = World::start().await;
    let caller = world.party("caller").await;
    let mut alice = Party::new(world.address, "alice");
    let one_time = one_time_keys(&alice.identity, 1..=2);
    alice.keys = tuckseal::service::KeysUpload { one_time: one_time.one_time, ..alice.keys };
    alice.register_again().await;
    let first = caller.bundles(&alice).await.devices[0].one_time.clone().unwrap();
    alice.register_again().await;
    let second = caller.bundles(&alice).await.devices[0].one_time.clone().unwrap();
    assert_eq!((first.id, second.id), (1, 2));
    assert!(caller.bundles(&alice).await.devices[0].one_time.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_with_other_keys_replaces_all_prekeys() {
    let world = World::start().await;
    let mut alice = world.party("alice").await;
    assert_eq!(alice.upload(&one_time_keys(&alice.identity, 1..=5)).await.status(), StatusCode::OK);
    alice.keys = fixed_keys(&alice.identity, 1);
    alice.registration_id = alice.registration_id % 0x3FFC + 1;
    alice.register_again().await;
    let counts = alice.counts().await;
    assert_eq!((counts.one_time, counts.one_time_high_water), (0, 0));
    let bundle = world.party("caller").await.bundles(&alice).await.devices.remove(0);
    assert_eq!(bundle.signed_prekey, alice.keys.signed_prekey);
    assert_eq!(bundle.registration_id, alice.registration_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_again_ends_the_stream_of_the_old_token() {
    let world = World::start().await;
    let mut alice = world.party("alice").await;
    let mut stream = alice.stream().await;
    stream.backlog().await;
    alice.register_again().await;
    assert_eq!(stream.closed().await, Some(4409));
}

#[tokio::test(flavor = "multi_thread")]
async fn name_of_another_identity_is_refused() {
    let world = World::start().await;
    world.party("alice").await;
    let other = Party::new(world.address, "alice");
    let response = other.send_registration(&other.registration().await).await;
    assert_eq!(refusal(response).await, StatusCode::CONFLICT);
    assert_eq!(rows(&world.database(), "account"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_without_proof_of_the_identity_key_is_refused() {
    let world = World::start().await;
    let alice = Party::new(world.address, "alice");
    let good = alice.registration().await;
    let send = |signed: SignedRegistration| alice.post("/v1/accounts", signed.encode_to_vec());

    let mut flipped = alice.signed(&good);
    let mut signature = flipped.signature.to_vec();
    signature[10] ^= 1;
    flipped.signature = signature.into();
    assert_eq!(refusal(send(flipped).await).await, StatusCode::UNAUTHORIZED);

    let stranger = Party::new(world.address, "alice");
    assert_eq!(refusal(send(stranger.signed(&good)).await).await, StatusCode::UNAUTHORIZED);

    // A signature over the registration alone, without the label, is for something else.
    let registration = Bytes::from(good.encode_to_vec());
    let signature = Bytes::copy_from_slice(&alice.identity.sign(&registration, &mut rand::rng()));
    let unlabelled = SignedRegistration { registration, signature, work: Bytes::new() };
    assert_eq!(refusal(send(unlabelled).await).await, StatusCode::UNAUTHORIZED);

    for position in 0..good.challenge.len() {
        let mut challenge = good.challenge.to_vec();
        challenge[position] ^= 1;
        let forged = Registration { challenge: challenge.into(), ..good.clone() };
        assert_eq!(refusal(alice.send_registration(&forged).await).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(rows(&world.database(), "account"), 0);
    assert_eq!(alice.send_registration(&good).await.status(), StatusCode::OK);
}

/// Tries until the hash begins with a number of zero bits that is wanted.
fn work(signed: &SignedRegistration, wanted: impl Fn(u32) -> bool) -> Bytes {
    let inner =
        sha2::Sha256::digest([b"tuckseal-registration-work-v1", &signed.registration[..]].concat());
    let works = (0_u64..).map(|work| work.to_be_bytes());
    let zeros = |work: &[u8; 8]| {
        let hash = sha2::Sha256::digest([&inner[..], work].concat());
        u32::from_be_bytes(hash[..4].try_into().unwrap()).leading_zeros()
    };
    Bytes::copy_from_slice(&works.into_iter().find(|work| wanted(zeros(work))).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn proof_of_work_serves_one_registration_and_comes_before_its_signature() {
    const BITS: u32 = 12;
    let folder = tempfile::tempdir().unwrap();
    let world = World::set(folder, |config| config.registration_work_bits = 12).await;
    let alice = Party::new(world.address, "alice");
    let challenge: Challenge = message(alice.post("/v1/challenges", Vec::new()).await).await;
    assert_eq!(challenge.work_bits, BITS);
    let registration = alice.registration().await;
    let signed = alice.signed(&registration);
    let send = |signed: &SignedRegistration| alice.post("/v1/accounts", signed.encode_to_vec());

    let good = work(&signed, |zeros| zeros >= BITS);
    let other_name = Registration { username: "alice2".into(), ..registration.clone() };
    let refused = [
        SignedRegistration { work: Bytes::new(), ..signed.clone() },
        SignedRegistration { work: work(&signed, |zeros| zeros < BITS), ..signed.clone() },
        SignedRegistration { work: [&good[..], &[0]].concat().into(), ..signed.clone() },
        SignedRegistration { work: good.clone(), ..alice.signed(&other_name) },
        SignedRegistration { signature: Bytes::new(), ..signed.clone() },
    ];
    for refused in refused {
        let response = send(&refused).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let text = response.text().await.unwrap();
        assert!(text.contains("urn:tuckseal:problem:not-admitted") && text.contains("work_bits"));
    }
    assert_eq!(rows(&world.database(), "account"), 0);

    let complete = SignedRegistration { work: good, ..signed };
    let first: Registered = message(send(&complete).await).await;
    let again: Registered = message(send(&complete).await).await;
    assert_eq!(first.account, again.account);
    assert_eq!(rows(&world.database(), "account"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn challenge_expires() {
    let world = World::with(|limits| limits.challenge_ttl_secs = 1).await;
    let alice = Party::new(world.address, "alice");
    let registration = alice.registration().await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(
        refusal(alice.send_registration(&registration).await).await,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_registrations_are_refused() {
    let world = World::start().await;
    let alice = Party::new(world.address, "alice");
    let good = alice.registration().await;
    let keys = alice.keys.clone();
    let foreign = PrivateKey::generate(&mut rand::rng());
    let with = |change: &dyn Fn(&mut Registration)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad
    };
    let bad = [
        with(&|r| r.username = "Alice".into()),
        with(&|r| r.username.clear()),
        with(&|r| r.username = "a".repeat(33)),
        with(&|r| r.registration_id = 0),
        with(&|r| r.registration_id = 0x3FFD),
        with(&|r| r.registration_id = 0x1_0001),
        with(&|r| r.access_key = Bytes::from_static(&[1; 15])),
        with(&|r| r.keys = None),
        with(&|r| r.keys.as_mut().unwrap().signed_prekey = None),
        with(&|r| r.keys.as_mut().unwrap().last_resort_kem = None),
        with(&|r| r.keys.as_mut().unwrap().last_resort_kem = Some(kem_key(&foreign, 1))),
        with(&|r| r.keys.as_mut().unwrap().last_resort_kem = keys.signed_prekey.clone()),
    ];
    for (n, bad) in bad.iter().enumerate() {
        assert_eq!(
            refusal(alice.send_registration(bad).await).await,
            StatusCode::BAD_REQUEST,
            "case {n}"
        );
    }
    assert_eq!(rows(&world.database(), "account"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_lead_to_accounts_for_registered_callers_within_their_budget() {
    let world = World::with(|limits| limits.lookup_burst = 3).await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let look = |name: &str| alice.own(Method::GET, &format!("/v1/usernames/{name}")).send();
    let found: AccountAnswer = message(look("bob").await.unwrap()).await;
    assert_eq!(found.account, bob.account[..]);
    assert_eq!(refusal(look("nobody").await.unwrap()).await, StatusCode::NOT_FOUND);
    assert_eq!(refusal(look("%00").await.unwrap()).await, StatusCode::NOT_FOUND);
    let over = look("bob").await.unwrap();
    assert!(over.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(refusal(over).await, StatusCode::TOO_MANY_REQUESTS);
    let stranger = bob.request(Method::GET, "/v1/usernames/alice").send().await.unwrap();
    assert_eq!(refusal(stranger).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn sender_certificate_is_valid_under_the_trust_root_until_it_expires() {
    let world = World::start().await;
    let alice = world.party("alice").await;
    let info: ServerInfo =
        message(alice.request(Method::GET, "/v1/server").send().await.unwrap()).await;
    let answer = alice.own(Method::GET, "/v1/certificates/sender").send().await.unwrap();
    let answer: SenderCertificateAnswer = message(answer).await;
    let certificate = SenderCertificate::decode(&answer.certificate).unwrap();
    let root = PublicKey::decode(&info.trust_root).unwrap();
    certificate.validate(&[root], &[], Timestamp::from_millis(info.now_ms)).unwrap();
    assert!(
        certificate.validate(&[root], &[], Timestamp::from_millis(answer.expires_ms + 1)).is_err()
    );
    let other = PrivateKey::generate(&mut rand::rng()).public_key();
    assert!(certificate.validate(&[other], &[], Timestamp::from_millis(info.now_ms)).is_err());
    assert_eq!(certificate.sender_text(), alice.account_text());
    let life = answer.expires_ms - info.now_ms;
    assert!((86_000_000..=86_410_000).contains(&life), "{life}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_not_exactly_right_are_refused() {
    let world = World::start().await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let mut forged = Party::new(world.address, "x");
    forged.account = alice.account;
    forged.token = bob.token;
    let unknown = Party { account: random(), ..Party::new(world.address, "y") };
    let good = alice.bearer();
    for bearer in [
        forged.bearer(),
        unknown.bearer(),
        good.replace("Bearer", "Basic"),
        good[..good.len() - 2].into(),
        String::new(),
        "Bearer ".into(),
    ] {
        let response = alice
            .request(Method::GET, "/v1/keys")
            .header("authorization", &bearer)
            .send()
            .await
            .unwrap();
        assert_eq!(refusal(response).await, StatusCode::UNAUTHORIZED, "{bearer}");
    }
    let both = bob.fetch(&alice).header("access-key", alice.access_header()).send().await.unwrap();
    assert_eq!(refusal(both).await, StatusCode::BAD_REQUEST);
    let twice =
        alice.own(Method::GET, "/v1/keys").header("authorization", good).send().await.unwrap();
    assert_eq!(refusal(twice).await, StatusCode::BAD_REQUEST);
    let key_for_token =
        alice.request(Method::GET, "/v1/keys").header("access-key", alice.access_header());
    assert_eq!(refusal(key_for_token.send().await.unwrap()).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_of_one_name_at_the_same_time_have_one_winner() {
    let world = World::start().await;
    let parties: Vec<Party> = (0..8).map(|_| Party::new(world.address, "wanted")).collect();
    let tries = parties
        .iter()
        .map(|party| async { party.send_registration(&party.registration().await).await });
    let answers = futures_util::future::join_all(tries).await;
    let (won, lost): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status() == StatusCode::OK);
    assert_eq!((won.len(), lost.len()), (1, 7));
    assert!(lost.iter().all(|answer| answer.status() == StatusCode::CONFLICT));
    for answer in won {
        let _: Registered = message(answer).await;
    }
}
