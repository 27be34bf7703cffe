//! Two parties under a network that drops, reorders, repeats and corrupts, with restarts and new
//! sessions in between, against the simple model that each message arrives at most once, unchanged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod story;

use proptest::prelude::*;
use story::{KemKind, Offer, Party, talking};
use tuckseal::{DecryptError, MessageKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Alice,
    Bob,
}

#[derive(Clone, Debug)]
enum Step {
    Send(Side),
    /// Deliver one of the messages under way to this side: which one is an index into them.
    Deliver(Side, prop::sample::Index),
    /// The network loses it.
    Drop(Side, prop::sample::Index),
    /// The network delivers it and keeps a copy.
    Repeat(Side, prop::sample::Index),
    /// A byte of it arrives changed; the message itself stays under way.
    Corrupt(Side, prop::sample::Index, prop::sample::Index, u8),
    Restart(Side),
    /// This side begins a new session, as after a lost device.
    Begin(Side),
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Alice), Just(Side::Bob)]
}

fn step() -> impl Strategy<Value = Step> {
    let any_index = any::<prop::sample::Index>;
    prop_oneof![
        6 => side().prop_map(Step::Send),
        6 => (side(), any_index()).prop_map(|(to, which)| Step::Deliver(to, which)),
        1 => (side(), any_index()).prop_map(|(to, which)| Step::Drop(to, which)),
        1 => (side(), any_index()).prop_map(|(to, which)| Step::Repeat(to, which)),
        2 => (side(), any_index(), any_index(), 1..=255u8)
            .prop_map(|(to, which, byte, flip)| Step::Corrupt(to, which, byte, flip)),
        1 => side().prop_map(Step::Restart),
        1 => side().prop_map(Step::Begin),
    ]
}

#[derive(Clone)]
struct Message {
    number: u32,
    kind: MessageKind,
    body: Vec<u8>,
}

struct World {
    parties: [Party; 2],
    under_way: [Vec<Message>; 2],
    read: [Vec<u32>; 2],
    sent: u32,
}

impl World {
    fn new() -> Self {
        let (alice, bob) = talking();
        Self { parties: [alice, bob], under_way: [vec![], vec![]], read: [vec![], vec![]], sent: 0 }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Send(from) => self.send(*from),
            Step::Restart(who) => self.parties[*who as usize].restart(),
            Step::Begin(who) => self.begin(*who),
            Step::Drop(to, which) => {
                self.pick(*to, which).map(|at| self.under_way[*to as usize].remove(at));
            }
            Step::Deliver(to, which) => {
                if let Some(at) = self.pick(*to, which) {
                    let message = self.under_way[*to as usize].remove(at);
                    self.deliver(*to, &message);
                }
            }
            Step::Repeat(to, which) => {
                if let Some(at) = self.pick(*to, which) {
                    let message = self.under_way[*to as usize][at].clone();
                    self.deliver(*to, &message);
                }
            }
            Step::Corrupt(to, which, byte, flip) => {
                if let Some(at) = self.pick(*to, which) {
                    let mut message = self.under_way[*to as usize][at].clone();
                    let place = byte.index(message.body.len());
                    message.body[place] ^= flip;
                    self.deliver_corrupted(*to, &message);
                }
            }
        }
    }

    fn pick(&self, to: Side, which: &prop::sample::Index) -> Option<usize> {
        let waiting = self.under_way[to as usize].len();
        (waiting > 0).then(|| which.index(waiting))
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

    fn deliver(&mut self, to: Side, message: &Message) {
        let from = self.parties[1 - to as usize].address();
        let read = &mut self.read[to as usize];
        match self.parties[to as usize].decrypt(from, message.kind, &message.body) {
            Ok(plaintext) => {
                assert_eq!(plaintext, message.number.to_be_bytes(), "a wrong plaintext");
                assert!(!read.contains(&message.number), "read twice");
                read.push(message.number);
            }
            Err(DecryptError::Duplicate { .. }) => {
                assert!(read.contains(&message.number), "an unread message called a duplicate");
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
            MessageKind::Whisper => tuckseal::SignalMessage::decode(&message.body).is_ok(),
            _ => tuckseal::PreKeySignalMessage::decode(&message.body).is_ok(),
        };
        if !decodes {
            return;
        }
        // What no MAC covers may change unnoticed (ids of a session that is there): then it is read.
        if let Ok(plaintext) = party.decrypt(from, message.kind, &message.body) {
            assert_eq!(message.kind, MessageKind::PreKey, "a changed message was read");
            assert_eq!(plaintext, message.number.to_be_bytes(), "a wrong plaintext");
            assert!(!self.read[to as usize].contains(&message.number), "read twice");
            self.read[to as usize].push(message.number);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn messages_arrive_at_most_once_and_unchanged(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        // Whatever happened, the next message in each direction is read once everything is delivered.
        for to in [Side::Bob, Side::Alice] {
            let from = if to == Side::Bob { Side::Alice } else { Side::Bob };
            world.send(from);
            let last = world.under_way[to as usize].last().unwrap().clone();
            world.deliver(to, &last);
            prop_assert!(world.read[to as usize].contains(&last.number), "no longer talking");
        }
    }
}
