//! Groups as stories, and the limits of sender keys (errors-and-limits, G rows), each by name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use proptest::sample::Index;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sha2::Sha256;
use std::collections::BTreeSet;
use tuckseal::{
    DecodeError, GroupDecryptError, GroupEncryptError, PrivateKey, SenderKey,
    SenderKeyDistributionMessage, SenderKeyError, SenderKeyMessage, SenderKeyRecord,
};

const GROUP: [u8; 16] = [7; 16];

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn sender(seed: u8) -> SenderKey {
    SenderKey::generate(GROUP, &mut rng(seed))
}

/// Somebody who was told this key now.
fn told(key: &SenderKey) -> SenderKeyRecord {
    let mut record = SenderKeyRecord::new();
    tell(&mut record, key);
    record
}

fn tell(record: &mut SenderKeyRecord, key: &SenderKey) {
    let message = key.distribution_message().encode();
    record.process(&SenderKeyDistributionMessage::decode(&message).unwrap());
}

fn send(key: &mut SenderKey, plaintext: &[u8]) -> Vec<u8> {
    let seed = key.iteration() as u8;
    key.encrypt(plaintext, &mut rng(seed)).unwrap()
}

/// Decrypts; an error must leave the record as it was.
fn read(record: &mut SenderKeyRecord, message: &[u8]) -> Result<Vec<u8>, GroupDecryptError> {
    let before = record.encode();
    let result = record.decrypt(&SenderKeyMessage::decode(message).unwrap());
    if result.is_err() {
        assert_eq!(*record.encode(), *before, "an error changed the record");
    }
    result
}

/// A chain of which everything is known: to write messages that no honest sender would.
struct Known {
    signing: PrivateKey,
    chain_id: u32,
}

impl Known {
    fn new(seed: u8) -> Self {
        Self { signing: PrivateKey::generate(&mut rng(seed)), chain_id: 5 }
    }

    fn key_at(&self, iteration: u32) -> SenderKeyDistributionMessage {
        let public = self.signing.public_key();
        SenderKeyDistributionMessage::new(GROUP, self.chain_id, iteration, &[9; 32], public)
    }

    fn told_at(&self, iteration: u32) -> SenderKeyRecord {
        let mut record = SenderKeyRecord::new();
        record.process(&self.key_at(iteration));
        record
    }

    fn message(&self, iteration: u32, body: &[u8]) -> Vec<u8> {
        let signing = &self.signing;
        SenderKeyMessage::sign(GROUP, self.chain_id, iteration, body, signing, &mut rng(1))
            .encode()
            .to_vec()
    }
}

#[test]
fn everybody_who_was_told_reads_and_a_newcomer_reads_from_then_on() {
    let mut alice = sender(1);
    let (mut bob, mut carol) = (told(&alice), told(&alice));
    let first = send(&mut alice, b"hello");
    assert_eq!(read(&mut bob, &first).unwrap(), b"hello");
    assert_eq!(read(&mut carol, &first).unwrap(), b"hello");

    let mut dave = told(&alice);
    let second = send(&mut alice, b"welcome, Dave");
    for member in [&mut bob, &mut carol, &mut dave] {
        assert_eq!(read(member, &second).unwrap(), b"welcome, Dave");
    }
    let past = read(&mut dave, &first);
    assert_eq!(past, Err(GroupDecryptError::Duplicate { iteration: 0 }));
}

#[test]
fn who_was_not_told_the_new_key_reads_nothing_more() {
    let mut alice = sender(1);
    let (mut bob, mut removed) = (told(&alice), told(&alice));
    send(&mut alice, b"before");
    alice = SenderKey::generate(GROUP, &mut rng(2));
    tell(&mut bob, &alice);
    let after = send(&mut alice, b"after");
    assert_eq!(read(&mut bob, &after).unwrap(), b"after");
    let chain_id = alice.chain_id();
    assert_eq!(read(&mut removed, &after), Err(GroupDecryptError::UnknownChain { chain_id }));
}

#[test]
fn late_messages_of_an_old_chain_are_read_after_the_new_one() {
    let mut old = sender(1);
    let mut bob = told(&old);
    let (late, later) = (send(&mut old, b"late"), send(&mut old, b"later"));
    let mut new = sender(2);
    tell(&mut bob, &new);
    assert_eq!(read(&mut bob, &send(&mut new, b"new")).unwrap(), b"new");
    assert_eq!(read(&mut bob, &later).unwrap(), b"later");
    assert_eq!(read(&mut bob, &late).unwrap(), b"late");
}

#[test]
fn a_repeated_distribution_message_moves_no_chain() {
    let mut alice = sender(1);
    let at_first = alice.distribution_message().encode();
    let at_first = SenderKeyDistributionMessage::decode(&at_first).unwrap();
    let mut bob = told(&alice);
    let (zero, one) = (send(&mut alice, b"0"), send(&mut alice, b"1"));
    read(&mut bob, &one).unwrap();
    // Neither back to where it began, nor on to where the sender is.
    let before = bob.encode();
    bob.process(&at_first);
    tell(&mut bob, &alice);
    assert_eq!(*bob.encode(), *before);
    assert_eq!(read(&mut bob, &one), Err(GroupDecryptError::Duplicate { iteration: 1 }));
    assert_eq!(read(&mut bob, &zero).unwrap(), b"0");
}

#[test]
fn a_repeated_distribution_message_makes_its_chain_the_newest() {
    let keys: Vec<SenderKey> = (1..=3).map(sender).collect();
    let mut bob = SenderKeyRecord::new();
    keys.iter().for_each(|key| tell(&mut bob, key));
    tell(&mut bob, &keys[0]);
    let order: Vec<u32> = bob.chain_ids().collect();
    assert_eq!(order, [keys[0].chain_id(), keys[2].chain_id(), keys[1].chain_id()]);
}

#[test]
fn the_same_chain_id_under_another_signing_key_replaces_the_chain() {
    let (first, second) = (Known::new(1), Known::new(2));
    let mut record = first.told_at(0);
    record.process(&second.key_at(0));
    assert_eq!(record.chain_ids().count(), 1);
    let refused = read(&mut record, &first.message(0, &[0; 16]));
    assert!(matches!(refused, Err(GroupDecryptError::Signature(_))));
}

#[test]
fn a_sixth_chain_drops_the_oldest() {
    let mut keys: Vec<SenderKey> = (1..=6).map(sender).collect();
    let mut bob = SenderKeyRecord::new();
    keys.iter().for_each(|key| tell(&mut bob, key));
    assert_eq!(bob.chain_ids().count(), 5);
    let messages: Vec<_> = keys.iter_mut().map(|key| send(key, b"hi")).collect();
    let chain_id = keys[0].chain_id();
    assert_eq!(read(&mut bob, &messages[0]), Err(GroupDecryptError::UnknownChain { chain_id }));
    for message in &messages[1..] {
        assert_eq!(read(&mut bob, message).unwrap(), b"hi");
    }
}

#[test]
fn g1_unknown_sender_or_chain() {
    let mut alice = sender(1);
    let message = send(&mut alice, b"hi");
    let unknown = Err(GroupDecryptError::UnknownChain { chain_id: alice.chain_id() });
    assert_eq!(read(&mut SenderKeyRecord::new(), &message), unknown);
    assert_eq!(read(&mut told(&sender(2)), &message), unknown);
}

/// A state has no other version, and a message of another does not decode: G2 is settled there.
#[test]
fn g2_messages_of_other_versions_do_not_decode() {
    let mut message = send(&mut sender(1), b"hi");
    message[0] = 0x43;
    let found = SenderKeyMessage::decode(&message).unwrap_err();
    assert_eq!(found, DecodeError::UnknownVersion { found: 4 });
    message[0] = 0x23;
    let found = SenderKeyMessage::decode(&message).unwrap_err();
    assert_eq!(found, DecodeError::LegacyVersion { found: 2 });
}

#[test]
fn g3_the_signature_is_checked_before_everything_else() {
    let known = Known::new(1);
    let mut record = known.told_at(10);
    // Each is wrong in its iteration too: the signature is what is reported.
    for iteration in [0, 9, 10, 10 + 25_001, u32::MAX] {
        let mut message = known.message(iteration, &[0; 16]);
        let last = message.len() - 1;
        message[last] ^= 0x40;
        assert!(matches!(read(&mut record, &message), Err(GroupDecryptError::Signature(_))));
        message[last] ^= 0x40;
        message[last - 32] ^= 1;
        assert!(matches!(read(&mut record, &message), Err(GroupDecryptError::Signature(_))));
        // The sign bit belongs to the key: the other one names another point.
        message[last - 32] ^= 1;
        message[last] ^= 0x80;
        assert!(matches!(read(&mut record, &message), Err(GroupDecryptError::Signature(_))));
    }
}

#[test]
fn g3_a_key_that_is_no_point_is_taken_and_verifies_nothing() {
    let known = Known::new(1);
    // u = 2 is on the twist.
    let mut u = [0; 32];
    u[0] = 2;
    let twist = tuckseal::PublicKey::from_u(u);
    let mut record = SenderKeyRecord::new();
    record.process(&SenderKeyDistributionMessage::new(GROUP, 5, 0, &[9; 32], twist));
    let refused = read(&mut record, &known.message(0, &[0; 16]));
    assert!(matches!(refused, Err(GroupDecryptError::Signature(_))));
}

#[test]
fn g3_a_signature_of_either_sign_is_judged_by_its_own_point() {
    let mut alice = sender(1);
    let mut bob = told(&alice);
    let (zero, one) = (send(&mut alice, b"0"), send(&mut alice, b"1"));
    // With the point of the good signature kept, a flipped sign still fails, and does not stick.
    read(&mut bob, &zero).unwrap();
    let mut flipped = one.clone();
    *flipped.last_mut().unwrap() ^= 0x80;
    assert!(matches!(read(&mut bob, &flipped), Err(GroupDecryptError::Signature(_))));
    assert_eq!(read(&mut bob, &one).unwrap(), b"1");
}

#[test]
fn g4_a_message_is_read_once() {
    let mut alice = sender(1);
    let mut bob = told(&alice);
    let (zero, one) = (send(&mut alice, b"0"), send(&mut alice, b"1"));
    read(&mut bob, &one).unwrap();
    assert_eq!(read(&mut bob, &one), Err(GroupDecryptError::Duplicate { iteration: 1 }));
    read(&mut bob, &zero).unwrap();
    assert_eq!(read(&mut bob, &zero), Err(GroupDecryptError::Duplicate { iteration: 0 }));
}

#[test]
fn g5_a_jump_of_25_000_is_taken_and_one_more_refused() {
    let known = Known::new(1);
    let mut record = known.told_at(100);
    let too_far = GroupDecryptError::TooFarAhead { ahead: 25_001, limit: 25_000 };
    assert_eq!(read(&mut record, &known.message(25_101, &[0; 16])), Err(too_far));
    // The body is no ciphertext: that it is judged at all shows that the jump was allowed.
    let invalid = Err(GroupDecryptError::Invalid);
    assert_eq!(read(&mut record, &known.message(25_100, &[0; 15])), invalid);
}

/// A sender put so many steps on, in its stored form (`src/group/codec.rs`).
fn sender_after(seed: u8, steps: u32) -> SenderKey {
    let mut stored = sender(seed).encode().to_vec();
    let mut chain_key: [u8; 32] = stored[21..53].try_into().unwrap();
    for _ in 0..steps {
        let step = Hmac::<Sha256>::new_from_slice(&chain_key).unwrap().chain_update([2]);
        chain_key = step.finalize().into_bytes().into();
    }
    stored[21..53].copy_from_slice(&chain_key);
    stored[53..57].copy_from_slice(&steps.to_be_bytes());
    SenderKey::decode(&stored).unwrap()
}

#[test]
fn g5_a_jump_to_the_limit_is_read_by_the_real_key() {
    let mut bob = told(&sender(1));
    let message = send(&mut sender_after(1, 25_000), b"far");
    assert_eq!(read(&mut bob, &message).unwrap(), b"far");
}

#[test]
fn a_record_has_a_bound_whatever_a_sender_does() {
    let mut bob = SenderKeyRecord::new();
    for seed in 1..=8 {
        tell(&mut bob, &sender(seed));
        for steps in [2_500, 6_000] {
            let message = send(&mut sender_after(seed, steps), b"far");
            read(&mut bob, &message).unwrap();
        }
    }
    assert_eq!(bob.encode().len(), 2 + 5 * (4 + 36 + 2 + 32 + 2_000 * 36));
}

#[test]
fn seeds_of_2000_skipped_messages_are_kept_and_the_oldest_go_first() {
    let mut alice = sender(1);
    let mut bob = told(&alice);
    let messages: Vec<_> = (0..2_011u32).map(|_| send(&mut alice, b"kept")).collect();
    read(&mut bob, &messages[5]).unwrap();
    read(&mut bob, &messages[2_010]).unwrap();
    // 5 + 2,004 were skipped: the first nine are gone, 0 to 4 and 6 to 9.
    for gone in [0, 4, 6, 9] {
        let duplicate = GroupDecryptError::Duplicate { iteration: gone as u32 };
        assert_eq!(read(&mut bob, &messages[gone]), Err(duplicate));
    }
    let bound = 2 + 4 + 36 + 2 + 32 + 2_000 * 36;
    assert_eq!(bob.encode().len(), bound);
    bob = SenderKeyRecord::decode(&bob.encode()).unwrap();
    for kept in [10, 11, 1_000, 2_009] {
        assert_eq!(read(&mut bob, &messages[kept]).unwrap(), b"kept");
    }
}

#[test]
fn g6_a_signed_body_that_is_no_ciphertext_is_invalid() {
    let known = Known::new(1);
    let mut record = known.told_at(0);
    for body in [&[][..], &[0; 15], &[0; 16], &[0; 17]] {
        let refused = read(&mut record, &known.message(3, body));
        assert_eq!(refused, Err(GroupDecryptError::Invalid), "{} bytes", body.len());
    }
}

#[test]
fn g6_a_bad_body_spends_no_skipped_seed() {
    let (mut alice, signing) = (sender(1), Known::new(1));
    // The chain of a real key under a signing key that we hold too.
    let key = alice.distribution_message();
    let stored = alice.encode();
    let chain_key: [u8; 32] = stored[21..53].try_into().unwrap();
    let mut record = SenderKeyRecord::new();
    let public = signing.signing.public_key();
    record.process(&SenderKeyDistributionMessage::new(GROUP, 5, 0, &chain_key, public));
    assert_eq!(key.iteration(), 0);
    let resign = |message: &[u8], iteration, body: Option<&[u8]>| {
        let message = SenderKeyMessage::decode(message).unwrap();
        signing.message(iteration, body.unwrap_or(message.ciphertext()))
    };
    let (zero, one) = (send(&mut alice, b"0"), send(&mut alice, b"1"));
    assert_eq!(read(&mut record, &resign(&one, 1, None)).unwrap(), b"1");
    let bad = resign(&zero, 0, Some(&[1; 16]));
    assert_eq!(read(&mut record, &bad), Err(GroupDecryptError::Invalid));
    assert_eq!(read(&mut record, &resign(&zero, 0, None)).unwrap(), b"0");
}

/// Our key at any iteration: written into the stored form (`src/group/codec.rs`).
fn sender_at(iteration: u32) -> SenderKey {
    let mut stored = sender(1).encode().to_vec();
    stored[53..57].copy_from_slice(&iteration.to_be_bytes());
    SenderKey::decode(&stored).unwrap()
}

#[test]
fn g7_the_last_iteration_is_2_to_the_32_less_2() {
    let mut alice = sender_at(u32::MAX - 1);
    let mut bob = told(&alice);
    let last = send(&mut alice, b"last");
    assert_eq!(read(&mut bob, &last).unwrap(), b"last");
    assert_eq!(
        read(&mut bob, &last),
        Err(GroupDecryptError::Duplicate { iteration: u32::MAX - 1 })
    );

    let before = alice.encode();
    assert_eq!(alice.encrypt(b"more", &mut rng(1)), Err(GroupEncryptError::Exhausted));
    assert_eq!(*alice.encode(), *before);
    // The key can still be told; who learns it now reads nothing.
    let mut carol = told(&alice);
    let known = Known::new(1);
    let mut told_at_end = known.told_at(u32::MAX);
    let exhausted = Err(GroupDecryptError::Exhausted);
    assert_eq!(read(&mut told_at_end, &known.message(u32::MAX, &[0; 16])), exhausted);
    assert_eq!(
        read(&mut carol, &last),
        Err(GroupDecryptError::Duplicate { iteration: u32::MAX - 1 })
    );
}

/// G8 cannot be written down: a [`SenderKey`] has a chain and its private key. What is left of the
/// row is stored bytes that are none.
#[test]
fn g8_stored_keys_that_are_damaged_or_newer_are_refused() {
    let own = sender(1).encode().to_vec();
    let mut record = told(&sender(1));
    read(&mut record, &{
        let mut key = sender(1);
        send(&mut key, b"skipped");
        send(&mut key, b"read")
    })
    .unwrap();
    let record = record.encode().to_vec();
    for len in 0..own.len() {
        assert_eq!(SenderKey::decode(&own[..len]).unwrap_err(), SenderKeyError::Damaged);
    }
    for len in 0..record.len() {
        assert_eq!(SenderKeyRecord::decode(&record[..len]).unwrap_err(), SenderKeyError::Damaged);
    }
    let longer = [&own[..], &[0]].concat();
    assert_eq!(SenderKey::decode(&longer).unwrap_err(), SenderKeyError::Damaged);
    let newer = [&[2], &own[1..]].concat();
    assert_eq!(SenderKey::decode(&newer).unwrap_err(), SenderKeyError::Format { found: 2 });
    let newer = [&[9], &record[1..]].concat();
    assert_eq!(SenderKeyRecord::decode(&newer).unwrap_err(), SenderKeyError::Format { found: 9 });
    // Twice the same chain, and six chains.
    let twice = [&[1, 2], &record[2..], &record[2..]].concat();
    assert_eq!(SenderKeyRecord::decode(&twice).unwrap_err(), SenderKeyError::Damaged);
    let mut six = vec![1, 6];
    for seed in 1..=6 {
        six.extend_from_slice(&told(&sender(seed)).encode()[2..]);
    }
    assert_eq!(SenderKeyRecord::decode(&six).unwrap_err(), SenderKeyError::Damaged);
}

#[test]
fn nothing_secret_is_printed() {
    let alice = sender(1);
    let shown = format!("{:?} {:?} {:?}", alice, told(&alice), alice.distribution_message());
    let secrets = alice.encode();
    for window in secrets[21..53].windows(2) {
        assert!(!shown.contains(&hex::encode(window)), "{shown}");
    }
    assert!(shown.contains("iteration: 0"), "{shown}");
}

// A sender that changes its key now and then, and a receiver behind a network that reorders, repeats,
// loses and changes what is under way.

#[derive(Clone, Debug)]
enum Step {
    Send,
    Deliver(Index),
    Drop(Index),
    Repeat(Index),
    Corrupt(Index, Index, u8),
    RestartSender,
    RestartReceiver,
    NewKey,
    TellAgain(Index),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        8 => Just(Step::Send),
        8 => index().prop_map(Step::Deliver),
        1 => index().prop_map(Step::Drop),
        2 => index().prop_map(Step::Repeat),
        2 => (index(), index(), 1..=255u8).prop_map(|(at, byte, flip)| Step::Corrupt(at, byte, flip)),
        1 => Just(Step::RestartSender),
        1 => Just(Step::RestartReceiver),
        1 => Just(Step::NewKey),
        1 => index().prop_map(Step::TellAgain),
    ]
}

struct World {
    key: SenderKey,
    told: Vec<Vec<u8>>,
    record: SenderKeyRecord,
    under_way: Vec<(u32, Vec<u8>)>,
    read: BTreeSet<u32>,
    sent: u32,
    rng: ChaCha20Rng,
}

impl World {
    fn new() -> Self {
        let key = sender(1);
        let record = told(&key);
        let told = vec![key.distribution_message().encode().to_vec()];
        let (under_way, read) = (Vec::new(), BTreeSet::new());
        Self { key, told, record, under_way, read, sent: 0, rng: rng(2) }
    }

    fn pick(&self, which: &Index) -> Option<usize> {
        (!self.under_way.is_empty()).then(|| which.index(self.under_way.len()))
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Send => {
                let message = self.key.encrypt(&self.sent.to_be_bytes(), &mut self.rng).unwrap();
                self.under_way.push((self.sent, message));
                self.sent += 1;
            }
            Step::NewKey => {
                self.key = SenderKey::generate(GROUP, &mut self.rng);
                tell(&mut self.record, &self.key);
                self.told.push(self.key.distribution_message().encode().to_vec());
            }
            Step::TellAgain(which) => {
                // One of a chain that was given up would bring it back at its beginning: as W§12 has
                // it, and why distribution messages travel in sessions, which read each once.
                let kept: BTreeSet<u32> = self.record.chain_ids().collect();
                let message = &self.told[which.index(self.told.len())];
                let message = SenderKeyDistributionMessage::decode(message).unwrap();
                if kept.contains(&message.chain_id()) {
                    self.record.process(&message);
                }
            }
            Step::RestartSender => self.key = SenderKey::decode(&self.key.encode()).unwrap(),
            Step::RestartReceiver => {
                self.record = SenderKeyRecord::decode(&self.record.encode()).unwrap();
            }
            Step::Drop(which) => {
                self.pick(which).map(|at| self.under_way.swap_remove(at));
            }
            Step::Deliver(which) => {
                if let Some(at) = self.pick(which) {
                    let (number, message) = self.under_way.swap_remove(at);
                    self.deliver(number, &message);
                }
            }
            Step::Repeat(which) => {
                if let Some(at) = self.pick(which) {
                    let (number, message) = self.under_way[at].clone();
                    self.deliver(number, &message);
                }
            }
            Step::Corrupt(which, byte, flip) => {
                if let Some(at) = self.pick(which) {
                    let mut message = self.under_way[at].1.clone();
                    let place = byte.index(message.len());
                    message[place] ^= flip;
                    if SenderKeyMessage::decode(&message).is_ok() {
                        let changed = read(&mut self.record, &message);
                        assert!(changed.is_err(), "byte {place} was changed unnoticed");
                    }
                }
            }
        }
    }

    fn deliver(&mut self, number: u32, message: &[u8]) {
        match read(&mut self.record, message) {
            Ok(plaintext) => {
                assert_eq!(plaintext, number.to_be_bytes(), "a wrong plaintext");
                assert!(self.read.insert(number), "read twice");
            }
            Err(GroupDecryptError::Duplicate { .. }) => {
                assert!(self.read.contains(&number), "an unread message called a duplicate");
            }
            Err(GroupDecryptError::UnknownChain { .. }) => {
                assert!(self.record.chain_ids().count() == 5, "a chain was given up early");
            }
            Err(other) => panic!("message {number}: {other}"),
        }
    }
}

proptest! {
    #[test]
    fn messages_are_read_at_most_once_and_unchanged(
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        let last = world.key.encrypt(&world.sent.to_be_bytes(), &mut world.rng).unwrap();
        world.deliver(world.sent, &last);
        prop_assert!(world.read.contains(&world.sent), "no longer reading");
    }
}
