//! X3DH, PQXDH, the Double Ratchet with SPQR, and sealed sender, wire-compatible with libsignal: pure functions
//! of state, input, randomness and time, without files, sockets, clock, threads or async.
//!
//! # A conversation
//!
//! ```
//! use rand::rngs::StdRng;
//! use tuckseal::*;
//!
//! let mut rng: StdRng = rand::make_rng();
//! let now = Timestamp::from_millis(1_700_000_000_000);
//! let party = |account, rng: &mut StdRng| LocalParty {
//!     identity: IdentityKeyPair::generate(rng),
//!     registration_id: 1,
//!     address: Address::new(ServiceId::aci([account; 16]), DeviceId::PRIMARY),
//! };
//! let (alice, bob) = (party(1, &mut rng), party(2, &mut rng));
//!
//! // Bob publishes prekeys, and keeps the private halves.
//! let signed = SignedPreKey::generate(SignedPreKeyId(1), &bob.identity, &mut rng, now);
//! let kem = KemPreKey::generate(KemPreKeyId(1), &bob.identity, &mut rng, now);
//! let bundle = PreKeyBundle {
//!     registration_id: bob.registration_id,
//!     device_id: bob.address.device_id,
//!     identity_key: bob.identity.identity_key(),
//!     signed_prekey: signed.public(),
//!     one_time: None,
//!     kem: Some(kem.public()),
//! };
//!
//! // Alice begins a session and writes. She saves `with_bob.encode()` before the message leaves.
//! let mut with_bob = SessionRecord::new();
//! let policy = AgreementPolicy::RequireSpqr;
//! with_bob.initiate(&alice, &bob.address, &bundle, Trust::FirstUse, policy, &mut rng, now)?;
//! let sent = with_bob.encrypt(&alice, &bob.address, b"hi", Trust::FirstUse, &mut rng, now)?;
//!
//! // Bob reads it. He saves the record, the identity and the plaintext in one transaction.
//! let mut with_alice = SessionRecord::new();
//! let message = PreKeySignalMessage::decode(&sent.body)?;
//! assert_eq!(message.needs().signed, signed.id);
//! let prekeys = PreKeys { signed: Some(&signed), kem: Some(&kem), ..PreKeys::NONE };
//! let read = with_alice.decrypt_first(
//!     &bob, &alice.address, &message, prekeys, Trust::FirstUse, policy, &mut rng,
//! )?;
//! assert_eq!(read.plaintext, b"hi");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What to know before using it
//!
//! * **An error has changed nothing.** What succeeded has changed the record: save it in the same
//!   transaction as what you got from the call, and before a message leaves.
//! * **A message decrypts once.** Its key is gone afterwards: keep the plaintext.
//! * **Two calls on one record must not overlap**, in one process or two: `&mut` sees to the first,
//!   your store's transaction to the second. `tuckseal-client` does both.
//! * **Trust is asked every time**, as a value: see [`Trust`].
//!
//! # Features
//!
//! | feature | default | effect |
//! |---|---|---|
//! | `std` | on | lets dependencies use the standard library; the crate itself needs `alloc` alone |
//! | `asm` | off | X25519 by the assembly of `graviola`, about twice as fast, where the target is x86-64 or aarch64 and the processor has what it needs (found out at run time); everywhere else the portable code |
//! | `rayon` | off | `seal_v2_multi` works for its recipients on all cores; the bytes are the same |
//!
//! # Where the specifications are implemented
//!
//! W§ is `docs/spec/signal-wire.md`, S§ `docs/spec/spqr.md`.
//!
//! | section | file |
//! |---|---|
//! | W§1 derivations | `src/crypto/kdf.rs` |
//! | W§2 keys, agreement, KEM | `src/crypto/curve.rs`, `src/crypto/x25519.rs`, `src/crypto/kem.rs`, `src/crypto/kyber.rs` |
//! | W§3 XEdDSA | `src/crypto/xeddsa.rs` |
//! | W§4 identifiers | `src/address.rs` |
//! | W§5 alternate identity | `src/identity.rs` |
//! | W§6 prekeys, bundles | `src/prekey.rs` |
//! | W§7.1–7.2 X3DH, PQXDH | `src/handshake.rs` |
//! | W§7.3, 8.3, 8.7 ratchet | `src/ratchet/double.rs`, `src/ratchet/skipped.rs` |
//! | W§7.4–7.5, 11.3 beginning a session | `src/session/establish.rs` |
//! | W§8.1, 8.2, 8.4 chain and message keys | `src/keys.rs` |
//! | W§8.5, 8.6, 10.2 ordinary messages | `src/message/signal.rs` |
//! | W§9 both ratchets together | `src/ratchet/triple.rs` |
//! | S§ post-quantum ratchet | `src/spqr/` |
//! | W§10.3 first messages | `src/message/prekey.rs` |
//! | W§10.4–10.5 group messages | `src/group/message.rs` |
//! | W§10.6 decryption errors | `src/message/retry.rs` |
//! | W§11 records, sending, receiving | `src/session/record.rs`, `src/session/cipher.rs` |
//! | W§12 sender keys | `src/group/chain.rs`, `src/group/own.rs`, `src/group/record.rs` |
//! | W§13 sealed sender | `src/sealed/v1.rs`, `src/sealed/content.rs`, `src/sealed/sealer.rs` |
//! | W§14 certificates | `src/sealed/certificate.rs`, `src/sealed/checker.rs` |
//! | W§15 sealed sender for many | `src/sealed/v2.rs`, `src/sealed/sent.rs` |
//! | W§16 safety numbers | `src/fingerprint.rs` |
//! | W§17 import of what libsignal stores | `src/import/`, `src/spqr/import.rs` |
//! | W§18.1 attachments, incremental MAC | `src/attachment/` |
//! | W§18.2 padding | `src/padding.rs` |
//! | what a message says | `src/content/` |

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod address;
mod attachment;
pub mod content;
mod crypto;
mod fingerprint;
mod group;
mod handshake;
mod identity;
mod import;
mod keys;
mod message;
mod padding;
mod prekey;
mod provisioning;
mod ratchet;
mod sealed;
mod session;
mod spqr;
mod stored;
mod wire;

pub use address::{Address, AddressError, DeviceId, ServiceId, ServiceIdKind, Timestamp};
pub use attachment::*;
pub use crypto::{
    InvalidSignature, KemCiphertext, KemKeyPair, KemPublicKey, KemSecretKey, KeyError, KeyPair,
    PrivateKey, PublicKey, SecretBytes,
};
pub use fingerprint::{
    Comparison, Fingerprint, FingerprintError, FingerprintParty, InvalidIterations, Iterations,
};
pub use group::*;
pub use identity::{IdentityKey, IdentityKeyPair, LocalParty, Trust, UntrustedIdentity};
pub use import::{ImportError, ImportedSessions};
pub use message::{
    DecryptionErrorMessage, MessageKind, Needs, PlaintextContent, PreKeySignalMessage, RetryError,
    SessionVersion, SignalMessage,
};
pub use padding::{
    ENVELOPE_SIZES, EnvelopeTooLong, UnpadError, pad, pad_envelope, unpad, unpad_envelope,
};
pub use prekey::{
    KemPreKey, KemPreKeyId, KemPreKeyPublic, PreKey, PreKeyBundle, PreKeyId, PreKeyPublic,
    SignedPreKey, SignedPreKeyId, SignedPreKeyPublic,
};
pub use provisioning::{
    PROVISIONING_OVERHEAD, ProvisioningError, open_for_device, seal_for_device,
};
pub use rand_core;
pub use sealed::*;
pub use session::{
    AgreementPolicy, BaseKeyUse, Consumed, DecryptError, Decrypted, EncryptError, Encrypted,
    HandshakeError, PreKeyKind, PreKeys, RecordError, SessionInfo, SessionRecord,
};
pub use wire::{DecodeError, service};

/// The fuzz targets of the post-quantum ratchet, which has no public API. Not a part of this crate's
/// API either: `--cfg fuzzing`, which cargo-fuzz sets, makes it appear.
#[cfg(all(feature = "std", fuzzing))]
pub mod fuzzing {
    pub use crate::spqr::fuzzing::{message, recv, recv_seeds, state, state_seeds};
}

/// The README's example is a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
