//! Beginning a session on both sides, each beside its primitives (W§7).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(missing_docs, unreachable_pub)]

#[path = "measure/floor.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod floor;
mod measure;
#[path = "../tests/story/mod.rs"]
mod story;

use criterion::{Criterion, criterion_group, criterion_main};
use ed25519_dalek::SigningKey;
use libcrux_ml_kem::kyber1024;
use std::cell::RefCell;
use story::{KemKind, Offer, Party};
use tuckseal::{AgreementPolicy, PreKeySignalMessage, PreKeys, SessionRecord, Trust};
use x25519_dalek::{PublicKey, StaticSecret};

fn handshake(criterion: &mut Criterion) {
    for (name, offer, policy) in [
        ("X3DH", Offer::NoKem, AgreementPolicy::AllowX3dh),
        ("PQXDH", Offer::Everything, AgreementPolicy::RequireSpqr),
    ] {
        let (alice, mut bob) = (Party::new(1), Party::new(2));
        let bundle = bob.bundle(offer, KemKind::LastResort);
        let to = bob.address();
        let alice = RefCell::new(alice);
        let initiate = |mut record: SessionRecord| {
            let alice = &mut *alice.borrow_mut();
            let (local, rng, now) = (&alice.local, &mut alice.rng, alice.now);
            record.initiate(local, &to, &bundle, Trust::FirstUse, policy, rng, now).unwrap();
            let sent = record.encrypt(local, &to, &[5; 100], Trust::FirstUse, rng, now).unwrap();
            (record, sent)
        };
        let floor = Floor::new();
        measure::beside(
            criterion,
            &format!("{name} initiator with first message"),
            (SessionRecord::new, initiate),
            (|| (), |()| floor.initiator(offer)),
        );

        let bob = RefCell::new(bob);
        let from = alice.borrow().address();
        let respond = |(body, mut record): (Vec<u8>, SessionRecord)| {
            let bob = &mut *bob.borrow_mut();
            let message = PreKeySignalMessage::from_bytes(body.into()).unwrap();
            let needs = message.needs();
            let prekeys = PreKeys {
                signed: bob.signed.get(&needs.signed),
                one_time: needs.one_time.and_then(|id| bob.one_time.get(&id)),
                kem: needs.kem.and_then(|id| bob.kem.get(&id)).map(|(prekey, _)| prekey),
                ..PreKeys::NONE
            };
            let rng = &mut bob.rng;
            record
                .decrypt_first(&bob.local, &from, &message, prekeys, Trust::FirstUse, policy, rng)
                .unwrap();
            record
        };
        measure::beside(
            criterion,
            &format!("{name} responder with first message"),
            (|| (initiate(SessionRecord::new()).1.body, SessionRecord::new()), respond),
            (|| (), |()| floor.responder(offer)),
        );
    }
}

/// Keys for the primitives of `initiator` and `responder`.
struct Floor {
    secret: StaticSecret,
    public: PublicKey,
    signer: SigningKey,
    signature: ed25519_dalek::Signature,
    kem: libcrux_ml_kem::mlkem1024::MlKem1024KeyPair,
    ciphertext: libcrux_ml_kem::mlkem1024::MlKem1024Ciphertext,
}

impl Floor {
    fn new() -> Self {
        let secret = StaticSecret::from([7; 32]);
        let signer = SigningKey::from_bytes(&[9; 32]);
        let kem = kyber1024::generate_key_pair([3; 64]);
        let (ciphertext, _) = kyber1024::encapsulate(kem.public_key(), [4; 32]);
        Self {
            public: PublicKey::from(&secret),
            signature: floor::signature(&signer, &[1; 33]),
            secret,
            signer,
            kem,
            ciphertext,
        }
    }

    /// A base and a ratchet key, the agreements of W§7.1 and the first step, the signatures, the KEM.
    fn initiator(&self, offer: Offer) {
        let with_kem = matches!(offer, Offer::Everything);
        let verified = if with_kem { 2 } else { 1 };
        for _ in 0..verified {
            floor::verify(&self.signer, &[1; 33], &self.signature);
        }
        for _ in 0..2 {
            std::hint::black_box(floor::x25519_public(&self.secret));
        }
        for _ in 0..5 {
            std::hint::black_box(floor::x25519(&self.secret, &self.public));
        }
        if with_kem {
            std::hint::black_box(kyber1024::encapsulate(self.kem.public_key(), [4; 32]));
        }
    }

    /// The agreements of W§7.1, both halves of the first step, the canonical base key, the KEM.
    fn responder(&self, offer: Offer) {
        let with_kem = matches!(offer, Offer::Everything);
        std::hint::black_box(floor::x25519_public(&self.secret));
        for _ in 0..6 {
            std::hint::black_box(floor::x25519(&self.secret, &self.public));
        }
        if with_kem {
            std::hint::black_box(kyber1024::decapsulate(self.kem.private_key(), &self.ciphertext));
        }
    }
}

criterion_group!(benches, handshake);
criterion_main!(benches);
