//! The fuzz targets as ordinary tests: what they assert holds for what they begin with, and for every
//! input that the fuzzer once found. Those of the post-quantum ratchet are in src/spqr/fuzzing.rs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    missing_docs
)]

#[path = "../../fuzz/src/checks/mod.rs"]
mod checks;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

macro_rules! replays {
    ($($target:ident),* $(,)?) => {
        const REPLAYED: &[&str] = &[$(stringify!($target)),*];

        $(#[test]
        fn $target() {
            let name = stringify!($target);
            regressions(name).iter().for_each(|input| checks::$target(input));
            let seeds = checks::seeds::of(name);
            assert!(!seeds.is_empty());
            seeds.iter().for_each(|seed| checks::$target(seed));
        })*
    };
}

replays! {
    decode_content,
    decode_decryption_error,
    decode_fingerprint,
    decode_keys_and_ids,
    decode_link_offer,
    decode_padded_envelope,
    decode_plaintext_content,
    decode_prekey_message,
    decode_sealed_content,
    decode_sealed_v1,
    decode_sealed_v2,
    decode_sender_certificate,
    decode_sender_key_distribution,
    decode_sender_key_message,
    decode_sent_message,
    decode_server_certificate,
    decode_signal_message,
    group_recv,
    incremental_mac,
    record_decode,
    sender_key_decode,
    session_message,
    session_two_parties,
    shim_line,
}

/// Replayed where the ratchet is.
const ELSEWHERE: [&str; 3] = ["decode_spqr_message", "spqr_recv", "spqr_state"];

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(name)
}

fn regressions(target: &str) -> Vec<Vec<u8>> {
    let found = fs::read_dir(folder("regressions").join(target)).into_iter().flatten();
    found.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn every_target_is_replayed() {
    let of = |folder: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.map(|name| name.trim_end_matches(".rs").to_owned()).collect()
    };
    let replayed: BTreeSet<String> =
        REPLAYED.iter().chain(&ELSEWHERE).map(|name| (*name).to_owned()).collect();
    assert_eq!(of(folder("fuzz_targets")), replayed, "left: targets, right: replayed");
    assert!(of(folder("regressions")).is_subset(&replayed), "inputs that nobody replays");
}
