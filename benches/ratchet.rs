//! Messages of a session that is there: encrypt and decrypt at three sizes, ping-pong, and a
//! thousand messages read in reverse. Each beside its primitives (W§8).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs, unreachable_pub)]

#[path = "measure/floor.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod floor;
mod measure;
#[path = "../tests/story/mod.rs"]
mod story;

use criterion::{Criterion, criterion_group, criterion_main};
use measure::Clock;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use std::cell::RefCell;
use story::{Party, talking};
use tuckseal::{SessionRecord, SignalMessage, Trust};
use x25519_dalek::{PublicKey, StaticSecret};

const KEY: [u8; 32] = [7; 32];
/// Identities, version, ratchet key and counters: what the MAC covers beside the body.
const MACED: usize = 66 + 1 + 35 + 4 + 3;

fn cbc_len(len: usize) -> usize {
    (len / 16 + 1) * 16
}

fn encrypt_floor(mut body: Vec<u8>, len: usize) -> [u8; 32] {
    let (seed, next) = floor::chain_step(&KEY);
    std::hint::black_box(next);
    // The key of the post-quantum ratchet, and with it those of the message.
    let salt: [u8; 64] = floor::hkdf(Some(&KEY), &seed);
    let keys: [u8; 80] = floor::hkdf(Some(&salt[..32]), &seed);
    floor::cbc_encrypt(&KEY, &mut body[MACED..], len);
    std::hint::black_box(keys);
    floor::hmac(&KEY, &body)
}

fn decrypt_floor(mut body: Vec<u8>) -> [u8; 32] {
    let (seed, next) = floor::chain_step(&KEY);
    std::hint::black_box(next);
    // The key of the post-quantum ratchet, and with it those of the message.
    let salt: [u8; 64] = floor::hkdf(Some(&KEY), &seed);
    let keys: [u8; 80] = floor::hkdf(Some(&salt[..32]), &seed);
    std::hint::black_box(keys);
    let mac = floor::hmac(&KEY, &body);
    floor::cbc_decrypt(&KEY, &mut body[MACED..]);
    mac
}

/// A session of Alice with Bob, and the other end of it.
fn ends() -> (Party, Party, SessionRecord, SessionRecord) {
    let (alice, bob) = talking();
    let at_alice = alice.sessions[&bob.address()].clone();
    let at_bob = bob.sessions[&alice.address()].clone();
    (alice, bob, at_alice, at_bob)
}

fn one_way(criterion: &mut Criterion) {
    for len in [100, 1_024, 65_536] {
        let (alice, bob, at_alice, _) = ends();
        let to = bob.address();
        let sending = RefCell::new((at_alice, ChaCha20Rng::from_seed([1; 32])));
        let plaintext = vec![5u8; len];
        let encrypt = |()| {
            let (record, rng) = &mut *sending.borrow_mut();
            record.encrypt(&alice.local, &to, &plaintext, Trust::FirstUse, rng, alice.now).unwrap()
        };
        measure::beside(
            criterion,
            &format!("encrypt {len} B"),
            (|| (), encrypt),
            (|| vec![0; MACED + cbc_len(len)], |body| encrypt_floor(body, len)),
        );

        let (alice, bob, at_alice, at_bob) = ends();
        let sending = RefCell::new((at_alice, ChaCha20Rng::from_seed([1; 32])));
        let encrypt = |()| {
            let (record, rng) = &mut *sending.borrow_mut();
            record.encrypt(&alice.local, &to, &plaintext, Trust::FirstUse, rng, alice.now).unwrap()
        };
        let receiving = RefCell::new((at_bob, ChaCha20Rng::from_seed([2; 32])));
        let from = alice.address();
        measure::beside(
            criterion,
            &format!("decrypt {len} B"),
            (
                || encrypt(()).body,
                |body: Vec<u8>| {
                    let (record, rng) = &mut *receiving.borrow_mut();
                    let message = SignalMessage::from_bytes(body.into()).unwrap();
                    record.decrypt(&bob.local, &from, &message, Trust::FirstUse, rng).unwrap()
                },
            ),
            (|| vec![0; MACED + cbc_len(len)], decrypt_floor),
        );
    }
}

fn ping_pong(criterion: &mut Criterion) {
    let (alice, bob) = talking();
    let parties = RefCell::new((alice, bob));
    let secret = StaticSecret::from(KEY);
    let public = PublicKey::from(&StaticSecret::from([8; 32]));
    measure::beside(
        criterion,
        "ping-pong message of 100 B",
        (
            || (),
            |()| {
                let (alice, bob) = &mut *parties.borrow_mut();
                let record = alice.sessions.get_mut(&bob.address()).unwrap();
                let to = bob.address();
                let sent = record
                    .encrypt(
                        &alice.local,
                        &to,
                        &[5; 100],
                        Trust::FirstUse,
                        &mut alice.rng,
                        alice.now,
                    )
                    .unwrap();
                let message = SignalMessage::from_bytes(sent.body.into()).unwrap();
                let record = bob.sessions.get_mut(&alice.address()).unwrap();
                let from = alice.address();
                record.decrypt(&bob.local, &from, &message, Trust::FirstUse, &mut bob.rng).unwrap();
                std::mem::swap(alice, bob);
            },
        ),
        (
            || (vec![0; MACED + 112], vec![0; MACED + 112]),
            |(out, back)| {
                let first = floor::x25519(&secret, &public);
                let root: [u8; 64] = floor::hkdf(Some(&KEY), &first);
                let fresh = floor::x25519_public(&secret);
                let second = floor::x25519(&secret, &public);
                let again: [u8; 64] = floor::hkdf(Some(&KEY), &second);
                (root, fresh, again, encrypt_floor(out, 100), decrypt_floor(back))
            },
        ),
    );
}

fn reversed(criterion: &mut Criterion) {
    const COUNT: usize = 1_000;
    let (mut alice, bob, _, at_bob) = ends();
    let to = bob.address();
    let sent: Vec<Vec<u8>> =
        (0..COUNT).map(|_| alice.encrypt(to, &[5; 100]).unwrap().body).collect();
    let rng = RefCell::new(ChaCha20Rng::from_seed([3; 32]));
    let from = alice.address();
    measure::beside(
        criterion,
        "1,000 messages of 100 B in reverse",
        (
            || (at_bob.clone(), sent.clone()),
            |(mut record, sent)| {
                for body in sent.into_iter().rev() {
                    let message = SignalMessage::from_bytes(body.into()).unwrap();
                    let rng = &mut *rng.borrow_mut();
                    record.decrypt(&bob.local, &from, &message, Trust::FirstUse, rng).unwrap();
                }
                record
            },
        ),
        (
            || vec![vec![0; MACED + 112]; COUNT],
            |bodies| bodies.into_iter().map(decrypt_floor).fold(0, |sum, mac| sum ^ mac[0]),
        ),
    );
}

fn record(criterion: &mut Criterion) {
    let (_, _, record, _) = ends();
    let stored = record.encode();
    criterion.bench_function("record encode", |bencher| bencher.iter(|| record.encode()));
    criterion.bench_function("record decode", |bencher| {
        bencher.iter(|| SessionRecord::decode(&stored).unwrap());
    });
}

/// What an application pays that keeps its records as bytes: the same message with and without.
fn store_of_bytes(_: &mut Criterion) {
    for initiator in [true, false] {
        let who = if initiator { "initiator" } else { "responder" };
        let encrypt = |through: bool| {
            let (mut from, mut peer, mut record, other) = ends();
            if !initiator {
                (from, peer, record) = (peer, from, other);
            }
            let to = peer.address();
            move |()| {
                if through {
                    record = SessionRecord::decode(&record.encode()).unwrap();
                }
                let Party { local, rng, now, .. } = &mut from;
                record.encrypt(local, &to, &[5; 100], Trust::FirstUse, rng, *now).unwrap()
            }
        };
        let name = format!("encrypt 100 B, {who}, with a store of bytes against without");
        measure::compare(Clock::Thread, 41, &name, (|| (), encrypt(true)), (|| (), encrypt(false)));

        let decrypt = |through: bool| {
            let (mut to, mut from, mut record, mut sending) = ends();
            if !initiator {
                (to, from, record, sending) = (from, to, sending, record);
            }
            let (at, sender) = (to.address(), from.address());
            let send = move || {
                let Party { local, rng, now, .. } = &mut from;
                sending.encrypt(local, &at, &[5; 100], Trust::FirstUse, rng, *now).unwrap().body
            };
            let read = move |body: Vec<u8>| {
                if through {
                    record = SessionRecord::decode(&record.encode()).unwrap();
                }
                let message = SignalMessage::from_bytes(body.into()).unwrap();
                let Party { local, rng, .. } = &mut to;
                record.decrypt(local, &sender, &message, Trust::FirstUse, rng).unwrap()
            };
            (send, read)
        };
        let name = format!("decrypt 100 B, {who}, with a store of bytes against without");
        measure::compare(Clock::Thread, 41, &name, decrypt(true), decrypt(false));
    }
}

criterion_group!(benches, one_way, ping_pong, reversed, record, store_of_bytes);
criterion_main!(benches);
