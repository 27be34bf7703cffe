//! Long random walks of two parties, with backups restored on the way. The short ones run with every
//! other test; the long one is `just soak`. A failing walk names its seed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod story;

use rand::RngExt;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use story::world::{Side, Step, World};
use tuckseal::SessionRecord;

/// Messages that are under way at once, at most: more are lost, so that a walk does not only grow.
const UNDER_WAY: usize = 400;

/// How a walk goes: chances out of a thousand.
#[derive(Clone, Copy, Debug)]
struct Weather {
    lost: u32,
    repeated: u32,
    corrupted: u32,
    begun: u32,
    restored: u32,
}

struct Walk {
    world: World,
    rng: ChaCha20Rng,
    weather: Weather,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut chance = |most: u32| rng.random_range(0..=most);
        let weather = Weather {
            lost: chance(890),
            repeated: chance(300),
            corrupted: chance(200),
            begun: chance(3),
            restored: chance(3),
        };
        Self { world: World::new(), rng, weather }
    }

    fn chance(&mut self, of_1000: u32) -> bool {
        self.rng.random_range(0..1_000) < of_1000
    }

    fn side(&mut self) -> Side {
        if self.rng.random() { Side::Alice } else { Side::Bob }
    }

    fn step(&mut self) {
        let who = self.side();
        match self.rng.random_range(0..100) {
            0 => self.world.run(Step::Restart(who)),
            1 => self.world.run(Step::Save(who)),
            2..50 => self.world.run(Step::Send(who)),
            _ => self.network(who),
        }
        if self.chance(self.weather.begun) {
            self.world.run(Step::Begin(who));
        }
        if self.chance(self.weather.restored) {
            self.world.run(Step::RollBack(who));
            // For a while nobody notices; whatever arrives is read right or refused by name.
            for _ in 0..self.rng.random_range(0..60) {
                let side = self.side();
                self.world.run(Step::Send(side));
                self.network(side);
            }
            self.world.heal(who);
        }
    }

    /// Something happens to a message on its way to this side.
    fn network(&mut self, to: Side) {
        let at = self.rng.random::<u32>() as usize;
        if self.chance(self.weather.corrupted) {
            let (place, change) = (self.rng.random::<u32>(), self.rng.random_range(1..=255));
            self.world.run(Step::Corrupt(to, at, place as usize, change));
        }
        if self.chance(self.weather.repeated) {
            self.world.run(Step::Repeat(to, at));
        }
        let lost = self.chance(self.weather.lost) || self.world.waiting(to) > UNDER_WAY;
        self.world.run(if lost { Step::Drop(to, at) } else { Step::Deliver(to, at) });
    }
}

/// The largest record that a walk has seen; it panics, with its seed, where a rule is broken.
fn walk(seed: u64, steps: usize) -> usize {
    let mut walk = Walk::new(seed);
    let weather = walk.weather;
    let done = catch_unwind(AssertUnwindSafe(|| {
        (0..steps).for_each(|_| walk.step());
        walk.world.assert_still_talking();
        walk.world.largest_record
    }));
    done.unwrap_or_else(|panic| {
        eprintln!("seed {seed}, {weather:?}");
        resume_unwind(panic)
    })
}

#[test]
fn short_walks() {
    for seed in 0..12 {
        walk(seed, 1_500);
    }
}

/// A peer that sends as many messages as it may skip, in as many chains as are kept.
#[test]
fn a_peer_that_skips_all_it_may_fills_a_bounded_record() {
    let (mut alice, mut bob) = story::talking();
    for _ in 0..7 {
        let sent = (0..2_001).map(|_| alice.encrypt(bob.address(), b"skipped").unwrap());
        let last = sent.last().unwrap();
        bob.decrypt(alice.address(), last.kind, &last.body).unwrap();
        let turn = bob.encrypt(alice.address(), b"turn").unwrap();
        alice.decrypt(bob.address(), turn.kind, &turn.body).unwrap();
    }
    let len = bob.sessions[&alice.address()].encode().len();
    assert!(len > 5 * 2_000 * 36, "the chains are not full: {len}");
    assert!(len <= SessionRecord::MAX_ENCODED_LEN / 41, "{len}");
}

/// Three million steps, or as many as `TUCKSEAL_SOAK_STEPS` says, from `TUCKSEAL_SOAK_SEED` on.
#[test]
#[ignore = "minutes: just soak"]
fn long_walks() {
    let number = |name, default| {
        std::env::var(name).map_or(default, |text| text.parse::<u64>().expect("a number"))
    };
    let (first, steps) =
        (number("TUCKSEAL_SOAK_SEED", 1_000), number("TUCKSEAL_SOAK_STEPS", 3_000_000));
    let each = 30_000;
    let largest = (first..first + steps.div_ceil(each)).map(|seed| walk(seed, each as usize)).max();
    println!(
        "{steps} steps from seed {first} on; the largest record had {} bytes",
        largest.unwrap()
    );
}
