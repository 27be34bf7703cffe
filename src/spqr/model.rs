//! Two parties over a network that loses, reorders, repeats and corrupts; and hostile stored states.
//!
//! The model knows the key of every message that was sent. Whatever arrives, a receiver gives that
//! key or an error, and an error leaves its state as it was.

use super::erasure::Chunk;
use super::message::{Message, Payload};
use super::{ChainLimits, Change, Direction, MinVersion, Spqr, SpqrError};
use crate::crypto::secret::Secret;
use crate::keys::PqrKey;
use alloc::vec::Vec;
use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

struct Network {
    parties: [Spqr; 2],
    /// Messages on their way to each party.
    queues: [Vec<Sent>; 2],
    rng: ChaCha20Rng,
}

#[derive(Clone)]
struct Sent {
    message: Vec<u8>,
    key: Option<[u8; 32]>,
}

/// Chances out of 100.
#[derive(Clone, Copy, Debug)]
struct Weather {
    lost: u32,
    repeated: u32,
    reordered: u32,
    corrupted: u32,
}

const FAIR: Weather = Weather { lost: 0, repeated: 0, reordered: 0, corrupted: 0 };

fn party(direction: Direction, min_version: MinVersion) -> Spqr {
    let key = PqrKey::new(Secret::new([9; 32]));
    Spqr::new(direction, min_version, &key, ChainLimits::DEFAULT)
}

/// A failing call must not change the encoded state. What succeeds is given with its change.
fn recv_checked(state: &Spqr, message: &[u8]) -> Result<(Option<[u8; 32]>, Change), SpqrError> {
    let before = state.encode();
    let outcome = state.recv(message);
    assert_eq!(state.encode(), before);
    outcome.map(|step| (step.key.map(|key| *key.as_bytes()), step.change))
}

impl Network {
    fn new(seed: u64) -> Self {
        let parties = [Direction::A2B, Direction::B2A].map(|d| party(d, MinVersion::V1));
        let queues = [Vec::new(), Vec::new()];
        Self { parties, queues, rng: ChaCha20Rng::seed_from_u64(seed) }
    }

    fn chance(&mut self, of_100: u32) -> bool {
        self.rng.random_range(0..100) < of_100
    }

    fn send(&mut self, by: usize, weather: Weather) {
        let step = self.parties[by].send(&mut self.rng).unwrap();
        self.parties[by].commit(step.change);
        let key = step.key.map(|key| *key.as_bytes());
        let sent = Sent { message: step.message, key };
        if self.chance(weather.lost) {
            return;
        }
        let copies = if self.chance(weather.repeated) { 2 } else { 1 };
        self.queues[1 - by].extend(core::iter::repeat_n(sent, copies));
    }

    fn deliver(&mut self, to: usize, weather: Weather) {
        if self.queues[to].is_empty() {
            return;
        }
        let newest = self.queues[to].len();
        let at = if self.chance(weather.reordered) { self.rng.random_range(0..newest) } else { 0 };
        let Sent { message, key } = self.queues[to].remove(at);
        if self.chance(weather.corrupted) {
            self.deliver_corrupted(to, &message);
        }
        match recv_checked(&self.parties[to], &message) {
            Ok((given, change)) => {
                assert_eq!(given, key, "a wrong key");
                self.parties[to].commit(change);
            }
            // A copy of one that was delivered, or one that came after its epoch was dropped.
            Err(SpqrError::KeyAlreadyRequested { .. } | SpqrError::EpochOutOfRange) => {
                assert!(weather.repeated > 0 || weather.reordered > 0);
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// The MAC around it would fail, so nothing of it is ever committed.
    fn deliver_corrupted(&mut self, to: usize, message: &[u8]) {
        let mut message = message.to_vec();
        let at = self.rng.random_range(0..message.len());
        message[at] ^= 1 << self.rng.random_range(0..8);
        let before = self.parties[to].encode();
        drop(self.parties[to].recv(&message));
        assert_eq!(self.parties[to].encode(), before);
    }

    /// Saves and loads one party.
    fn restart(&mut self, who: usize) {
        self.parties[who] = Spqr::decode(&self.parties[who].encode()).unwrap();
    }

    fn epoch(&self, who: usize) -> u64 {
        match &self.parties[who] {
            Spqr::On(v1) => v1.braid.epoch,
            Spqr::Off => 0,
        }
    }

    fn run(&mut self, steps: usize, weather: Weather) {
        for _ in 0..steps {
            let who = self.rng.random_range(0..2);
            match self.rng.random_range(0..40) {
                0 => self.restart(who),
                1..20 => self.send(who, weather),
                _ => self.deliver(who, weather),
            }
            assert!(stored_bytes(&self.parties[who]) <= Spqr::MAX_ENCODED_LEN);
        }
    }
}

fn stored_bytes(state: &Spqr) -> usize {
    state.encode().len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_receiver_gives_the_sender_s_key_or_an_error(
        seed: u64, lost in 0u32..90, repeated in 0u32..30, reordered in 0u32..60, corrupted in 0u32..20,
    ) {
        Network::new(seed).run(600, Weather { lost, repeated, reordered, corrupted });
    }

    #[test]
    fn a_stored_state_survives_loading(seed: u64, steps in 0usize..400) {
        let mut network = Network::new(seed);
        network.run(steps, Weather { lost: 20, repeated: 5, reordered: 20, corrupted: 0 });
        for state in &network.parties {
            let encoded = state.encode();
            prop_assert_eq!(Spqr::decode(&encoded).unwrap().encode(), encoded);
        }
    }

    #[test]
    fn a_damaged_stored_state_is_refused_or_harmless(seed: u64, steps in 0usize..300, cut: usize, at: usize, bit in 0u32..8) {
        let mut network = Network::new(seed);
        network.run(steps, FAIR);
        let encoded = network.parties[steps % 2].encode();
        prop_assert!(Spqr::decode(&encoded[..1 + cut % (encoded.len() - 1)]).is_err());
        let mut damaged = encoded.to_vec();
        damaged[at % encoded.len()] ^= 1 << bit;
        if let Ok(state) = Spqr::decode(&damaged) {
            drop(state.send(&mut network.rng));
            for sent in network.queues.iter().flatten().take(20) {
                drop(state.recv(&sent.message));
            }
        }
    }

    #[test]
    fn arbitrary_messages_do_not_change_or_stop_a_party(seed: u64, steps in 0usize..200, kind in 0u8..8, bytes: Vec<u8>) {
        let mut network = Network::new(seed);
        network.run(steps, FAIR);
        let hostile = [&[1, 1 + seed as u8 % 3, bytes.len() as u8, kind][..], &bytes].concat();
        for state in &network.parties {
            drop(recv_checked(state, &bytes));
            drop(recv_checked(state, &hostile));
        }
    }
}

proptest! {
    #[test]
    fn decode_and_import_do_not_panic(bytes: Vec<u8>) {
        drop(Spqr::decode(&bytes));
        drop(Spqr::decode(&[&[1, 0, 0][..], &bytes].concat()));
        drop(Spqr::import(&bytes));
    }
}

/// Two million steps. Run in release mode: a minute or two.
#[test]
#[ignore = "long: cargo test --release -p tuckseal --lib spqr -- --ignored"]
fn soak() {
    let mut weather_of = ChaCha20Rng::seed_from_u64(1);
    for seed in 0..100 {
        let mut chance = |most: u32| weather_of.random_range(0..=most);
        let (lost, repeated, reordered, corrupted) =
            (chance(89), chance(30), chance(60), chance(20));
        Network::new(seed).run(20_000, Weather { lost, repeated, reordered, corrupted });
    }
}

#[test]
fn epochs_advance_under_every_loss_below_90_percent() {
    for lost in [0, 30, 60, 85, 89] {
        let mut network = Network::new(u64::from(lost));
        let weather = Weather { lost, ..FAIR };
        // Lockstep without loss completes an epoch in 87 messages; the rest is what loss costs.
        let mut messages = 0;
        while network.epoch(0).min(network.epoch(1)) < 4 {
            for who in [0, 1] {
                network.send(who, weather);
                network.deliver(1 - who, weather);
                messages += 1;
            }
            assert!(messages < 87 * 4 * 100 / (100 - lost as usize) * 4, "{lost} % lost");
        }
    }
}

#[test]
fn lockstep_completes_an_epoch_in_87_messages() {
    let mut network = Network::new(0);
    for n in 0..86 {
        network.send(n % 2, FAIR);
        network.deliver(1 - n % 2, FAIR);
    }
    assert_eq!((network.epoch(0), network.epoch(1)), (2, 1));
    network.send(0, FAIR);
    network.deliver(1, FAIR);
    assert_eq!((network.epoch(0), network.epoch(1)), (2, 2));
}

/// Somebody copies a party's whole state and then listens. They follow every message, and answer in
/// the party's place as it would: only what it draws afresh they do not have.
fn messages_until_healed(leaked: usize, at: usize) -> usize {
    let mut network = Network::new(at as u64);
    let mut thief: Option<Spqr> = None;
    let mut guessing = ChaCha20Rng::seed_from_u64(77);
    let mut last_known = 0;
    for n in 0..at + 6 * 87 {
        if n == at {
            thief = Some(network.parties[leaked].clone());
        }
        let (from, to) = (n % 2, 1 - n % 2);
        network.send(from, FAIR);
        let Sent { message, key } = network.queues[to].pop().unwrap();
        let step = network.parties[to].recv(&message).unwrap();
        network.parties[to].commit(step.change);
        let Some(thief) = &mut thief else { continue };
        let stolen = if from == leaked {
            let step = thief.send(&mut guessing).unwrap();
            thief.commit(step.change);
            step.key.map(|key| *key.as_bytes())
        } else {
            // What their wrong secrets make of it need not fit; then they know nothing of it.
            thief.recv(&message).ok().and_then(|step| {
                let key = step.key.map(|key| *key.as_bytes());
                thief.commit(step.change);
                key
            })
        };
        if stolen == key {
            last_known = n + 1 - at;
        }
    }
    last_known
}

/// S§12: an epoch takes 87 messages in lockstep. What leaks in one epoch may hold the secrets of that
/// one; the next has a fresh one of the party itself, and its keys are used when it is complete.
#[test]
fn after_a_leak_two_epochs_heal() {
    let mut longest = 0;
    for leaked in [0, 1] {
        for at in (0..2 * 87).step_by(5) {
            let known = messages_until_healed(leaked, at);
            assert!(known <= 2 * 87, "party {leaked}, leaked after {at}: {known} messages");
            longest = longest.max(known);
        }
    }
    assert!(longest > 87, "the thief of this test cannot even follow one epoch: {longest}");
}

#[test]
fn at_most_three_links_are_kept_and_old_sending_keys_are_gone() {
    let mut network = Network::new(3);
    for n in 0..1_000 {
        network.send(n % 2, FAIR);
        network.deliver(1 - n % 2, FAIR);
        for state in &network.parties {
            let Spqr::On(v1) = state else { panic!("on") };
            let chain = v1.chain.as_ref().unwrap();
            assert!(chain.links.len() <= 3);
            let first = chain.current_epoch + 1 - chain.links.len() as u64;
            for (epoch, link) in (first..).zip(&chain.links) {
                assert_eq!(link.send.key().is_some(), epoch >= chain.send_epoch);
            }
        }
    }
}

#[test]
fn a_peer_that_skips_keys_for_ever_fills_a_bounded_state() {
    let mut network = Network::new(4);
    for round in 0..12 {
        for _ in 0..(1_999 - round % 7) {
            let step = network.parties[0].send(&mut network.rng).unwrap();
            network.parties[0].commit(step.change);
        }
        network.send(0, FAIR);
        network.deliver(1, FAIR);
        assert!(stored_bytes(&network.parties[1]) <= 5 * 1024 + 2_200 * 36);
    }
}

#[test]
fn a_peer_without_spqr_is_refused_or_taken_once_and_for_all() {
    let strict = party(Direction::A2B, MinVersion::V1);
    assert_eq!(strict.recv(&[]).err(), Some(SpqrError::MinimumVersion));
    let mut open = party(Direction::A2B, MinVersion::V0);
    let sent = open.send(&mut ChaCha20Rng::seed_from_u64(5)).unwrap();
    assert!(sent.key.is_none(), "a peer without SPQR could not read it");
    open.commit(sent.change);
    let taken = open.recv(&[]).unwrap();
    assert!(open.is_negotiating(), "nothing is switched off before the MAC was verified");
    open.commit(taken.change);
    assert!(open.is_off() && open.encode().is_empty());
    assert!(open.send(&mut ChaCha20Rng::seed_from_u64(6)).unwrap().message.is_empty());
}

#[test]
fn once_agreed_other_versions_are_refused() {
    let mut network = Network::new(7);
    let later = [2, 1, 1];
    assert!(network.parties[1].recv(&later).unwrap().key.is_none(), "still open");
    network.send(0, FAIR);
    network.deliver(1, FAIR);
    assert_eq!(network.parties[1].recv(&later).err(), Some(SpqrError::VersionMismatch));
    assert_eq!(network.parties[1].recv(&[]).err(), Some(SpqrError::VersionMismatch));
}

#[test]
fn a_message_without_a_header_is_refused_even_when_off() {
    for bad in [&[1][..], &[1, 0, 0], &[2, 1], &[1, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F]] {
        assert_eq!(Spqr::Off.recv(bad).err(), Some(SpqrError::MessageDecode));
    }
    for good in [&[][..], &[1, 1, 0], &[9, 1, 0, 77]] {
        assert!(Spqr::Off.recv(good).unwrap().key.is_none());
    }
}

#[test]
fn a_change_planned_on_another_state_does_not_panic() {
    let mut network = Network::new(8);
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let states: Vec<Spqr> = (0..200)
        .map(|n| {
            network.send(n % 2, FAIR);
            network.deliver(1 - n % 2, FAIR);
            network.parties[n % 2].clone()
        })
        .collect();
    let chunk = Chunk { index: 40, data: [1; 32] };
    let message = Message { epoch: 1, index: 90, payload: Payload::Ct1(chunk) }.encode();
    for (from, to) in states.iter().zip(states.iter().rev()) {
        let mut to = to.clone();
        to.commit(from.send(&mut rng).unwrap().change);
        if let Ok(step) = from.recv(&message) {
            to.commit(step.change);
        }
        drop(to.send(&mut rng));
    }
}
