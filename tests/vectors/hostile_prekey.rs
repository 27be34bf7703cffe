//! First messages that break one or two rules, and the order in which that is found (W§11.3, rows P).

use super::*;
use begun_by_libsignal::{Responder, address};
use tuckseal::{
    AgreementPolicy, DecryptError, KeyError, PreKeyKind, PreKeySignalMessage, SessionRecord, Trust,
};

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["libsignal_version", "responder", "sender_address", "cases"]);
    let responder = Responder::read(&file["responder"], &file["responder"]["address"]);
    let sender = address(&file["sender_address"]);
    for case in cases(file, "cases") {
        let name = text(case, "name");
        let trust = match text(case, "trust") {
            "tofu" => Trust::FirstUse,
            "none" => Trust::Nobody,
            other => panic!("{name}: trust {other}"),
        };
        let message = PreKeySignalMessage::decode(&bytes(case, "message")).expect(name);
        let mut record = SessionRecord::new();
        let policy = AgreementPolicy::RequireSpqr;
        let result = responder.decrypt_first(&sender, &mut record, &message, trust, policy);
        match result {
            Ok(read) => {
                let expected = &case["expect"]["plaintext"];
                assert_eq!(hex::encode(&read.plaintext), *expected, "{name}");
                assert_eq!(read.identity, *message.identity_key(), "{name}");
                let info = record.info().unwrap();
                assert!(info.post_quantum_ratchet, "{name}");
                assert_eq!(info.remote_registration_id, message.registration_id(), "{name}");
            }
            Err(error) => {
                assert_eq!(class(&error), case["expect"]["error"], "{name}");
                assert_eq!(error, expected(name, &message), "{name}");
                assert_eq!(*record.encode(), *SessionRecord::new().encode(), "{name}");
            }
        }
    }
}

/// What the class in the file leaves open: which of the two violations was found.
fn expected(name: &str, message: &PreKeySignalMessage) -> DecryptError {
    let needs = message.needs();
    let missing = |kind, id| DecryptError::NoPreKey { kind, id };
    match name {
        "untrusted and unknown signed prekey id" => {
            DecryptError::UntrustedIdentity(tuckseal::UntrustedIdentity {
                offered: *message.identity_key(),
            })
        }
        "version 3 and unknown signed prekey id" => DecryptError::X3dhRefused,
        "unknown signed prekey, kyber and one-time ids" => {
            missing(PreKeyKind::Signed, needs.signed.0)
        }
        "unknown kyber and one-time ids" => missing(PreKeyKind::Kem, needs.kem.unwrap().0),
        "unknown one-time id and base key with bit 255" => {
            missing(PreKeyKind::OneTime, needs.one_time.unwrap().0)
        }
        "low-order identity, short kyber ciphertext" => KeyError::LowOrder.into(),
        "short kyber ciphertext" => KeyError::Length { expected: 1569, found: 11 }.into(),
        "kyber ciphertext type 0x07" => KeyError::Type { found: 7 }.into(),
        "kyber ciphertext empty" => KeyError::Empty.into(),
        _ => DecryptError::Invalid,
    }
}

/// The class that errors-and-limits gives to an error of decrypting.
fn class(error: &DecryptError) -> &'static str {
    match error {
        DecryptError::UntrustedIdentity(_) => "untrusted",
        // P2 is deliberately no error of the version class.
        DecryptError::Invalid | DecryptError::X3dhRefused => "invalid",
        DecryptError::NoPreKey { .. } => "not-found",
        DecryptError::Key(_) => "key",
        other => panic!("no class for {other:?}"),
    }
}
