//! The post-quantum ratchet alone: a send and a receive in every phase, the steps that complete
//! something apart, whole conversations, and the stored form.
//!
//! SPQR is not public, so the bench compiles its folder, and those that it imports, as its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs
)]

extern crate alloc;

#[path = "../src/crypto/mod.rs"]
mod crypto;
#[path = "../src/keys.rs"]
mod keys;
#[path = "../src/spqr/mod.rs"]
mod spqr;
#[path = "../src/stored.rs"]
mod stored;
#[path = "../src/wire/mod.rs"]
mod wire;

use criterion::{Criterion, criterion_group, criterion_main};
use crypto::secret::Secret;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use spqr::{ChainLimits, Direction, MinVersion, Spqr};
use std::hint::black_box;

/// The initiator and the responder.
struct Pair {
    parties: [Spqr; 2],
    rng: ChaCha20Rng,
}

fn encode(state: &Spqr) -> crypto::secret::SecretBytes {
    let mut out = stored::Writer::with_capacity(state.max_encoded_len());
    state.write(&mut out);
    out.0
}

impl Pair {
    fn new() -> Self {
        let key = keys::PqrKey::new(Secret::new([7; 32]));
        let party = |direction| Spqr::new(direction, MinVersion::V1, &key, ChainLimits::DEFAULT);
        let parties = [party(Direction::A2B), party(Direction::B2A)];
        Self { parties, rng: ChaCha20Rng::from_seed([1; 32]) }
    }

    fn send(&mut self, by: usize) -> Vec<u8> {
        let step = self.parties[by].send(&mut self.rng).unwrap();
        self.parties[by].commit(step.change);
        step.message
    }

    fn recv(&mut self, by: usize, message: &[u8]) {
        let step = self.parties[by].recv(message).unwrap();
        self.parties[by].commit(step.change);
    }

    fn turn(&mut self, by: usize) {
        let message = self.send(by);
        self.recv(1 - by, &message);
    }

    fn phase(&self, by: usize) -> String {
        let text = format!("{:?}", self.parties[by]);
        text.trim_start_matches("Spqr(").split(' ').next().unwrap().to_string()
    }
}

/// The first message that arrives while the receiver is in `before` and leaves it in `after`, with
/// that receiver. `lost` drops the first messages that carry a payload of either side.
fn arriving(before: &str, after: &str, lost: usize) -> (Spqr, Vec<u8>) {
    let mut pair = Pair::new();
    for n in 0..90 {
        pair.turn(n % 2);
    }
    for n in 0.. {
        let by = n % 2;
        let message = pair.send(by);
        let carries = message.len() > 10;
        let chunk = message.get(message.len().saturating_sub(33)).copied().unwrap_or(0);
        if carries && usize::from(chunk) < lost {
            continue;
        }
        let receiver = pair.parties[1 - by].clone();
        let was = pair.phase(1 - by);
        pair.recv(1 - by, &message);
        if was == before && pair.phase(1 - by) == after {
            return (receiver, message);
        }
        assert!(n < 2_000, "{before} to {after} was not seen");
    }
    unreachable!()
}

fn in_phase(phase: &str) -> (Spqr, ChaCha20Rng) {
    let mut pair = Pair::new();
    // Past epoch 1, so that the chain is there.
    for n in 0..90 {
        pair.turn(n % 2);
    }
    for n in 0..400 {
        for by in [0, 1] {
            if pair.phase(by) == phase {
                return (pair.parties[by].clone(), pair.rng);
            }
        }
        pair.turn(n % 2);
    }
    panic!("{phase} was not seen")
}

fn sends(c: &mut Criterion) {
    let mut group = c.benchmark_group("spqr send");
    for phase in ["K0", "K1", "K2", "K3", "K4", "C0", "C1", "C2", "C5"] {
        let (state, mut rng) = in_phase(phase);
        group.bench_function(phase, |b| b.iter(|| state.send(black_box(&mut rng)).unwrap().key));
        if ["K1", "K2", "C2", "C5"].contains(&phase) {
            let mut state = state;
            for _ in 0..40 {
                let change = state.send(&mut rng).unwrap().change;
                state.commit(change);
            }
            let name = format!("{phase} past the payload");
            group.bench_function(name, |b| b.iter(|| state.send(black_box(&mut rng)).unwrap().key));
        }
    }
}

fn receives(c: &mut Criterion) {
    let mut group = c.benchmark_group("spqr recv");
    let steps = [
        ("a chunk of hdr", "C0", "C0", 0),
        ("a chunk of ct1", "K2", "K2", 0),
        ("a chunk of ek", "C2", "C2", 0),
        ("completes hdr", "C0", "C1", 0),
        ("completes ct1", "K2", "K3", 0),
        ("completes ct1, all chunks past it", "K2", "K3", 36),
        ("completes ek, KEM encapsulation", "C4", "C5", 0),
        ("completes ek, all chunks past it", "C4", "C5", 36),
        ("completes ct2, KEM decapsulation", "K4", "C0", 0),
    ];
    for (name, before, after, lost) in steps {
        let (state, message) = arriving(before, after, lost);
        group.bench_function(name, |b| b.iter(|| state.recv(black_box(&message)).unwrap().key));
    }
    let mut pair = Pair::new();
    for n in 0..20 {
        pair.turn(n % 2);
    }
    let messages: Vec<_> = (0..2_001).map(|_| pair.send(0)).collect();
    let state = pair.parties[1].clone();
    let last = messages.last().unwrap();
    group.bench_function("a gap of 2000", |b| b.iter(|| state.recv(black_box(last)).unwrap().key));
    pair.recv(1, last);
    let state = pair.parties[1].clone();
    group.bench_function("one of 2000 skipped", |b| {
        b.iter(|| state.recv(black_box(&messages[1_000])).unwrap().key)
    });
}

fn conversations(c: &mut Criterion) {
    let mut group = c.benchmark_group("spqr with commit");
    let mut pair = Pair::new();
    let mut by = 0;
    group.bench_function("ping-pong: a send and a receive", |b| {
        b.iter(|| {
            pair.turn(by);
            by = 1 - by;
        });
    });
    for (name, by, warm) in [("initiator", 0, 20), ("responder", 1, 20)] {
        let mut pair = Pair::new();
        for n in 0..warm {
            pair.turn(n % 2);
        }
        group.bench_function(format!("one-way send, {name}"), |b| b.iter(|| pair.send(by)));
    }
    let mut pair = Pair::new();
    for n in 0..20 {
        pair.turn(n % 2);
    }
    let messages: Vec<_> = (0..20_000).map(|_| pair.send(0)).collect();
    let receiver = pair.parties[1].clone();
    let (mut state, mut arriving) = (receiver.clone(), messages.iter());
    group.bench_function("one-way receive", |b| {
        b.iter(|| {
            let message = arriving.next().unwrap_or_else(|| {
                (state, arriving) = (receiver.clone(), messages.iter());
                arriving.next().unwrap()
            });
            let step = state.recv(black_box(message)).unwrap();
            state.commit(step.change);
            step.key
        });
    });
}

fn stored_form(c: &mut Criterion) {
    let mut group = c.benchmark_group("spqr stored form");
    for phase in ["K2", "C2", "C5"] {
        let (state, _) = in_phase(phase);
        let bytes = encode(&state);
        group.bench_function(format!("encode {phase}, {} bytes", bytes.len()), |b| {
            b.iter(|| encode(&state));
        });
        group.bench_function(format!("decode {phase}"), |b| {
            b.iter(|| Spqr::decode(black_box(&bytes)).unwrap());
        });
    }
}

criterion_group!(benches, sends, receives, conversations, stored_form);
criterion_main!(benches);
