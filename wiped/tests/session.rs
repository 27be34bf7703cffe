//! The keys of a session are not left in memory that was given back: not when a chain moves on, not when the list of skipped
//! keys grows, not when the ratchets enter another epoch, and not when a record is read and dropped.
//!
//! One alone in a block is let pass. A value that does not fill its place, of an enum for instance, is written with whatever lay on the
//! stack where it was made, and safe code does not reach what is between. A list or state that was not wiped has more of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "../../tests/story/mod.rs"]
mod story;

use rand_chacha::rand_core::Rng;
use std::cell::RefCell;
use std::collections::BTreeSet;
use story::{KemKind, Offer, Party, begin, talking};
use tuckseal::{Address, Encrypted, SessionRecord};
use tuckseal_wiped::{LookingAllocator, most_in_one_block};

#[global_allocator]
static ALLOCATOR: LookingAllocator = LookingAllocator;

/// Reads the current session of a stored record (`src/session/codec.rs`, `src/spqr/state/`).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head
    }

    fn number(&mut self, len: usize) -> usize {
        self.bytes(len).iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
    }

    fn key(&mut self, found: &mut Vec<[u8; 8]>) {
        found.push(self.bytes(32)[..8].try_into().unwrap());
    }

    /// Keys of skipped messages, each behind its number.
    fn skipped(&mut self, count: usize, found: &mut Vec<[u8; 8]>) {
        for _ in 0..count {
            self.number(4);
            self.key(found);
        }
    }
}

/// The first bytes of every key of the chains and roots in it.
fn secrets(record: &SessionRecord) -> Vec<[u8; 8]> {
    let (stored, mut found) = (record.encode(), Vec::new());
    let mut input = Reader(&stored);
    assert_eq!(input.number(1), 1, "the format");
    let current = input.number(4);
    if current > 0 {
        of_session(Reader(input.bytes(current)), &mut found);
    }
    for _ in 0..input.number(1) {
        let archived = input.number(4);
        of_session(Reader(input.bytes(archived)), &mut found);
    }
    found
}

fn of_session(mut input: Reader<'_>, found: &mut Vec<[u8; 8]>) {
    // Version, base key and identities, registration ids, previous counter; root, private ratchet key.
    input.bytes(1 + 3 * 32 + 3 * 4);
    input.key(found);
    input.key(found);
    input.bytes(32);
    input.key(found);
    input.bytes(4);
    for _ in 0..input.number(1) {
        input.bytes(32);
        input.key(found);
        input.bytes(4);
        let count = input.number(2);
        input.skipped(count, found);
    }
    assert_eq!(input.number(2), 0, "no ready keys");
    assert!(input.number(4) > 0 && input.number(1) == 1, "the post-quantum ratchet is on");
    if input.number(1) == 1 {
        input.bytes(1 + 1 + 8);
        let len = input.number(2);
        found.push(input.bytes(len)[..8].try_into().unwrap());
    }
    if input.number(1) == 1 {
        input.bytes(1 + 8 + 8 + 8);
        input.key(found);
        for _ in 0..input.number(1) {
            input.bytes(4);
            if input.number(1) == 1 {
                input.key(found);
            }
            input.bytes(4);
            input.key(found);
            let count = input.number(4);
            input.skipped(count, found);
        }
    }
    input.bytes(8);
    input.key(found);
    input.key(found);
}

/// All keys that any record ever had.
#[derive(Default)]
struct Watch {
    seen: BTreeSet<[u8; 8]>,
}

impl Watch {
    /// Does something to a party, which may leave nothing behind of what was known before and will be after. It is tried on a copy
    /// first, which tells what will be.
    fn watched(
        &mut self,
        party: &mut Party,
        remote: Address,
        what: &str,
        operation: impl Fn(&mut Party),
    ) {
        self.seen.extend(secrets(&party.sessions[&remote]));
        let mut trial = party.clone();
        operation(&mut trial);
        self.seen.extend(secrets(&trial.sessions[&remote]));
        drop(trial);
        let sought: Vec<_> = self.seen.iter().copied().collect();
        let found = most_in_one_block(&sought, || operation(party));
        assert!(found <= 1, "{found} in one block: {what}");
    }

    fn send(&mut self, from: &mut Party, to: Address) -> Encrypted {
        let sent = RefCell::new(None);
        self.watched(from, to, "a message sent", |party| {
            sent.replace(Some(party.encrypt(to, b"text").unwrap()));
        });
        sent.take().unwrap()
    }

    fn receive(&mut self, to: &mut Party, from: Address, message: &Encrypted, what: &str) {
        self.watched(to, from, what, |party| {
            party.decrypt(from, message.kind, &message.body).unwrap();
        });
    }
}

/// One test: the allocator belongs to the process.
#[test]
fn no_key_is_left_in_freed_memory() {
    the_allocator_finds_what_is_left();
    in_a_conversation();
    in_sessions_that_were_archived();
}

fn the_allocator_finds_what_is_left() {
    let secret = *b"a secret";
    let left = most_in_one_block(&[secret], || drop(b"this is a secret".to_vec()));
    assert_eq!(left, 1);
    assert_eq!(most_in_one_block(&[secret], || drop(b"this is none".to_vec())), 0);
}

/// Late and lost messages in either direction, over some epochs of the post-quantum ratchet.
fn in_a_conversation() {
    let (mut alice, mut bob) = talking();
    let mut watch = Watch::default();
    for turn in 0..120 {
        let (to, from) = (bob.address(), alice.address());
        let count = 1 + alice.rng.next_u32() as usize % 9;
        let mut sent: Vec<_> = (0..count).map(|_| watch.send(&mut alice, to)).collect();
        if sent.len() > 2 {
            watch.receive(&mut bob, from, &sent.remove(2), "the first of a chain, after a gap");
        }
        let last = sent.pop().unwrap();
        watch.receive(&mut bob, from, &last, "a later one, after another gap");
        let late = sent.len() / 2;
        for message in sent.iter().take(late).rev() {
            watch.receive(&mut bob, from, message, "a late one");
        }
        if turn % 3 == 0 {
            watch.watched(&mut bob, from, "a restart", Party::restart);
        }
        std::mem::swap(&mut alice, &mut bob);
    }
    let epoch = alice.sessions[&bob.address()].info().unwrap().post_quantum_epoch;
    assert!(epoch >= Some(4), "{epoch:?}");
}

fn in_sessions_that_were_archived() {
    let (mut alice, mut bob) = talking();
    let mut watch = Watch::default();
    let (to, from) = (bob.address(), alice.address());
    let sent: Vec<_> = (0..3).map(|_| alice.encrypt(to, b"old").unwrap()).collect();
    begin(&mut alice, &mut bob);
    for message in sent.iter().rev() {
        watch.receive(&mut bob, from, message, "a message of an archived session");
    }
    let bundle = bob.bundle(Offer::Everything, KemKind::OneTime);
    watch.watched(&mut alice, to, "a new session", |party| party.initiate(to, &bundle).unwrap());
    let first = alice.encrypt(to, b"first").unwrap();
    watch.receive(&mut bob, from, &first, "a first message");
}
