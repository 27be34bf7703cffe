//! Sender keys: encrypt and decrypt at three sizes, and a thousand messages read in reverse. Each
//! beside its primitives (W§12).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs, unreachable_pub)]

#[path = "measure/floor.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod floor;
mod measure;

use criterion::{Criterion, criterion_group, criterion_main};
use curve25519_dalek::Scalar;
use ed25519_dalek::{Signature, SigningKey};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use std::cell::RefCell;
use std::hint::black_box;
use tuckseal::{SenderKey, SenderKeyMessage, SenderKeyRecord};

const KEY: [u8; 32] = [7; 32];
/// What is signed before the body: version, distribution, chain, iteration, a length.
const HEAD: usize = 1 + 18 + 6 + 3 + 3;

fn cbc_len(len: usize) -> usize {
    (len / 16 + 1) * 16
}

fn message_keys() -> [u8; 48] {
    let (seed, next) = floor::chain_step(&KEY);
    black_box(next);
    floor::hkdf(None, &seed)
}

/// Chain, keys, cipher, and a signature whose key is at hand: a multiplication and two hashes.
fn encrypt_floor(mut body: Vec<u8>, len: usize, nonce: &Scalar) -> [u8; 32] {
    black_box(message_keys());
    floor::cbc_encrypt(&KEY, &mut body[HEAD..], len);
    black_box((floor::sha512(&body), floor::sha512(&body)));
    floor::edwards_base(nonce)
}

/// Chain, keys, cipher, and a signature under a point that is at hand.
fn decrypt_floor(mut body: Vec<u8>, key: &SigningKey, signature: &Signature) {
    floor::verify(key, &body, signature);
    black_box(message_keys());
    floor::cbc_decrypt(&KEY, &mut body[HEAD..]);
}

fn one_way(criterion: &mut Criterion) {
    let signer = SigningKey::from_bytes(&[9; 32]);
    for len in [100, 1_024, 65_536] {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let key = SenderKey::generate([7; 16], &mut rng);
        let mut record = SenderKeyRecord::new();
        record.process(&key.distribution_message());
        let plaintext = vec![5u8; len];
        let sending = RefCell::new((key, rng));
        let encrypt = |()| {
            let (key, rng) = &mut *sending.borrow_mut();
            key.encrypt(&plaintext, rng).unwrap()
        };
        let body = || vec![0; HEAD + cbc_len(len)];
        let signature = floor::signature(&signer, &body());
        measure::beside(
            criterion,
            &format!("group decrypt {len} B"),
            (
                || encrypt(()),
                |message: Vec<u8>| {
                    let message = SenderKeyMessage::from_bytes(message.into()).unwrap();
                    record.decrypt(&message).unwrap()
                },
            ),
            (body, |body| decrypt_floor(body, &signer, &signature)),
        );
        let nonce = Scalar::from_bytes_mod_order([3; 32]);
        measure::beside(
            criterion,
            &format!("group encrypt {len} B"),
            (|| (), encrypt),
            (body, |body| encrypt_floor(body, len, &nonce)),
        );
    }
}

fn reversed(_: &mut Criterion) {
    const COUNT: usize = 1_000;
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let mut key = SenderKey::generate([7; 16], &mut rng);
    let distribution = key.distribution_message();
    let mut messages: Vec<SenderKeyMessage> = (0..COUNT)
        .map(|_| key.encrypt(&[5; 100], &mut rng).unwrap())
        .map(|message| SenderKeyMessage::from_bytes(message.into()).unwrap())
        .collect();
    messages.reverse();
    let told = || {
        let mut record = SenderKeyRecord::new();
        record.process(&distribution);
        record
    };
    let signer = SigningKey::from_bytes(&[9; 32]);
    let body = vec![0; HEAD + cbc_len(100)];
    let signature = floor::signature(&signer, &body);
    measure::compare(
        measure::Clock::Thread,
        11,
        "1,000 group messages of 100 B in reverse",
        (told, |mut record| {
            messages.iter().for_each(|message| drop(black_box(record.decrypt(message).unwrap())));
            record
        }),
        (|| (), |()| (0..COUNT).for_each(|_| decrypt_floor(body.clone(), &signer, &signature))),
    );
}

fn stored(criterion: &mut Criterion) {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let mut key = SenderKey::generate([7; 16], &mut rng);
    let mut record = SenderKeyRecord::new();
    record.process(&key.distribution_message());
    let message = key.encrypt(&[5; 100], &mut rng).unwrap();
    record.decrypt(&SenderKeyMessage::decode(&message).unwrap()).unwrap();
    let (own, peers) = (key.encode(), record.encode());
    let mut group = criterion.benchmark_group("sender key, stored");
    group.bench_function("encode ours", |bencher| bencher.iter(|| key.encode()));
    group.bench_function("decode ours", |bencher| {
        bencher.iter(|| SenderKey::decode(black_box(&own)).unwrap());
    });
    group.bench_function("encode a peer's", |bencher| bencher.iter(|| record.encode()));
    group.bench_function("decode a peer's", |bencher| {
        bencher.iter(|| SenderKeyRecord::decode(black_box(&peers)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, one_way, reversed, stored);
criterion_main!(benches);
