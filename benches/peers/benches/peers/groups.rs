//! Group messages: ours under a sender key, beside Megolm and openmls in groups of several sizes.

use super::floor::{self, Floor};
use super::measure::{contender, row};
use super::{mls, olm};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tuckseal::{SenderKey, SenderKeyMessage, SenderKeyRecord};

const SIZES: [usize; 3] = [10, 100, 1_000];

/// Two members of an openmls group of this size; the others are in it and do nothing.
fn mls_group(size: usize) -> ((mls::Member, mls::Group), (mls::Member, mls::Group)) {
    let (alice, bob) = (mls::Member::new("alice"), mls::Member::new("bob"));
    let others = (2..size).map(|n| mls::Member::new(&n.to_string()).key_package());
    let packages: Vec<_> = std::iter::once(bob.key_package()).chain(others).collect();
    let (at_alice, welcome) = alice.found(&packages);
    let at_bob = bob.join(&welcome);
    ((alice, at_alice), (bob, at_bob))
}

fn ours() -> (SenderKey, SenderKeyRecord, ChaCha20Rng) {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let key = SenderKey::generate([7; 16], &mut rng);
    let mut record = SenderKeyRecord::new();
    record.process(&key.distribution_message());
    (key, record, rng)
}

pub fn one_way() {
    let floor = Floor::new();
    for (size, len) in [("100 B", 100), ("1 KiB", 1_024)] {
        let plaintext = &vec![5; len];
        let (mut key, _, mut rng) = ours();
        let mut others = vec![
            ("dalek's Ed25519 signature alone", contender(|| (), |()| floor.dalek_signature())),
            ("Megolm", contender(|| (), olm::megolm_sender(plaintext))),
        ];
        let groups: Vec<_> = SIZES.map(|size| (size, mls_group(size).0)).into();
        for (size, (member, mut group)) in groups {
            let send = move |()| member.send(&mut group, plaintext);
            others.push((name(size), contender(|| (), send)));
        }
        row(
            &format!("group encrypt {size}"),
            1,
            contender(|| floor::group_buffer(len), |body| floor.group_encrypt(body, len)),
            contender(|| (), move |()| key.encrypt(plaintext, &mut rng).unwrap()),
            others,
        );

        let (mut key, mut record, mut rng) = ours();
        let (sends, reads) = olm::megolm(plaintext);
        let mut others = vec![("Megolm", contender(sends, reads))];
        for size in SIZES {
            let ((alice, mut from), (bob, mut to)) = mls_group(size);
            let send = move || alice.send(&mut from, plaintext);
            let read = move |body: Vec<u8>| bob.read(&mut to, &body);
            others.push((name(size), contender(send, read)));
        }
        row(
            &format!("group decrypt {size}"),
            1,
            contender(|| floor.group_message(len), |message| floor.group_decrypt(message)),
            contender(
                move || key.encrypt(plaintext, &mut rng).unwrap(),
                move |body: Vec<u8>| {
                    let message = SenderKeyMessage::from_bytes(body.into()).unwrap();
                    record.decrypt(&message).unwrap()
                },
            ),
            others,
        );
    }
}

fn name(size: usize) -> &'static str {
    match size {
        10 => "openmls, 10 members",
        100 => "openmls, 100",
        _ => "openmls, 1,000",
    }
}
