//! Sealed sender of both versions, the certificate check, and what is saved by remembering, each beside
//! its primitives (W§13–15).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs, unreachable_pub)]

#[path = "measure/floor.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod floor;
mod measure;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use ed25519_dalek::SigningKey;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use std::cell::RefCell;
use std::hint::black_box;
use tuckseal::{
    Address, CertificateChecker, ContentHint, ContentKind, DeviceId, IdentityKeyPair, PrivateKey,
    RecipientDevice, SealedContent, SealedRecipient, Sealer, SenderCertificate, SenderFields,
    SentMessage, ServerCertificate, ServiceId, Timestamp, open, seal_v1, seal_v2, seal_v2_multi,
};
use x25519_dalek::{PublicKey, StaticSecret};

const KEY: [u8; 32] = [7; 32];
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

struct World {
    rng: ChaCha20Rng,
    alice: IdentityKeyPair,
    bob: IdentityKeyPair,
    root: PrivateKey,
    content: SealedContent,
}

impl World {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let alice = IdentityKeyPair::generate(&mut rng);
        let bob = IdentityKeyPair::generate(&mut rng);
        let root = PrivateKey::generate(&mut rng);
        let server_key = PrivateKey::generate(&mut rng);
        let server = ServerCertificate::issue(1, &server_key.public_key(), &root, &mut rng);
        let fields = SenderFields {
            service_id: ServiceId::aci([1; 16]),
            e164: None,
            device_id: DeviceId::PRIMARY,
            identity_key: alice.identity_key(),
            expires: Timestamp::from_millis(NOW.as_millis() + 1),
        };
        let content = SealedContent {
            kind: ContentKind::Whisper,
            sender: SenderCertificate::issue(fields, &server, &server_key, &mut rng),
            content: vec![5; 162].into(),
            hint: ContentHint::Default,
            group_id: None,
        };
        Self { rng, alice, bob, root, content }
    }
}

fn sealed(criterion: &mut Criterion) {
    let World { mut rng, alice, bob, root, content } = World::new();
    let envelope = seal_v1(&content, &alice, &bob.identity_key(), &mut rng).unwrap();
    let inner = envelope.len() - 33 - 43;

    let secret = StaticSecret::from(KEY);
    let public = PublicKey::from(&StaticSecret::from([8; 32]));
    // Two layers: a derivation, a cipher and a MAC each.
    let layers = |mut body: Vec<u8>| {
        for part in [&mut [0u8; 33][..], &mut body] {
            black_box(floor::hkdf::<96>(Some(&KEY), &KEY));
            floor::ctr(&KEY, part);
            black_box(floor::hmac(&KEY, part));
        }
    };

    let rng = RefCell::new(rng);
    measure::beside(
        criterion,
        "sealed v1 seal",
        (
            || (),
            |()| seal_v1(&content, &alice, &bob.identity_key(), &mut *rng.borrow_mut()).unwrap(),
        ),
        (
            || vec![0; inner],
            |body| {
                black_box(floor::x25519_public(&secret));
                black_box((floor::x25519(&secret, &public), floor::x25519(&secret, &public)));
                layers(body);
            },
        ),
    );
    measure::beside(
        criterion,
        "sealed v1 open",
        (|| (), |()| open(&envelope, &bob).unwrap()),
        (
            || vec![0; inner],
            |body| {
                black_box((floor::x25519(&secret, &public), floor::x25519(&secret, &public)));
                layers(body);
            },
        ),
    );

    let own = Address::new(ServiceId::aci([2; 16]), DeviceId::PRIMARY);
    let roots = [root.public_key()];
    let signer = SigningKey::from_bytes(&[9; 32]);
    let (inner, outer) = ([1u8; 40], [1u8; 190]);
    let signatures = (floor::signature(&signer, &inner), floor::signature(&signer, &outer));
    measure::beside(
        criterion,
        "sender and server certificate check",
        (|| (), |()| content.authenticate(&roots, &[], &own, None, NOW).unwrap()),
        (
            || (),
            |()| {
                floor::verify(&signer, &inner, &signatures.0);
                floor::verify(&signer, &outer, &signatures.1);
            },
        ),
    );
}

fn remembered(criterion: &mut Criterion) {
    let World { mut rng, bob, content, alice, root, .. } = World::new();
    let envelope = seal_v1(&content, &alice, &bob.identity_key(), &mut rng).unwrap();
    let inner = envelope.len() - 33 - 43;
    let own = Address::new(ServiceId::aci([2; 16]), DeviceId::PRIMARY);
    let mut checker = CertificateChecker::new(vec![root.public_key()], Vec::new(), 100);
    measure::beside(
        criterion,
        "sealed v1 open, certificates remembered",
        (
            || (),
            |()| {
                let content = open(&envelope, &bob).unwrap();
                content.authenticate_by(&mut checker, &own, None, NOW).unwrap()
            },
        ),
        (|| vec![0; inner], |body| open_v1_floor(body, 2)),
    );
    let mut sealer = Sealer::new(bob.clone(), 100);
    measure::beside(
        criterion,
        "sealed v1 open, certificates and agreement remembered",
        (
            || (),
            |()| {
                let content = sealer.open(&envelope).unwrap();
                content.authenticate_by(&mut checker, &own, None, NOW).unwrap()
            },
        ),
        (|| vec![0; inner], |body| open_v1_floor(body, 1)),
    );
}

fn version_two(criterion: &mut Criterion) {
    let World { mut rng, bob, content, alice, .. } = World::new();
    let envelope = seal_v2(&content, &alice, &bob.identity_key(), &mut rng).unwrap();
    let body = envelope.len() - 81;
    let rng = RefCell::new(rng);
    measure::beside(
        criterion,
        "sealed v2 seal to one",
        (
            || (),
            |()| seal_v2(&content, &alice, &bob.identity_key(), &mut *rng.borrow_mut()).unwrap(),
        ),
        (|| vec![0; body], |body| seal_v2_floor(body, 1, 2)),
    );
    measure::beside(
        criterion,
        "sealed v2 open",
        (|| (), |()| open(&envelope, &bob).unwrap()),
        // The same primitives: the ephemeral key is made again.
        (|| vec![0; body], |body| seal_v2_floor(body, 1, 2)),
    );
}

/// The shared work once, two scalar multiplications a recipient, or one where the other is remembered.
fn many(_: &mut Criterion) {
    let World { rng, content, alice, .. } = World::new();
    let rng = RefCell::new(rng);
    let body = content.encode().len() + 16;
    for (count, samples) in [(10, 21), (100, 21), (1_000, 9), (10_000, 3)] {
        let recipients: Vec<_> = (0..count).map(recipient).collect();
        let seal =
            |()| seal_v2_multi(&content, &alice, &recipients, &[], &mut *rng.borrow_mut()).unwrap();
        measure::compare(
            CLOCK,
            samples,
            &format!("sealed v2 seal to {count}"),
            (|| (), seal),
            (|| vec![0; body], |body| seal_v2_floor(body, count, 2)),
        );
        let mut sealer = Sealer::new(alice.clone(), 2 * count);
        measure::compare(
            CLOCK,
            samples,
            &format!("sealed v2 seal to {count}, agreements remembered"),
            (
                || (),
                |()| {
                    let rng = &mut *rng.borrow_mut();
                    sealer.seal_v2_multi(&content, &recipients, &[], rng).unwrap()
                },
            ),
            (|| vec![0; body], |body| seal_v2_floor(body, count, 1)),
        );
        let sent = Bytes::from(seal(()));
        measure::compare(
            measure::Clock::Thread,
            samples,
            &format!("sealed v2 split for {count}, against the copies"),
            (
                || sent.clone(),
                |sent| {
                    let sent = SentMessage::from_bytes(sent).unwrap();
                    sent.recipients().iter().map(|to| sent.received(to)).collect::<Vec<_>>()
                },
            ),
            (
                || sent[sent.len() - 32 - body..].to_vec(),
                |shared| (0..count).map(|_| [&KEY[..], &shared].concat()).collect::<Vec<_>>(),
            ),
        );
    }
}

/// On all cores, the work of all of them counts.
const CLOCK: measure::Clock =
    if cfg!(feature = "rayon") { measure::Clock::Process } else { measure::Clock::Thread };

/// With the feature `rayon`: the time that passes, against the primitives on one core.
fn on_all_cores(_: &mut Criterion) {
    if cfg!(not(feature = "rayon")) {
        return;
    }
    let World { rng, content, alice, .. } = World::new();
    let rng = RefCell::new(rng);
    let body = content.encode().len() + 16;
    let recipients: Vec<_> = (0..1_000).map(recipient).collect();
    measure::compare(
        measure::Clock::Wall,
        15,
        "sealed v2 seal to 1000, time that passes",
        (
            || (),
            |()| seal_v2_multi(&content, &alice, &recipients, &[], &mut *rng.borrow_mut()).unwrap(),
        ),
        (|| vec![0; body], |body| seal_v2_floor(body, 1_000, 2)),
    );
}

fn recipient(number: usize) -> SealedRecipient {
    let mut rng = ChaCha20Rng::seed_from_u64(number as u64);
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&number.to_be_bytes());
    SealedRecipient {
        service_id: ServiceId::aci(uuid),
        identity: IdentityKeyPair::generate(&mut rng).identity_key(),
        devices: vec![RecipientDevice { device_id: DeviceId::PRIMARY, registration_id: 1 }],
    }
}

/// What opening version 1 cannot avoid, with so many scalar multiplications.
fn open_v1_floor(mut body: Vec<u8>, agreements: usize) {
    let (secret, public) = keys();
    for _ in 0..agreements {
        black_box(floor::x25519(&secret, &public));
    }
    for part in [&mut [0u8; 33][..], &mut body] {
        black_box(floor::hkdf::<96>(Some(&KEY), &KEY));
        floor::ctr(&KEY, part);
        black_box(floor::hmac(&KEY, part));
    }
}

/// What sealing version 2 cannot avoid, with so many scalar multiplications a recipient.
fn seal_v2_floor(mut body: Vec<u8>, recipients: usize, agreements: usize) -> [u8; 16] {
    let (secret, public) = keys();
    black_box(floor::x25519_public(&secret));
    for _ in 0..recipients {
        for _ in 0..agreements {
            black_box(floor::x25519(&secret, &public));
        }
        black_box((floor::hkdf::<32>(None, &[1; 98]), floor::hkdf::<16>(None, &[1; 163])));
    }
    floor::siv(&KEY, &mut body)
}

fn keys() -> (StaticSecret, PublicKey) {
    (StaticSecret::from(KEY), PublicKey::from([9; 32]))
}

criterion_group!(benches, sealed, remembered, version_two, many, on_all_cores);
criterion_main!(benches);
