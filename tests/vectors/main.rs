//! Replays the data of `test-vectors/libsignal/`, one module a file. What each file holds and where
//! it comes from stands in the README there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use tuckseal::{DecodeError, IdentityKeyPair, PrivateKey, PublicKey};

mod begun_by_libsignal;
mod imported;

/// Makes of each line a module, a test that replays its file, and a row of the table that
/// `every_vector_file_is_replayed` compares with the folder.
macro_rules! replays {
    ($($module:ident),* $(,)?) => {
        $(mod $module;)*

        const REPLAYED: &[&str] = &[$(concat!(stringify!($module), ".json")),*];

        $(#[test]
        fn $module() {
            $module::replay(&load(concat!(stringify!($module), ".json")));
        })*
    };
}

replays! {
    archived_session,
    fingerprints,
    hostile,
    hostile_prekey,
    hostile_sealed,
    hostile_sessions,
    identifiers,
    misc,
    pqxdh_v4,
    pqxdh_v4_spqr,
    prekey_records,
    sealed_sender,
    sender_key_record,
    sender_keys,
    session_records,
    simultaneous,
    x3dh_v3,
    xeddsa,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("test-vectors/libsignal")
}

fn load(file: &str) -> Value {
    let text = fs::read_to_string(folder().join(file)).expect(file);
    serde_json::from_str(&text).expect(file)
}

#[test]
fn every_vector_file_is_replayed() {
    let there: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    let read: BTreeSet<String> = REPLAYED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(there, read, "left: in the folder, right: replayed by a test");
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    for name in there {
        assert!(readme.contains(&format!("`{name}`")), "the README does not say what {name} is");
    }
}

/// Fails when a file has a section that its replay does not know.
fn expect_sections(file: &Value, known: &[&str]) {
    for section in file.as_object().unwrap().keys() {
        assert!(known.contains(&section.as_str()), "nobody replays section {section}");
    }
}

fn cases<'a>(file: &'a Value, section: &str) -> &'a [Value] {
    let cases = file[section].as_array().expect(section);
    assert!(!cases.is_empty(), "{section} is empty");
    cases
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().expect(field)
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    hex::decode(text(case, field)).expect(field)
}

fn number(case: &Value, field: &str) -> u32 {
    case[field].as_u64().and_then(|number| number.try_into().ok()).expect(field)
}

fn private(case: &Value, field: &str) -> PrivateKey {
    PrivateKey::from_bytes(&bytes(case, field)).expect(field)
}

fn public(case: &Value, field: &str) -> PublicKey {
    PublicKey::decode(&bytes(case, field)).expect(field)
}

fn identity(case: &Value, field: &str) -> IdentityKeyPair {
    private(case, field).into()
}

/// The class that errors-and-limits gives to an error of decoding.
fn class(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::Protobuf
        | DecodeError::TooShort { .. }
        | DecodeError::Missing { .. }
        | DecodeError::Field { .. } => "parse",
        DecodeError::LegacyVersion { .. } | DecodeError::UnknownVersion { .. } => "version",
        DecodeError::KemPart => "invalid",
        DecodeError::Key { .. } => "key",
        other => panic!("no class for {other:?}"),
    }
}
