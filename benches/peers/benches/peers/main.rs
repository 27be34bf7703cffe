//! tuckseal beside vodozemac and openmls doing the same work, and beside the fastest primitives, all in
//! one process: `cargo bench --manifest-path benches/peers/Cargo.toml [--features asm]`.
//!
//! What the peers leave out: vodozemac checks no signature when a session begins and has nothing
//! post-quantum; openmls has nothing post-quantum in this suite and no key exchange per message.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, unreachable_pub)]

mod floor;
mod groups;
mod measure;
mod mls;
mod olm;
#[path = "../../../../tests/story/mod.rs"]
mod story;

use floor::Floor;
use measure::{contender, row};
use olm::Olm;
use std::cell::RefCell;
use story::{KemKind, Offer, Party, talking};
use tuckseal::{
    AgreementPolicy, IdentityKeyPair, KemPreKey, KemPreKeyId, PreKey, PreKeyId,
    PreKeySignalMessage, PreKeys, SessionRecord, SignalMessage, SignedPreKey, SignedPreKeyId,
    Trust,
};

/// One end of a session between two that are talking.
struct End {
    party: Party,
    peer: tuckseal::Address,
    record: SessionRecord,
}

fn ends() -> (End, End) {
    let (alice, bob) = talking();
    let (to_bob, to_alice) = (bob.address(), alice.address());
    let at_alice = alice.sessions[&to_bob].clone();
    let at_bob = bob.sessions[&to_alice].clone();
    let alice = End { party: alice, peer: to_bob, record: at_alice };
    (alice, End { party: bob, peer: to_alice, record: at_bob })
}

impl End {
    fn encrypt(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let Party { local, rng, now, .. } = &mut self.party;
        self.record.encrypt(local, &self.peer, plaintext, Trust::FirstUse, rng, *now).unwrap().body
    }

    fn decrypt(&mut self, body: Vec<u8>) -> Vec<u8> {
        let message = SignalMessage::from_bytes(body.into()).unwrap();
        let Party { local, rng, .. } = &mut self.party;
        let read = self.record.decrypt(local, &self.peer, &message, Trust::FirstUse, rng);
        read.unwrap().plaintext
    }

    /// What an application does that keeps records as bytes.
    fn through_bytes(&mut self) {
        let stored = self.record.encode();
        self.record = SessionRecord::decode(&stored).unwrap();
    }
}

fn main() {
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    println!(
        "| operation | floor, µs | tuckseal, µs | ratio | others, µs |\n|---|---|---|---|---|"
    );
    one_way();
    ping_pong();
    reversed();
    begin();
    keys();
    keys_with_kem();
    groups::one_way();
}

fn mls_pair() -> ((mls::Member, openmls::group::MlsGroup), (mls::Member, openmls::group::MlsGroup))
{
    let (alice, bob) = (mls::Member::new("alice"), mls::Member::new("bob"));
    let (at_alice, welcome) = alice.found(&[bob.key_package()]);
    let at_bob = bob.join(&welcome);
    ((alice, at_alice), (bob, at_bob))
}

fn one_way() {
    for (size, len) in [("100 B", 100), ("1 KiB", 1_024), ("64 KiB", 65_536)] {
        let plaintext = &vec![5; len];
        let (mut alice, _) = ends();
        let (mut stored, _) = ends();
        let (mut session, _) = Olm::new().talking();
        let ((member, mut group), _) = mls_pair();
        let mut others = vec![
            ("vodozemac", contender(|| (), move |()| olm::encrypt(&mut session, plaintext))),
            ("openmls", contender(|| (), move |()| member.send(&mut group, plaintext))),
        ];
        if len == 100 {
            let through = move |()| {
                stored.through_bytes();
                stored.encrypt(plaintext)
            };
            others.insert(0, ("tuckseal with a store of bytes", contender(|| (), through)));
        }
        row(
            &format!("encrypt {size}"),
            1,
            contender(|| floor::buffer(len), |body| floor::encrypt(body, len)),
            contender(|| (), move |()| alice.encrypt(plaintext)),
            others,
        );

        let (mut alice, mut bob) = ends();
        let (mut from, mut stored) = ends();
        let (mut sender, mut receiver) = Olm::new().talking();
        let ((at_alice, mut sends), (at_bob, mut reads)) = mls_pair();
        let mut others = vec![
            (
                "vodozemac",
                contender(
                    move || olm::encrypt(&mut sender, plaintext),
                    move |body: Vec<u8>| olm::decrypt(&mut receiver, &body),
                ),
            ),
            (
                "openmls",
                contender(
                    move || at_alice.send(&mut sends, plaintext),
                    move |body: Vec<u8>| at_bob.read(&mut reads, &body),
                ),
            ),
        ];
        if len == 100 {
            let through = move |body: Vec<u8>| {
                stored.through_bytes();
                stored.decrypt(body)
            };
            let stored = contender(move || from.encrypt(plaintext), through);
            others.insert(0, ("tuckseal with a store of bytes", stored));
        }
        row(
            &format!("decrypt {size}"),
            1,
            contender(|| floor::buffer(len), floor::decrypt),
            contender(move || alice.encrypt(plaintext), move |body: Vec<u8>| bob.decrypt(body)),
            others,
        );
    }
}

fn ping_pong() {
    let floor = Floor::new();
    let (mut here, mut there) = ends();
    let (mut this, mut that) = Olm::new().talking();
    let ((mut one, mut ones), (mut two, mut twos)) = mls_pair();
    row(
        "ping-pong, a message of 100 B in and out",
        1,
        contender(
            || (floor::buffer(100), floor::buffer(100)),
            |(out, back)| floor.ping_pong(out, back),
        ),
        contender(
            || (),
            move |()| {
                let body = here.encrypt(&[5; 100]);
                there.decrypt(body);
                std::mem::swap(&mut here, &mut there);
            },
        ),
        vec![
            (
                "vodozemac",
                contender(
                    || (),
                    move |()| {
                        let body = olm::encrypt(&mut this, &[5; 100]);
                        olm::decrypt(&mut that, &body);
                        std::mem::swap(&mut this, &mut that);
                    },
                ),
            ),
            (
                "openmls without a commit",
                contender(
                    || (),
                    move |()| {
                        let body = one.send(&mut ones, &[5; 100]);
                        two.read(&mut twos, &body);
                        std::mem::swap(&mut one, &mut two);
                        std::mem::swap(&mut ones, &mut twos);
                    },
                ),
            ),
        ],
    );
}

fn reversed() {
    const COUNT: usize = 1_000;
    let (mut alice, bob) = ends();
    let sent: Vec<Vec<u8>> = (0..COUNT).map(|_| alice.encrypt(&[5; 100])).collect();
    let End { party, peer, record } = bob;
    let party = RefCell::new(party);
    row(
        "1,000 messages of 100 B in reverse, each",
        COUNT,
        contender(
            || vec![floor::buffer(100); COUNT],
            |bodies| bodies.into_iter().map(floor::decrypt).fold(0, |sum, mac| sum ^ mac[0]),
        ),
        contender(
            || (record.clone(), sent.clone()),
            |(mut record, sent)| {
                let Party { local, rng, .. } = &mut *party.borrow_mut();
                for body in sent.into_iter().rev() {
                    let message = SignalMessage::from_bytes(body.into()).unwrap();
                    record.decrypt(local, &peer, &message, Trust::FirstUse, rng).unwrap();
                }
                record
            },
        ),
        vec![(
            "openmls",
            contender(
                || {
                    let ((alice, mut sends), bob) = mls_pair();
                    let sent = (0..COUNT).map(|_| alice.send(&mut sends, &[5; 100]));
                    (bob, sent.collect::<Vec<_>>())
                },
                |((bob, mut group), sent)| {
                    for body in sent.into_iter().rev() {
                        bob.read(&mut group, &body);
                    }
                    group
                },
            ),
        )],
    );
}

fn begin() {
    let policy = AgreementPolicy::RequireSpqr;
    let (alice, mut bob) = (Party::new(1), Party::new(2));
    let bundle = bob.bundle(Offer::Everything, KemKind::LastResort);
    let (from, to) = (alice.address(), bob.address());
    let (alice, bob) = (RefCell::new(alice), RefCell::new(bob));
    let initiate = || {
        let Party { local, rng, now, .. } = &mut *alice.borrow_mut();
        let mut record = SessionRecord::new();
        record.initiate(local, &to, &bundle, Trust::FirstUse, policy, rng, *now).unwrap();
        let sent = record.encrypt(local, &to, &[5; 100], Trust::FirstUse, rng, *now).unwrap();
        (record, sent.body)
    };
    let respond = |body: Vec<u8>| {
        let bob = &mut *bob.borrow_mut();
        let message = PreKeySignalMessage::from_bytes(body.into()).unwrap();
        let needs = message.needs();
        let prekeys = PreKeys {
            signed: bob.signed.get(&needs.signed),
            one_time: needs.one_time.and_then(|id| bob.one_time.get(&id)),
            kem: needs.kem.and_then(|id| bob.kem.get(&id)).map(|(prekey, _)| prekey),
            ..PreKeys::NONE
        };
        let mut record = SessionRecord::new();
        let trust = Trust::FirstUse;
        record
            .decrypt_first(&bob.local, &from, &message, prekeys, trust, policy, &mut bob.rng)
            .unwrap();
        record
    };
    let floor = Floor::new();
    let olm = RefCell::new(Olm::new());
    let (host, guest) = (mls::Member::new("alice"), mls::Member::new("bob"));
    row(
        "initiator: bundle to first message",
        1,
        contender(|| (), |()| floor.initiator()),
        contender(|| (), |()| initiate()),
        vec![
            (
                "vodozemac",
                contender(
                    || olm.borrow_mut().one_time_key(),
                    |key| olm.borrow().initiate_with(key),
                ),
            ),
            (
                "openmls",
                contender(
                    || guest.key_package(),
                    |package| {
                        let (mut group, welcome) = host.found(&[package]);
                        (host.send(&mut group, &[5; 100]), group, welcome)
                    },
                ),
            ),
        ],
    );
    row(
        "responder: first message",
        1,
        contender(|| (), |()| floor.responder()),
        contender(|| initiate().1, respond),
        vec![
            (
                "vodozemac",
                contender(
                    || olm.borrow_mut().initiate().1,
                    |first: Vec<u8>| olm.borrow_mut().respond(&first),
                ),
            ),
            (
                "openmls",
                contender(
                    || {
                        let (mut group, welcome) = host.found(&[guest.key_package()]);
                        (welcome, host.send(&mut group, &[5; 100]))
                    },
                    |(welcome, first)| {
                        let mut group = guest.join(&welcome);
                        (guest.read(&mut group, &first), group)
                    },
                ),
            ),
        ],
    );
}

fn keys() {
    let floor = Floor::new();
    let party = RefCell::new(Party::new(1));
    row(
        "identity, signed prekey, 100 one-time prekeys",
        1,
        contender(|| (), |()| floor.keys()),
        contender(
            || (),
            |()| {
                let Party { rng, now, .. } = &mut *party.borrow_mut();
                let identity = IdentityKeyPair::generate(rng);
                let signed = SignedPreKey::generate(SignedPreKeyId(1), &identity, rng, *now);
                let one_time = (1..=100).map(|id| PreKey::generate(PreKeyId(id), rng));
                (one_time.collect::<Vec<_>>(), signed, identity)
            },
        ),
        vec![(
            "vodozemac",
            contender(
                || (),
                |()| {
                    let mut account = vodozemac::olm::Account::new();
                    account.generate_fallback_key();
                    // It makes as many at once as a server is asked to keep.
                    account.generate_one_time_keys(50);
                    account.generate_one_time_keys(50);
                    account
                },
            ),
        )],
    );
}

fn keys_with_kem() {
    let floor = Floor::new();
    let party = RefCell::new(Party::new(1));
    let make = |many: bool| {
        let Party { rng, now, .. } = &mut *party.borrow_mut();
        let identity = IdentityKeyPair::generate(rng);
        let signed = SignedPreKey::generate(SignedPreKeyId(1), &identity, rng, *now);
        let one_time = (1..=100).map(|id| PreKey::generate(PreKeyId(id), rng)).collect::<Vec<_>>();
        let ids = (1..=100).map(KemPreKeyId);
        let kem = if many {
            KemPreKey::generate_many(ids, &identity, rng, *now)
        } else {
            ids.map(|id| KemPreKey::generate(id, &identity, rng, *now)).collect()
        };
        (identity, signed, one_time, kem)
    };
    row(
        "the same and 100 signed one-time KEM prekeys",
        1,
        contender(|| (), |()| floor.keys_with_kem()),
        contender(|| (), |()| make(true)),
        vec![("tuckseal, one KEM prekey after the other", contender(|| (), |()| make(false)))],
    );
}
