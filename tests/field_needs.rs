//! What people ran into with other libraries, as far as it is the protocol's to prevent: one test a row
//! of that collection. Those of the client are in `client/tests/field_needs.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod story;

use story::{Party, begin, talking};
use tuckseal::DecryptError;

/// A message from one to the other that must be read, and what the receiver then knows of the epoch.
fn say(from: &mut Party, to: &mut Party, text: &[u8]) -> Option<u64> {
    let sent = from.encrypt(to.address(), text).unwrap();
    assert_eq!(to.decrypt(from.address(), sent.kind, &sent.body).unwrap(), text);
    epoch(to, from)
}

fn epoch(who: &Party, with: &Party) -> Option<u64> {
    who.sessions[&with.address()].info().unwrap().post_quantum_epoch
}

fn talk(alice: &mut Party, bob: &mut Party, rounds: usize) {
    for _ in 0..rounds {
        say(alice, bob, b"there");
        say(bob, alice, b"and back");
    }
}

/// Two post-quantum ratchets went different ways, one direction stayed dead and nothing told why.
/// Here: either direction is refused by name, as often as it is tried, at no cost to the state; how far
/// the ratchet is can be read; and a new session ends it.
#[test]
fn row_24_a_diverged_post_quantum_ratchet_is_refused_by_name_and_ends_with_a_new_session() {
    let (mut alice, mut bob) = talking();
    talk(&mut alice, &mut bob, 50);
    let backup = bob.sessions.clone();
    talk(&mut alice, &mut bob, 100);
    bob.sessions = backup;

    let (at_alice, at_bob) = (epoch(&alice, &bob).unwrap(), epoch(&bob, &alice).unwrap());
    assert!(at_alice > at_bob + 1, "not diverged: {at_alice} and {at_bob}");
    let shown = format!("{:?}", bob.sessions[&alice.address()]);
    assert!(shown.contains(&format!("post_quantum_epoch: Some({at_bob})")), "{shown}");

    for _ in 0..20 {
        let sent = alice.encrypt(bob.address(), b"lost").unwrap();
        let refused = bob.decrypt(alice.address(), sent.kind, &sent.body);
        assert_eq!(refused, Err(DecryptError::Invalid));
        let sent = bob.encrypt(alice.address(), b"lost").unwrap();
        let refused = alice.decrypt(bob.address(), sent.kind, &sent.body);
        assert!(matches!(refused, Err(DecryptError::Invalid | DecryptError::Duplicate { .. })));
    }

    begin(&mut bob, &mut alice);
    talk(&mut alice, &mut bob, 100);
    assert!(epoch(&alice, &bob).unwrap() > 1, "the new session's ratchet does not move");
}
