//! Sessions: messages and stored records of any bytes, and conversations of any course.

use super::story::world::{Side, Step, World};
use super::story::{KemKind, Offer, Party};
use std::sync::LazyLock;
use tuckseal::{Address, MessageKind, PreKeySignalMessage, SessionRecord, SignalMessage};

/// Bob in the middle of a conversation, and what Alice wrote that he has not read yet.
pub struct Moment {
    pub bob: Party,
    pub alice: Address,
    pub sent: Vec<(MessageKind, Vec<u8>)>,
}

/// Every plaintext of [`MOMENTS`].
const TEXT: &[u8] = b"what Alice wrote";

/// Before a session; begun by Alice and not answered; answered; later, with skipped messages; and with
/// a second session over the first.
pub static MOMENTS: LazyLock<Vec<Moment>> = LazyLock::new(|| {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let mut moments = Vec::new();
    let begin = |alice: &mut Party, bob: &mut Party| {
        let bundle = bob.bundle(Offer::Everything, KemKind::OneTime);
        alice.initiate(bob.address(), &bundle).unwrap();
    };
    let mut write = |alice: &mut Party, bob: &mut Party| {
        let sent = (0..3).map(|_| alice.encrypt(bob.address(), TEXT).unwrap());
        let sent: Vec<_> = sent.map(|sent| (sent.kind, sent.body)).collect();
        moments.push(Moment { bob: bob.clone(), alice: alice.address(), sent: sent.clone() });
        let (kind, body) = sent.last().unwrap();
        assert_eq!(bob.decrypt(alice.address(), *kind, body).unwrap(), TEXT);
    };
    begin(&mut alice, &mut bob);
    for turn in 0..40 {
        if turn % 13 < 2 {
            write(&mut alice, &mut bob);
        }
        if turn == 20 {
            begin(&mut bob, &mut alice);
        }
        let answer = bob.encrypt(alice.address(), b"answer").unwrap();
        alice.decrypt(bob.address(), answer.kind, &answer.body).unwrap();
        let word = alice.encrypt(bob.address(), b"word").unwrap();
        bob.decrypt(alice.address(), word.kind, &word.body).unwrap();
    }
    moments
});

/// `moment | message`: a message that no peer could write is refused with nothing changed
/// (`Party` sees to that), whatever the state; only what Alice wrote is read.
pub fn session_message(data: &[u8]) {
    let Some((moment, message)) = data.split_first() else { return };
    let moment = &MOMENTS[usize::from(*moment) % MOMENTS.len()];
    let kinds = [
        (MessageKind::Whisper, SignalMessage::decode(message).is_ok()),
        (MessageKind::PreKey, PreKeySignalMessage::decode(message).is_ok()),
    ];
    for (kind, _) in kinds.into_iter().filter(|(_, decodes)| *decodes) {
        let mut bob = moment.bob.clone();
        if let Ok(plaintext) = bob.decrypt(moment.alice, kind, message) {
            assert_eq!(plaintext, TEXT);
            // A whisper message is under a MAC to the last byte. One of another moment may still be unread at this one.
            let wrote = (kind, message.to_vec());
            assert!(
                kind == MessageKind::PreKey || MOMENTS.iter().any(|it| it.sent.contains(&wrote))
            );
        }
    }
}

/// Stored bytes: what is taken for a record is written the same, and can be used without a panic.
pub fn record_decode(data: &[u8]) {
    let Ok(record) = SessionRecord::decode(data) else { return };
    assert_eq!(&*record.encode(), data);
    let moment = &MOMENTS[1];
    let mut bob = moment.bob.clone();
    bob.sessions.insert(moment.alice, record);
    let _ = bob.encrypt(moment.alice, b"hi");
    for (kind, body) in &moment.sent {
        let _ = bob.decrypt(moment.alice, *kind, body);
        bob.restart();
    }
    bob.sessions[&moment.alice].info();
}

/// Steps run against the model of tests/story/world.rs: never a wrong plaintext, none twice without a
/// rollback, no error that changes a state, and at the end the two can still talk.
///
/// ```text
/// where it begins 1 | steps
/// step | low 7 bits: what, high bit: whose, 1 | where it needs a message: which, 1
///      | to corrupt: place 2, exclusive or 1 |
/// ```
pub fn session_two_parties(data: &[u8]) {
    /// A run stays short enough for some dozens a second.
    const STEPS: usize = 80;
    let Some((begin, mut steps)) = data.split_first() else { return };
    let mut world = WORLDS[usize::from(*begin) % WORLDS.len()].clone();
    for _ in 0..STEPS {
        let Some(step) = step(&mut steps) else { break };
        world.run(step);
    }
    world.assert_still_talking();
}

/// Alice and Bob after more and more words: the post-quantum ratchet is in another phase in each.
static WORLDS: LazyLock<Vec<World>> = LazyLock::new(|| {
    let mut world = World::new();
    let mut worlds = Vec::new();
    for _ in 0..10 {
        worlds.push(world.clone());
        for (from, to) in [(Side::Alice, Side::Bob), (Side::Bob, Side::Alice)].repeat(13) {
            world.run(Step::Send(from));
            world.run(Step::Deliver(to, 0));
        }
    }
    worlds
});

fn step(data: &mut &[u8]) -> Option<Step> {
    let mut byte = || {
        let (first, rest) = data.split_first()?;
        *data = rest;
        Some(usize::from(*first))
    };
    let what = byte()?;
    let side = if what < 0x80 { Side::Alice } else { Side::Bob };
    Some(match what & 0x7f {
        0 => Step::Deliver(side, byte()?),
        1 => Step::Drop(side, byte()?),
        2 => Step::Repeat(side, byte()?),
        3 => Step::Corrupt(side, byte()?, byte()? << 8 | byte()?, (byte()? as u8).max(1)),
        4 => Step::Restart(side),
        5 => Step::Begin(side),
        6 => Step::Save(side),
        7 => Step::RollBack(side),
        _ => Step::Send(side),
    })
}
