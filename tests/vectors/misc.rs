//! Decryption errors (W§10.6) and the incremental MAC (W§18.1).

use super::*;
use tuckseal::{
    ChunkSize, DecryptionErrorMessage, IncrementalMac, IncrementalVerifier, PlaintextContent,
    PreKeySignalMessage, Timestamp,
};

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["decryption_error", "incremental_mac"]);
    decryption_error(&file["decryption_error"]);
    for (number, case) in cases(&file["incremental_mac"], "cases").iter().enumerate() {
        incremental_mac(case, number);
    }
}

fn decryption_error(case: &Value) {
    assert_eq!(case["original_type"], 3);
    let failed = PreKeySignalMessage::decode(&bytes(case, "original_message")).unwrap();
    let timestamp = Timestamp::from_millis(case["timestamp"].as_u64().unwrap());
    let error = DecryptionErrorMessage::for_first(&failed, timestamp, number(case, "device"));
    assert_eq!(error.encode(), bytes(case, "decryption_error_message"));
    assert_eq!(DecryptionErrorMessage::decode(&error.encode()), Ok(error));

    let plaintext = PlaintextContent::new(&error);
    assert_eq!(plaintext.encode(), bytes(case, "plaintext_content"));
    let decoded = PlaintextContent::decode(&bytes(case, "plaintext_content")).unwrap();
    assert_eq!(decoded.decryption_error(), Ok(error));
}

fn incremental_mac(case: &Value, place: usize) {
    let chunk = ChunkSize::new(number(case, "chunk")).unwrap();
    let (key, data, digest) = (bytes(case, "key"), bytes(case, "data"), bytes(case, "digest"));
    let mut mac = IncrementalMac::new(&key, chunk);
    mac.update(&data);
    assert_eq!(mac.finish(), digest, "case {place}");

    let mut verifier = IncrementalVerifier::new(&key, chunk, &digest).unwrap();
    let mut released = Vec::new();
    verifier.update(&data, &mut released).expect("every chunk matches");
    verifier.finish(&mut released).expect("the end matches");
    assert_eq!(released, data, "case {place}");
}
