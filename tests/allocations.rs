//! What a message of a session or a group that is there asks of the allocator: a handful of blocks,
//! however many seeds of skipped messages are kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

mod story;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use story::talking;
use tuckseal::{SenderKey, SenderKeyMessage, SenderKeyRecord, SignalMessage, Trust};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Blocks and bytes that an operation allocates.
fn allocated<T>(operation: impl FnOnce() -> T) -> (u64, u64) {
    let before = dhat::HeapStats::get();
    let result = operation();
    let after = dhat::HeapStats::get();
    drop(result);
    (after.total_blocks - before.total_blocks, after.total_bytes - before.total_bytes)
}

/// One test: the counters belong to the process.
#[test]
fn a_message_allocates_a_handful_of_blocks_and_copies_no_stored_key() {
    let _profiler = dhat::Profiler::builder().testing().build();
    of_a_session();
    of_a_group();
}

fn of_a_group() {
    for skipped in [0, 1_900] {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let mut key = SenderKey::generate([7; 16], &mut rng);
        let mut record = SenderKeyRecord::new();
        record.process(&key.distribution_message());
        for _ in 0..skipped {
            key.encrypt(b"lost", &mut rng).unwrap();
        }
        let message = SenderKeyMessage::decode(&key.encrypt(b"arrives", &mut rng).unwrap());
        record.decrypt(&message.unwrap()).unwrap();

        let mut body = Vec::new();
        let (blocks, bytes) = allocated(|| body = key.encrypt(&[5; 100], &mut rng).unwrap());
        assert!(blocks <= 1 && bytes <= 256, "encrypt: {blocks} blocks, {bytes} bytes");
        let (blocks, bytes) = allocated(|| {
            record.decrypt(&SenderKeyMessage::from_bytes(body.into()).unwrap()).unwrap()
        });
        assert!(blocks <= 3 && bytes <= 512, "decrypt: {blocks} blocks, {bytes} bytes");
    }
}

fn of_a_session() {
    for skipped in [0, 1_900] {
        let (mut alice, mut bob) = talking();
        let (to, from) = (bob.address(), alice.address());
        for _ in 0..skipped {
            alice.encrypt(to, b"lost").unwrap();
        }
        let sent = alice.encrypt(to, b"arrives").unwrap();
        bob.decrypt(from, sent.kind, &sent.body).unwrap();

        let record = alice.sessions.get_mut(&to).unwrap();
        let mut body = Vec::new();
        let (blocks, bytes) = allocated(|| {
            let rng = &mut alice.rng;
            body = record
                .encrypt(&alice.local, &to, &[5; 100], Trust::FirstUse, rng, alice.now)
                .unwrap()
                .body;
        });
        assert!(blocks <= 4 && bytes <= 1_024, "encrypt: {blocks} blocks, {bytes} bytes");

        let record = bob.sessions.get_mut(&from).unwrap();
        let (blocks, bytes) = allocated(|| {
            let message = SignalMessage::from_bytes(body.into()).unwrap();
            record.decrypt(&bob.local, &from, &message, Trust::FirstUse, &mut bob.rng).unwrap()
        });
        assert!(blocks <= 6 && bytes <= 2_048, "decrypt: {blocks} blocks, {bytes} bytes");
    }
}
