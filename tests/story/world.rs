//! Alice and Bob over a network that drops, reorders, repeats and corrupts, with restarts, new sessions
//! and restored backups, against the simple model that each message arrives at most once, unchanged.

use super::{KemKind, Offer, Party, talking};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use std::collections::BTreeSet;
use tuckseal::{DecryptError, MessageKind, PreKeySignalMessage, SessionRecord, SignalMessage};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Alice,
    Bob,
}

/// What can happen. The numbers are places among the messages under way to a side, or in the bytes of
/// one, and taken modulo how many there are.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Send(Side),
    Deliver(Side, usize),
    /// The network loses it.
    Drop(Side, usize),
    /// The network delivers it and keeps a copy.
    Repeat(Side, usize),
    /// A byte of it arrives changed by an exclusive or; the message itself stays under way.
    Corrupt(Side, usize, usize, u8),
    Restart(Side),
    /// This side begins a new session, as after a lost device.
    Begin(Side),
    /// This side makes a backup.
    Save(Side),
    /// This side goes back to its last backup, if it has one: state that was used is used again.
    RollBack(Side),
}

#[derive(Clone)]
struct Message {
    number: u32,
    kind: MessageKind,
    body: Vec<u8>,
}

#[derive(Clone)]
pub struct World {
    parties: [Party; 2],
    under_way: [Vec<Message>; 2],
    read: [BTreeSet<u32>; 2],
    sent: u32,
    saved: [Option<(Party, BTreeSet<u32>)>; 2],
    rollbacks: u8,
    /// Somebody goes on from a backup, and no new session has put it right.
    set_back: bool,
    /// Bytes of the largest record that went through a restart.
    pub largest_record: usize,
}

impl World {
    pub fn new() -> Self {
        let (alice, bob) = talking();
        Self {
            parties: [alice, bob],
            under_way: Default::default(),
            read: Default::default(),
            sent: 0,
            saved: [None, None],
            rollbacks: 0,
            set_back: false,
            largest_record: 0,
        }
    }

    pub fn run(&mut self, step: Step) {
        match step {
            Step::Send(from) => self.send(from),
            Step::Restart(who) => self.restart(who as usize),
            Step::Begin(who) => self.begin(who),
            Step::Drop(to, which) => {
                self.pick(to, which).map(|at| self.under_way[to as usize].remove(at));
            }
            Step::Deliver(to, which) => {
                if let Some(at) = self.pick(to, which) {
                    let message = self.under_way[to as usize].remove(at);
                    self.deliver(to, &message);
                }
            }
            Step::Repeat(to, which) => {
                if let Some(at) = self.pick(to, which) {
                    let message = self.under_way[to as usize][at].clone();
                    self.deliver(to, &message);
                }
            }
            Step::Corrupt(to, which, byte, change) => {
                if let Some(at) = self.pick(to, which) {
                    let mut message = self.under_way[to as usize][at].clone();
                    let place = byte % message.body.len();
                    message.body[place] ^= change;
                    self.deliver_corrupted(to, &message);
                }
            }
            Step::Save(who) => {
                let who = who as usize;
                self.saved[who] = Some((self.parties[who].clone(), self.read[who].clone()));
            }
            Step::RollBack(who) => self.roll_back(who as usize),
        }
    }

    /// Whatever happened, the next message in each direction is read; after a rollback, that of a new
    /// session is.
    pub fn assert_still_talking(&mut self) {
        if self.set_back {
            self.begin(Side::Alice);
        }
        for (from, to) in [(Side::Alice, Side::Bob), (Side::Bob, Side::Alice)] {
            self.send(from);
            let last = self.under_way[to as usize].last().unwrap().clone();
            self.deliver(to, &last);
            assert!(self.read[to as usize].contains(&last.number), "no longer talking");
        }
    }

    /// Messages under way to this side.
    pub fn waiting(&self, to: Side) -> usize {
        self.under_way[to as usize].len()
    }

    /// What an app does when it is told that messages cannot be read: a new session. Then each reads
    /// the other, and what was under way is gone.
    pub fn heal(&mut self, who: Side) {
        self.under_way = Default::default();
        self.begin(who);
        let other = if who == Side::Alice { Side::Bob } else { Side::Alice };
        for (from, to) in [(who, other), (other, who)] {
            self.send(from);
            self.run(Step::Deliver(to, 0));
            assert!(self.read[to as usize].contains(&(self.sent - 1)), "the new session is deaf");
        }
        self.set_back = false;
    }

    fn restart(&mut self, who: usize) {
        self.parties[who].restart();
        for record in self.parties[who].sessions.values() {
            let len = record.encode().len();
            assert!(len <= SessionRecord::MAX_ENCODED_LEN);
            self.largest_record = self.largest_record.max(len);
        }
    }

    fn pick(&self, to: Side, which: usize) -> Option<usize> {
        which.checked_rem(self.under_way[to as usize].len())
    }

    fn send(&mut self, from: Side) {
        let to = self.parties[1 - from as usize].address();
        let number = self.sent;
        self.sent += 1;
        let sent = self.parties[from as usize].encrypt(to, &number.to_be_bytes()).unwrap();
        let message = Message { number, kind: sent.kind, body: sent.body };
        self.under_way[1 - from as usize].push(message);
    }

    fn begin(&mut self, who: Side) {
        let bundle = self.parties[1 - who as usize].bundle(Offer::Everything, KemKind::OneTime);
        let to = self.parties[1 - who as usize].address();
        self.parties[who as usize].initiate(to, &bundle).unwrap();
    }

    /// A restored party remembers nothing of what it did since, but draws other randomness.
    fn roll_back(&mut self, who: usize) {
        let Some((party, read)) = &self.saved[who] else { return };
        (self.parties[who], self.read[who]) = (party.clone(), read.clone());
        self.rollbacks = self.rollbacks.wrapping_add(1);
        self.set_back = true;
        self.parties[who].rng = ChaCha20Rng::from_seed(
            [200 + who as u8, self.rollbacks].repeat(16).try_into().unwrap(),
        );
    }

    fn deliver(&mut self, to: Side, message: &Message) {
        let from = self.parties[1 - to as usize].address();
        let read = &mut self.read[to as usize];
        match self.parties[to as usize].decrypt(from, message.kind, &message.body) {
            Ok(plaintext) => {
                assert_eq!(plaintext, message.number.to_be_bytes(), "a wrong plaintext");
                assert!(read.insert(message.number), "read twice");
            }
            // Who went back in time uses counters again for other messages.
            Err(DecryptError::Duplicate { .. }) => {
                let known = read.contains(&message.number) || self.set_back;
                assert!(known, "an unread message called a duplicate");
            }
            // A late first message whose prekeys went with another copy of its session, and late
            // messages of chains or sessions that were dropped.
            Err(DecryptError::Invalid | DecryptError::NoPreKey { .. }) => {}
            Err(other) => panic!("message {}: {other}", message.number),
        }
    }

    /// The state check on errors is in `Party`; here only: nothing else than what was sent is read.
    fn deliver_corrupted(&mut self, to: Side, message: &Message) {
        let from = self.parties[1 - to as usize].address();
        let party = &mut self.parties[to as usize];
        let decodes = match message.kind {
            MessageKind::Whisper => SignalMessage::decode(&message.body).is_ok(),
            _ => PreKeySignalMessage::decode(&message.body).is_ok(),
        };
        if !decodes {
            return;
        }
        // What no MAC covers may change unnoticed (ids of a session that is there): then it is read.
        if let Ok(plaintext) = party.decrypt(from, message.kind, &message.body) {
            assert_eq!(message.kind, MessageKind::PreKey, "a changed message was read");
            assert_eq!(plaintext, message.number.to_be_bytes(), "a wrong plaintext");
            assert!(self.read[to as usize].insert(message.number), "read twice");
        }
    }
}
