//! Attachments of any size go through bounded memory, in both directions.
#![allow(clippy::unwrap_used, missing_docs)]

use tuckseal::*;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const PIECE: usize = 16 * 1024;

/// The file as it comes from a disk: a piece at a time.
fn piece(number: u64) -> [u8; PIECE] {
    core::array::from_fn(|place| (number as usize * 31 + place * 7) as u8)
}

/// Encrypts `pieces` pieces and hands on what is ready, a piece at a time.
fn encrypt(keys: &AttachmentKeys, pieces: u64, mut pass_on: impl FnMut(&[u8])) -> Sealed {
    let size = pieces * PIECE as u64;
    let mut encryptor = AttachmentEncryptor::with_iv(keys, size, [1; 16]).unwrap();
    let mut out = Vec::new();
    for number in 0..pieces {
        encryptor.update(&piece(number), &mut out).unwrap();
        pass_on(&out);
        out.clear();
    }
    loop {
        let step = encryptor.finish(&mut out).unwrap();
        pass_on(&out);
        out.clear();
        match step {
            Sealing::More(rest) => encryptor = rest,
            Sealing::Done(sealed) => return sealed,
        }
    }
}

/// The most that was allocated at once while a file goes through encryptor, verifier and decryptor.
fn peak(pieces: u64) -> usize {
    let profiler = dhat::Profiler::builder().testing().build();
    let keys = AttachmentKeys::from_bytes(&[3; 64]).unwrap();
    let sealed = encrypt(&keys, pieces, |_| {});
    let incremental = Some(&sealed.incremental);
    let mut verifier =
        AttachmentVerifier::new(&keys, &sealed.digest, sealed.size, incremental).unwrap();
    encrypt(&keys, pieces, |encrypted| verifier.update(encrypted).unwrap());
    let mut decryptor = verifier.finish().unwrap();
    let (mut out, mut seen) = (Vec::new(), 0);
    encrypt(&keys, pieces, |encrypted| {
        decryptor.update(encrypted, &mut out).unwrap();
        seen += out.len();
        out.clear();
    });
    decryptor.finish(&mut out).unwrap();
    assert_eq!((seen + out.len()) as u64, sealed.size);
    let peak = dhat::HeapStats::get().max_bytes;
    drop(profiler);
    peak
}

/// One test: the counters belong to the process.
#[test]
fn a_file_sixteen_times_as_large_needs_no_more_memory() {
    // Both have chunks of 64 KiB, as all files below 16 MiB.
    let (small, large) = (peak(32), peak(512));
    assert!(small <= 384 * 1024, "512 KiB through {small} bytes");
    // All that grows are 32 bytes for each chunk, in four lists.
    assert!(large <= small + 48 * 1024, "8 MiB through {large} bytes, 512 KiB through {small}");
}
