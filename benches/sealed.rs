//! Sealed sender version 1, the outer layer, and the certificate check, each beside its primitives (W§13, 14).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs, unreachable_pub)]

#[path = "measure/floor.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod floor;
mod measure;

use criterion::{Criterion, criterion_group, criterion_main};
use ed25519_dalek::SigningKey;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use std::cell::RefCell;
use std::hint::black_box;
use tuckseal::{
    Address, ContentHint, ContentKind, DeviceId, IdentityKeyPair, PrivateKey, SealedContent,
    SenderCertificate, SenderFields, ServerCertificate, ServiceId, Timestamp, open, seal_v1,
};
use x25519_dalek::{PublicKey, StaticSecret};

const KEY: [u8; 32] = [7; 32];
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn sealed(criterion: &mut Criterion) {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let (alice, bob) = (IdentityKeyPair::generate(&mut rng), IdentityKeyPair::generate(&mut rng));
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

criterion_group!(benches, sealed);
criterion_main!(benches);
