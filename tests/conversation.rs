//! Stories between two parties: how sessions begin, go on, get lost and come back (W§7, 8, 11).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod story;

use story::{KemKind, NOW, Offer, Party, begin, talking};
use tuckseal::{
    Address, AgreementPolicy, DecryptError, DeviceId, EncryptError, HandshakeError,
    IdentityKeyPair, MessageKind, PreKeyKind, PreKeySignalMessage, PublicKey, SessionVersion,
    SignalMessage, Timestamp,
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[test]
fn a_conversation_goes_on_over_many_turns_and_restarts() {
    let (mut alice, mut bob) = talking();
    for turn in 0..20u32 {
        for count in 0..3 {
            let text = format!("turn {turn}, message {count}");
            let sent = alice.encrypt(bob.address(), text.as_bytes()).unwrap();
            assert_eq!(sent.kind, MessageKind::Whisper);
            assert_eq!(
                bob.decrypt(alice.address(), sent.kind, &sent.body).unwrap(),
                text.as_bytes()
            );
        }
        alice.restart();
        bob.restart();
        std::mem::swap(&mut alice, &mut bob);
    }
}

#[test]
fn messages_until_the_first_answer_repeat_the_prekey_part() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let bundle = bob.bundle(Offer::Everything, KemKind::OneTime);
    alice.initiate(bob.address(), &bundle).unwrap();
    assert!(alice.sessions[&bob.address()].info().unwrap().awaiting_reply);
    let sent: Vec<_> = (0..5u8).map(|n| alice.encrypt(bob.address(), &[n]).unwrap()).collect();
    assert!(sent.iter().all(|message| message.kind == MessageKind::PreKey));
    for n in [3, 0, 4, 2, 1] {
        let plaintext = bob.decrypt(alice.address(), sent[n].kind, &sent[n].body).unwrap();
        assert_eq!(plaintext, [n as u8]);
    }
    assert!(bob.one_time.is_empty() && bob.kem.is_empty(), "one-time prekeys are used up");
    let answer = bob.encrypt(alice.address(), b"yes").unwrap();
    alice.decrypt(bob.address(), answer.kind, &answer.body).unwrap();
    assert_eq!(alice.encrypt(bob.address(), b"x").unwrap().kind, MessageKind::Whisper);
}

#[test]
fn a_bundle_without_kem_prekey_needs_an_explicit_policy() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let bundle = bob.bundle(Offer::NoKem, KemKind::OneTime);
    assert_eq!(alice.initiate(bob.address(), &bundle).unwrap_err(), HandshakeError::X3dhRefused);

    alice.policy = AgreementPolicy::AllowX3dh;
    alice.initiate(bob.address(), &bundle).unwrap();
    assert_eq!(alice.sessions[&bob.address()].info().unwrap().version, SessionVersion::V3);
    let first = alice.encrypt(bob.address(), b"old").unwrap();
    let refused = bob.decrypt(alice.address(), first.kind, &first.body).unwrap_err();
    assert_eq!(refused, DecryptError::X3dhRefused);
    bob.policy = AgreementPolicy::AllowX3dh;
    assert_eq!(bob.decrypt(alice.address(), first.kind, &first.body).unwrap(), b"old");
}

/// Two fields under no MAC: 7 names a KEM prekey, 8 is the ciphertext for it.
#[test]
fn a_kem_prekey_that_was_written_behind_a_message_of_version_3_is_not_used_up() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    (alice.policy, bob.policy) = (AgreementPolicy::AllowX3dh, AgreementPolicy::AllowX3dh);
    let bundle = bob.bundle(Offer::NoKem, KemKind::OneTime);
    let unused = *bob.kem.keys().next().unwrap();
    alice.initiate(bob.address(), &bundle).unwrap();
    let mut first = alice.encrypt(bob.address(), b"old").unwrap();
    first.body.extend([&[7 << 3, unused.0 as u8, 8 << 3 | 2, 1, 8][..]].concat());
    assert_eq!(bob.decrypt(alice.address(), first.kind, &first.body).unwrap(), b"old");
    assert!(bob.kem.contains_key(&unused));
    assert!(bob.seen_base_keys.is_empty());
}

#[test]
fn whether_a_peer_has_the_post_quantum_ratchet_is_open_until_it_has_answered() {
    for (policy, open) in
        [(AgreementPolicy::RequireSpqr, false), (AgreementPolicy::AllowNoSpqr, true)]
    {
        let (mut alice, mut bob) = (Party::new(1), Party::new(2));
        (alice.policy, bob.policy) = (policy, policy);
        let (to, from) = (bob.address(), alice.address());
        let bundle = bob.bundle(Offer::Everything, KemKind::OneTime);
        alice.initiate(to, &bundle).unwrap();
        let first = alice.encrypt(to, b"first").unwrap();
        alice.restart();
        let ratchet = |party: &Party, remote| {
            let info = party.sessions[&remote].info().unwrap();
            (info.post_quantum_ratchet, info.post_quantum_open)
        };
        assert_eq!(ratchet(&alice, to), (true, open));
        bob.decrypt(from, first.kind, &first.body).unwrap();
        assert_eq!(ratchet(&bob, from), (true, false));
        let answer = bob.encrypt(from, b"answer").unwrap();
        alice.decrypt(to, answer.kind, &answer.body).unwrap();
        assert_eq!(ratchet(&alice, to), (true, false));
    }
}

#[test]
fn a_prekey_signed_by_somebody_else_is_refused() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let good = bob.bundle(Offer::Everything, KemKind::OneTime);
    let mut bad = good.clone();
    bad.signed_prekey.signature[5] ^= 1;
    assert!(matches!(alice.initiate(bob.address(), &bad), Err(HandshakeError::Signature(_))));
    let mut bad = good;
    bad.kem.as_mut().unwrap().signature[5] ^= 1;
    assert!(matches!(alice.initiate(bob.address(), &bad), Err(HandshakeError::Signature(_))));
}

#[test]
fn a_prekey_of_low_order_is_refused() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let mut bundle = bob.bundle(Offer::Everything, KemKind::OneTime);
    bundle.one_time.as_mut().unwrap().key = PublicKey::from_u([0; 32]);
    assert!(matches!(alice.initiate(bob.address(), &bundle), Err(HandshakeError::Key(_))));
    let key = PublicKey::from_u([0; 32]);
    bundle.signed_prekey.key = key;
    bundle.signed_prekey.signature =
        bob.local.identity.private_key().sign(&key.serialize(), &mut bob.rng);
    assert!(matches!(alice.initiate(bob.address(), &bundle), Err(HandshakeError::Key(_))));
}

#[test]
fn a_changed_identity_is_refused_until_it_is_accepted() {
    let (mut alice, mut bob) = talking();
    bob.local.identity = IdentityKeyPair::generate(&mut bob.rng);
    bob.sessions.clear();
    let offered = bob.local.identity.identity_key();

    let bundle = bob.bundle(Offer::Everything, KemKind::OneTime);
    let error = alice.initiate(bob.address(), &bundle).unwrap_err();
    assert!(matches!(error, HandshakeError::UntrustedIdentity(it) if it.offered == offered));

    let alices = alice.bundle(Offer::Everything, KemKind::OneTime);
    bob.initiate(alice.address(), &alices).unwrap();
    let first = bob.encrypt(alice.address(), b"new phone").unwrap();
    let error = alice.decrypt(bob.address(), first.kind, &first.body).unwrap_err();
    assert!(matches!(error, DecryptError::UntrustedIdentity(it) if it.offered == offered));
    assert!(!alice.one_time.is_empty(), "a refused message uses up no prekey");

    alice.known.insert(bob.address(), offered);
    assert_eq!(alice.decrypt(bob.address(), first.kind, &first.body).unwrap(), b"new phone");
}

#[test]
fn a_session_of_an_untrusted_identity_neither_sends_nor_receives() {
    let (mut alice, mut bob) = talking();
    let sent = bob.encrypt(alice.address(), b"hi").unwrap();
    alice.known.insert(bob.address(), Party::new(9).local.identity.identity_key());
    let refused = alice.decrypt(bob.address(), sent.kind, &sent.body);
    assert!(matches!(refused, Err(DecryptError::UntrustedIdentity(_))));
    let refused = alice.encrypt(bob.address(), b"hi");
    assert!(matches!(refused, Err(EncryptError::UntrustedIdentity(_))));
}

#[test]
fn every_repeated_message_is_a_duplicate() {
    let (mut alice, mut bob) = talking();
    let sent: Vec<_> = (0..4u8).map(|n| alice.encrypt(bob.address(), &[n]).unwrap()).collect();
    for n in [2, 0, 1, 3] {
        bob.decrypt(alice.address(), sent[n].kind, &sent[n].body).unwrap();
    }
    for message in &sent {
        let again = bob.decrypt(alice.address(), message.kind, &message.body);
        assert!(matches!(again, Err(DecryptError::Duplicate { .. })));
    }
}

#[test]
fn late_message_decrypts_after_two_dh_steps() {
    let (mut alice, mut bob) = talking();
    let late = alice.encrypt(bob.address(), b"late").unwrap();
    let second = alice.encrypt(bob.address(), b"second").unwrap();
    bob.decrypt(alice.address(), second.kind, &second.body).unwrap();
    for _ in 0..2 {
        exchange(&mut bob, &mut alice);
        exchange(&mut alice, &mut bob);
    }
    assert_eq!(bob.decrypt(alice.address(), late.kind, &late.body).unwrap(), b"late");
}

#[test]
fn a_message_of_a_dropped_chain_is_invalid_not_a_duplicate() {
    let (mut alice, mut bob) = talking();
    let late = alice.encrypt(bob.address(), b"late").unwrap();
    for _ in 0..6 {
        exchange(&mut alice, &mut bob);
        exchange(&mut bob, &mut alice);
    }
    let refused = bob.decrypt(alice.address(), late.kind, &late.body).unwrap_err();
    assert_eq!(refused, DecryptError::Invalid);
}

/// Bob's view of a gap: the jump that is just allowed, and one more.
fn jump(alice: &mut Party, bob: &mut Party, allowed: u32) {
    let (to, from) = (bob.address(), alice.address());
    let first = alice.encrypt(to, b"0").unwrap();
    let mut last = Vec::new();
    for _ in 0..=allowed {
        last.push(alice.encrypt(to, b"far").unwrap());
        if last.len() > 2_003 {
            last.remove(0);
        }
    }
    let (far, just) = (last.pop().unwrap(), last.pop().unwrap());
    let refused = bob.decrypt(from, far.kind, &far.body).unwrap_err();
    assert_eq!(refused, DecryptError::TooFarAhead { ahead: allowed + 1, limit: 25_000 });
    bob.decrypt(from, just.kind, &just.body).unwrap();
    // Of the skipped ones the newest 2,000 can still be read.
    for message in last.iter().rev().take(2_000) {
        bob.decrypt(from, message.kind, &message.body).unwrap();
    }
    assert!(bob.decrypt(from, last[0].kind, &last[0].body).is_err());
    assert!(bob.decrypt(from, first.kind, &first.body).is_err());
}

#[test]
fn a_jump_of_25_000_is_taken_and_one_more_is_not() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    (alice.policy, bob.policy) = (AgreementPolicy::AllowX3dh, AgreementPolicy::AllowX3dh);
    let bundle = bob.bundle(Offer::NoKem, KemKind::OneTime);
    alice.initiate(bob.address(), &bundle).unwrap();
    let first = alice.encrypt(bob.address(), b"first").unwrap();
    bob.decrypt(alice.address(), first.kind, &first.body).unwrap();
    exchange(&mut bob, &mut alice);
    jump(&mut alice, &mut bob, 25_000);
}

/// Two devices of one account.
fn own_devices() -> (Party, Party) {
    let (phone, mut laptop) = (Party::new(1), Party::new(2));
    laptop.local.identity = phone.local.identity.clone();
    laptop.local.address = Address::new(phone.address().service_id, DeviceId::new(2).unwrap());
    (phone, laptop)
}

#[test]
fn an_own_device_may_have_missed_more_than_a_peer() {
    let (mut phone, mut laptop) = own_devices();
    (phone.policy, laptop.policy) = (AgreementPolicy::AllowX3dh, AgreementPolicy::AllowX3dh);
    let bundle = laptop.bundle(Offer::NoKem, KemKind::OneTime);
    phone.initiate(laptop.address(), &bundle).unwrap();
    for _ in 0..30_000 {
        phone.encrypt(laptop.address(), b"lost").unwrap();
    }
    let sent = phone.encrypt(laptop.address(), b"arrives").unwrap();
    assert_eq!(laptop.decrypt(phone.address(), sent.kind, &sent.body).unwrap(), b"arrives");
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while number > 0x7F {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// The ordinary message inside a first one, which anybody can put another into, with this counter.
fn with_counter(first: &[u8], counter: usize) -> (Vec<u8>, Vec<u8>) {
    let message = PreKeySignalMessage::decode(first).unwrap().message().encode().to_vec();
    let (signed, mac) = message.split_last_chunk::<8>().unwrap();
    let message = [signed, &[2 << 3], &varint(counter), mac].concat();
    let outer = [first, &[4 << 3 | 2], &varint(message.len()), &message].concat();
    (outer, message)
}

#[test]
fn who_claims_to_be_an_own_device_has_a_million_steps_at_most_taken_before_the_mac_is_checked() {
    const LIMIT: u32 = 1_000_000;
    let refused = |counter: u32| DecryptError::TooFarAhead { ahead: counter, limit: LIMIT };
    let (mut phone, mut laptop) = own_devices();
    let bundle = laptop.bundle(Offer::Everything, KemKind::OneTime);
    phone.initiate(laptop.address(), &bundle).unwrap();
    let first = phone.encrypt(laptop.address(), b"first").unwrap();
    let from = phone.address();
    for counter in [LIMIT + 1, u32::MAX] {
        let (forged, _) = with_counter(&first.body, counter as usize);
        let error = laptop.decrypt(from, MessageKind::PreKey, &forged).unwrap_err();
        assert_eq!(error, refused(counter), "no session yet");
    }
    laptop.decrypt(from, first.kind, &first.body).unwrap();
    let (_, forged) = with_counter(&first.body, u32::MAX as usize);
    let error = laptop.decrypt(from, MessageKind::Whisper, &forged).unwrap_err();
    assert_eq!(error, refused(u32::MAX - 1), "in a chain that is there");
}

#[test]
fn both_begin_at_once_and_settle() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let (for_bob, for_alice) = (
        alice.bundle(Offer::Everything, KemKind::OneTime),
        bob.bundle(Offer::Everything, KemKind::OneTime),
    );
    alice.initiate(bob.address(), &for_alice).unwrap();
    bob.initiate(alice.address(), &for_bob).unwrap();
    let from_alice = alice.encrypt(bob.address(), b"a").unwrap();
    let from_bob = bob.encrypt(alice.address(), b"b").unwrap();
    assert_eq!(alice.decrypt(bob.address(), from_bob.kind, &from_bob.body).unwrap(), b"b");
    assert_eq!(bob.decrypt(alice.address(), from_alice.kind, &from_alice.body).unwrap(), b"a");
    assert_eq!(alice.sessions[&bob.address()].archived_sessions(), 1);
    for _ in 0..10 {
        exchange(&mut alice, &mut bob);
        exchange(&mut bob, &mut alice);
    }
    assert_eq!(bob.sessions[&alice.address()].archived_sessions(), 1);
}

#[test]
fn messages_of_an_archived_session_promote_it() {
    let (mut alice, mut bob) = talking();
    let old = alice.encrypt(bob.address(), b"old session").unwrap();
    let before = bob.sessions[&alice.address()].info().unwrap();
    begin(&mut alice, &mut bob);
    assert_eq!(bob.sessions[&alice.address()].archived_sessions(), 1);
    assert_eq!(bob.decrypt(alice.address(), old.kind, &old.body).unwrap(), b"old session");
    assert_eq!(bob.sessions[&alice.address()].info().unwrap(), before);
}

#[test]
fn forty_archived_sessions_are_kept_and_the_oldest_goes() {
    let (mut alice, mut bob) = talking();
    let oldest = alice.encrypt(bob.address(), b"oldest").unwrap();
    begin(&mut alice, &mut bob);
    let second = alice.encrypt(bob.address(), b"second oldest").unwrap();
    for _ in 0..40 {
        begin(&mut alice, &mut bob);
    }
    bob.restart();
    assert_eq!(bob.sessions[&alice.address()].archived_sessions(), 40);
    let gone = bob.decrypt(alice.address(), oldest.kind, &oldest.body).unwrap_err();
    assert_eq!(gone, DecryptError::Invalid);
    bob.decrypt(alice.address(), second.kind, &second.body).unwrap();
}

#[test]
fn an_unanswered_session_stops_sending_after_thirty_days() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let bundle = bob.bundle(Offer::Everything, KemKind::OneTime);
    alice.initiate(bob.address(), &bundle).unwrap();
    alice.now = Timestamp::from_millis(NOW.as_millis() + 30 * DAY_MS);
    alice.encrypt(bob.address(), b"still").unwrap();
    alice.now = Timestamp::from_millis(NOW.as_millis() + 30 * DAY_MS + 1000);
    assert_eq!(alice.encrypt(bob.address(), b"no"), Err(EncryptError::Unanswered));
    assert!(!alice.sessions[&bob.address()].can_encrypt(alice.now));
}

#[test]
fn without_a_session_nothing_is_sent_or_read() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    assert_eq!(alice.encrypt(bob.address(), b"x"), Err(EncryptError::NoSession));
    let (mut carol, mut dave) = talking();
    let sent = carol.encrypt(dave.address(), b"x").unwrap();
    let refused = bob.decrypt(alice.address(), sent.kind, &sent.body);
    assert_eq!(refused, Err(DecryptError::NoSession));
    dave.decrypt(carol.address(), sent.kind, &sent.body).unwrap();
}

#[test]
fn each_missing_prekey_is_named_in_its_order() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let bundle = bob.bundle(Offer::Everything, KemKind::OneTime);
    alice.initiate(bob.address(), &bundle).unwrap();
    let first = alice.encrypt(bob.address(), b"x").unwrap();
    let mut without = bob.clone();
    let refused = |party: &mut Party| match party
        .decrypt(alice.address(), first.kind, &first.body)
        .unwrap_err()
    {
        DecryptError::NoPreKey { kind, id: 1 } => kind,
        other => panic!("{other}"),
    };
    without.one_time.clear();
    assert_eq!(refused(&mut without), PreKeyKind::OneTime);
    without.kem.clear();
    assert_eq!(refused(&mut without), PreKeyKind::Kem);
    without.signed.clear();
    assert_eq!(refused(&mut without), PreKeyKind::Signed);
}

#[test]
fn a_first_message_replayed_against_a_last_resort_key_is_refused() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let bundle = bob.bundle(Offer::NoOneTime, KemKind::LastResort);
    alice.initiate(bob.address(), &bundle).unwrap();
    let first = alice.encrypt(bob.address(), b"x").unwrap();
    bob.decrypt(alice.address(), first.kind, &first.body).unwrap();
    assert_eq!(bob.kem.len(), 1, "the last-resort key stays");
    bob.sessions.clear();
    let replayed = bob.decrypt(alice.address(), first.kind, &first.body);
    assert_eq!(replayed, Err(DecryptError::Invalid));
}

#[test]
fn a_substituted_outer_identity_is_refused() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let bundle = bob.bundle(Offer::Everything, KemKind::OneTime);
    alice.initiate(bob.address(), &bundle).unwrap();
    let first = alice.encrypt(bob.address(), b"x").unwrap();
    let mut second = alice.encrypt(bob.address(), b"y").unwrap();
    bob.decrypt(alice.address(), first.kind, &first.body).unwrap();
    let (own, other) =
        (alice.local.identity.identity_key(), Party::new(7).local.identity.identity_key());
    let place = second.body.windows(33).position(|it| it == own.serialize()).unwrap();
    second.body[place..place + 33].copy_from_slice(&other.serialize());
    bob.known.clear();
    let refused = bob.decrypt(alice.address(), second.kind, &second.body).unwrap_err();
    assert_eq!(refused, DecryptError::Invalid);
}

#[test]
fn a_message_readdressed_to_another_device_is_refused() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let bundle = bob.bundle(Offer::Everything, KemKind::OneTime);
    alice.initiate(bob.address(), &bundle).unwrap();
    let first = alice.encrypt(bob.address(), b"x").unwrap();
    let mallory = Party::new(9).address();
    let refused = bob.decrypt(mallory, first.kind, &first.body).unwrap_err();
    assert_eq!(refused, DecryptError::Invalid);
    bob.decrypt(alice.address(), first.kind, &first.body).unwrap();
}

#[test]
fn a_session_with_oneself_has_no_jump_limit() {
    let mut phone = Party::new(1);
    let mut laptop = Party::new(1);
    laptop.local.address.device_id = tuckseal::DeviceId::new(2).unwrap();
    begin(&mut phone, &mut laptop);
    let mut last = None;
    for _ in 0..25_010u32 {
        last = Some(phone.encrypt(laptop.address(), b"sync").unwrap());
    }
    let last = last.unwrap();
    assert_eq!(laptop.decrypt(phone.address(), last.kind, &last.body).unwrap(), b"sync");
}

#[test]
fn every_flipped_bit_of_a_message_is_refused_with_the_state_unchanged() {
    let (mut alice, mut bob) = talking();
    let sent = alice.encrypt(bob.address(), b"integrity").unwrap();
    for bit in 0..sent.body.len() * 8 {
        let mut flipped = sent.body.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if SignalMessage::decode(&flipped).is_ok() {
            let refused = bob.decrypt(alice.address(), sent.kind, &flipped);
            assert!(refused.is_err(), "bit {bit} was changed unnoticed");
        }
    }
    bob.decrypt(alice.address(), sent.kind, &sent.body).unwrap();
}

#[test]
fn messages_of_any_size_survive() {
    let (mut alice, mut bob) = talking();
    for size in [0usize, 1, 15, 16, 17, 127, 128, 1_000, 65_536, 1_000_000] {
        let text = vec![7u8; size];
        let sent = alice.encrypt(bob.address(), &text).unwrap();
        assert_eq!(bob.decrypt(alice.address(), sent.kind, &sent.body).unwrap(), text);
    }
}

fn exchange(from: &mut Party, to: &mut Party) {
    let sent = from.encrypt(to.address(), b"tick").unwrap();
    assert_eq!(to.decrypt(from.address(), sent.kind, &sent.body).unwrap(), b"tick");
}
