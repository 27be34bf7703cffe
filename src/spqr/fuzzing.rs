//! What the fuzz targets of the ratchet assert for any bytes (S§3, 4, and the stored form). They are in
//! here because the ratchet has no public API, and raw bytes cannot get past the MAC around its
//! messages. Compiled for tests and with `--cfg fuzzing` alone; `fuzz/` runs them.

use super::message::{Message, has_header};
use super::{ChainLimits, Direction, MinVersion, Spqr};
use crate::crypto::secret::Secret;
use crate::keys::PqrKey;
use alloc::{vec, vec::Vec};
use core::convert::Infallible;
use rand_core::{TryCryptoRng, TryRng};
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Small, so that a few messages reach them.
const LIMITS: ChainLimits = ChainLimits { max_jump: 60, max_ooo: 20 };
/// What [`Spqr::encode`] promises, with these limits: keys of three epochs, a tenth over the limit.
const STATE_BOUND: usize = 5 * 1024 + 3 * 22 * 36;
/// Messages of the conversation behind [`MOMENTS`]: both parties get through three epochs.
const MESSAGES: usize = 500;
/// Messages that are kept for each moment.
const NEXT: usize = 6;

/// One party in the middle of a conversation, and what it is about to receive.
struct Moment {
    state: Spqr,
    next: Vec<Vec<u8>>,
}

/// A moment in every phase of every epoch on both sides, states that only began, and one that is off.
static MOMENTS: LazyLock<Vec<Moment>> = LazyLock::new(|| {
    let mut rng = Counter(0);
    let mut parties = [Direction::A2B, Direction::B2A].map(|side| begun(side, MinVersion::V1));
    let alone = |state| Moment { state, next: vec![Vec::new()] };
    let mut moments = vec![
        alone(Spqr::Off),
        alone(begun(Direction::A2B, MinVersion::V0)),
        alone(begun(Direction::B2A, MinVersion::V0)),
    ];
    let (mut seen, mut of) = (BTreeSet::new(), [Vec::new(), Vec::new()]);
    for n in 0..MESSAGES {
        let (from, to) = (n % 2, 1 - n % 2);
        for who in [from, to] {
            if seen.insert((who, alloc::format!("{:?}", parties[who]))) {
                of[who].push(moments.len());
                moments.push(Moment { state: parties[who].clone(), next: Vec::new() });
            }
        }
        let sent = parties[from].send(&mut rng).expect("an honest party sends");
        parties[from].commit(sent.change);
        for at in &of[to] {
            if moments[*at].next.len() < NEXT {
                moments[*at].next.push(sent.message.clone());
            }
        }
        // Some are lost, so that there are keys of skipped messages; at times most of one side's,
        // so that each overtakes the other.
        let lost = n % 7 == 6 || (n / 100 % 3 == from + 1 && n % 8 > 1);
        if !lost {
            let read = parties[to].recv(&sent.message).expect("an honest message is read");
            parties[to].commit(read.change);
        }
    }
    moments
});

fn begun(direction: Direction, min_version: MinVersion) -> Spqr {
    Spqr::new(direction, min_version, &PqrKey::new(Secret::new([9; 32])), LIMITS)
}

/// Message bytes: what decodes has a header, and is read the same when it is written again.
pub fn message(data: &[u8]) {
    if let Ok(message) = Message::decode(data) {
        assert!(has_header(data));
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
}

/// `moment | each: length 1, message`: messages of a peer that holds the keys and says what it
/// likes, each answered by one of ours. A refused one changes nothing; no state outgrows its bound;
/// the party can go on sending.
pub fn recv(data: &[u8]) {
    let Some((moment, mut rest)) = data.split_first() else { return };
    let mut state = MOMENTS[usize::from(*moment) % MOMENTS.len()].state.clone();
    let mut rng = Counter(1 << 32);
    while let Some((len, tail)) = rest.split_first() {
        let (message, tail) = tail.split_at(tail.len().min((*len).into()));
        rest = tail;
        let before = state.encode();
        match state.recv(message) {
            Ok(step) => {
                assert_eq!(state.encode(), before, "planning changed the state");
                state.commit(step.change);
            }
            Err(_) => assert_eq!(state.encode(), before, "an error changed the state"),
        }
        let answer = state.send(&mut rng).expect("a party can always send");
        state.commit(answer.change);
        let stored = state.encode();
        assert!(stored.len() <= STATE_BOUND, "{} bytes", stored.len());
        assert_eq!(Spqr::decode(&stored).expect("a state reads what it wrote").encode(), stored);
    }
}

/// Stored bytes: what is taken for a state is written the same, and can be used without a panic.
pub fn state(data: &[u8]) {
    let Ok(state) = Spqr::decode(data) else { return };
    assert_eq!(&*state.encode(), data);
    let mut rng = Counter(2 << 32);
    if let Ok(sent) = state.send(&mut rng) {
        let mut state = state.clone();
        state.commit(sent.change);
        Spqr::decode(&state.encode()).expect("a state reads what it wrote");
    }
    for message in MOMENTS.iter().flat_map(|moment| &moment.next).step_by(5).take(40) {
        if let Ok(step) = state.recv(message) {
            let mut state = state.clone();
            state.commit(step.change);
            Spqr::decode(&state.encode()).expect("a state reads what it wrote");
        }
    }
}

/// Inputs for [`recv`]: each moment, with what the peer sent next, and with that twice.
pub fn recv_seeds() -> Vec<Vec<u8>> {
    let seed = |(place, moment): (usize, &Moment)| {
        let mut seed = vec![u8::try_from(place).expect("fewer than 256 moments")];
        for message in moment.next.iter().chain(&moment.next) {
            seed.push(message.len().try_into().expect("a message is short"));
            seed.extend(message);
        }
        seed
    };
    MOMENTS.iter().enumerate().map(seed).collect()
}

/// Inputs for [`state`].
pub fn state_seeds() -> Vec<Vec<u8>> {
    MOMENTS.iter().map(|moment| moment.state.encode().to_vec()).collect()
}

/// Counts instead of drawing: a fuzz input has to mean the same every time.
struct Counter(u64);

impl TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|n| n as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 += 1;
        Ok(self.0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0 += 1;
        let count = self.0.to_be_bytes();
        bytes.iter_mut().zip(count.iter().cycle()).for_each(|(byte, count)| *byte = *count);
        Ok(())
    }
}

impl TryCryptoRng for Counter {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// What the fuzzer once found, and what it begins with.
    fn replay(target: &str, check: fn(&[u8]), seeds: &[Vec<u8>]) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions").join(target);
        for entry in fs::read_dir(folder).into_iter().flatten() {
            check(&fs::read(entry.unwrap().path()).unwrap());
        }
        seeds.iter().for_each(|seed| check(seed));
    }

    #[test]
    fn fuzz_targets_hold_for_their_seeds_and_for_what_was_found() {
        let seeds = recv_seeds();
        let messages: Vec<_> = MOMENTS.iter().flat_map(|moment| moment.next.clone()).collect();
        replay("decode_spqr_message", message, &messages);
        replay("spqr_recv", recv, &seeds);
        replay("spqr_state", state, &state_seeds());
    }

    #[test]
    fn the_moments_are_in_every_phase_on_both_sides() {
        let phases: BTreeSet<_> = MOMENTS
            .iter()
            .filter_map(|moment| match &moment.state {
                Spqr::On(v1) => Some((v1.braid.phase_name(), v1.braid.epoch)),
                Spqr::Off => None,
            })
            .collect();
        let names: BTreeSet<_> = phases.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 11, "{phases:?}");
        assert!(phases.iter().any(|(_, epoch)| *epoch > 3));
    }
}
