//! Attachments: encrypted and opened in pieces, whole or not at all.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tuckseal::*;

const IV: [u8; 16] = [9; 16];

fn keys() -> AttachmentKeys {
    AttachmentKeys::from_bytes(&[7; 64]).unwrap()
}

/// Bytes that are nowhere the same.
fn file(len: usize) -> Vec<u8> {
    (0..len).map(|place| (place * 7 + place / 251) as u8).collect()
}

fn encrypt(keys: &AttachmentKeys, iv: [u8; 16], file: &[u8], piece: usize) -> (Vec<u8>, Sealed) {
    let mut encryptor = AttachmentEncryptor::with_iv(keys, file.len() as u64, iv).unwrap();
    let mut out = Vec::new();
    for piece in file.chunks(piece) {
        encryptor.update(piece, &mut out).unwrap();
    }
    loop {
        match encryptor.finish(&mut out).unwrap() {
            Sealing::More(rest) => encryptor = rest,
            Sealing::Done(sealed) => return (out, sealed),
        }
    }
}

/// The first pass alone.
fn verify(
    encrypted: &[u8],
    sealed: &Sealed,
    incremental: Option<&IncrementalMacs>,
    piece: usize,
) -> Result<AttachmentDecryptor, AttachmentError> {
    let mut verifier = AttachmentVerifier::new(&keys(), &sealed.digest, sealed.size, incremental)?;
    encrypted.chunks(piece).try_for_each(|piece| verifier.update(piece))?;
    verifier.finish()
}

fn decrypt(
    mut decryptor: AttachmentDecryptor,
    encrypted: &[u8],
    piece: usize,
) -> (Vec<u8>, Result<(), AttachmentError>) {
    let mut out = Vec::new();
    for piece in encrypted.chunks(piece) {
        if let Err(error) = decryptor.update(piece, &mut out) {
            return (out, Err(error));
        }
    }
    let end = decryptor.finish(&mut out);
    (out, end)
}

/// Digests that openssl and Python's hmac gave for the same keys, IV and files.
#[test]
fn the_encrypted_form_is_what_other_software_makes() {
    let bytes: Vec<u8> = (0..64).collect();
    let keys = AttachmentKeys::from_bytes(&bytes).unwrap();
    let iv: [u8; 16] = core::array::from_fn(|place| 100 + place as u8);
    let long: Vec<u8> = (0..70_000u32).map(|place| (place % 251) as u8).collect();
    for (file, len, digest, values) in [
        (
            &b""[..],
            592,
            "771911962b2c835a27d072b58143a8b9230172aba4f4f4c432b4cbdefbba6806",
            "3e6bf37eccea0a4eafa832d54c7e2180a1fbacded872b0932863437923a12c79",
        ),
        (
            b"hello",
            592,
            "a2d2a65fa114f9166d1c528a5141058a7453968a4e1e1f817fa75ca71588fa90",
            "541828f92ba7bfcceb26bd8fc79018524f717c2051025d2fa41296f6fea91eda",
        ),
        (
            &long,
            71_232,
            "7f368446c851570ecdb72aba3b6ea920b6fe1a3eee9ab6f738bcec96126eb5e2",
            "b30e0ce013fcecacd073dbb9612766474dae55ba6472402ab9f541b437203481",
        ),
    ] {
        let (encrypted, sealed) = encrypt(&keys, iv, file, 1000);
        assert_eq!(encrypted.len(), len);
        assert_eq!(hex::encode(sealed.digest), digest);
        assert_eq!(hex::encode(Sha256::digest(&encrypted)), digest);
        assert_eq!(hex::encode(Sha256::digest(&sealed.incremental.values)), values);
        assert_eq!(sealed.incremental.chunk.get(), 65_536);
        assert_eq!(encrypted_attachment_len(file.len() as u64), Ok(len as u64));
    }
}

#[test]
fn sizes_tell_a_file_within_five_percent() {
    // What the formula of W§18.1 gives in floating point.
    for (size, padded) in [
        (0, 541),
        (541, 541),
        (542, 568),
        (1_000, 1_020),
        (1_000_000, 1_041_743),
        (52_428_800, 54_211_841),
        (104_857_600, 107_335_738),
    ] {
        let encrypted = 16 + (padded / 16 + 1) * 16 + 32;
        assert_eq!(encrypted_attachment_len(size), Ok(encrypted), "{size}");
    }
    for size in [u64::from(u32::MAX), u64::MAX] {
        assert_eq!(encrypted_attachment_len(size), Err(AttachmentError::TooLarge { size }));
        let begun = AttachmentEncryptor::with_iv(&keys(), size, IV).err();
        assert_eq!(begun, Some(AttachmentError::TooLarge { size }));
    }
}

#[test]
fn a_file_of_another_size_than_stated_is_not_sealed() {
    let changed = AttachmentError::SizeChanged { stated: 10 };
    let mut out = Vec::new();
    let mut longer = AttachmentEncryptor::with_iv(&keys(), 10, IV).unwrap();
    assert_eq!(longer.update(&[0; 11], &mut out), Err(changed));
    assert!(out.is_empty());
    let mut shorter = AttachmentEncryptor::with_iv(&keys(), 10, IV).unwrap();
    shorter.update(&[0; 9], &mut out).unwrap();
    assert_eq!(shorter.finish(&mut out).err(), Some(changed));
}

#[test]
fn every_changed_cut_or_lengthened_file_is_refused_before_a_byte_comes_out() {
    let (encrypted, sealed) = encrypt(&keys(), IV, &file(600), 600);
    let refused = |bytes: &[u8]| {
        for incremental in [None, Some(&sealed.incremental)] {
            let verdict = verify(bytes, &sealed, incremental, 100).err();
            assert_eq!(verdict, Some(AttachmentError::Damaged));
        }
    };
    for place in 0..encrypted.len() {
        let mut changed = encrypted.clone();
        changed[place] ^= 0x40;
        refused(&changed);
        refused(&encrypted[..place]);
        let mut longer = encrypted.clone();
        longer.insert(place, 0);
        refused(&longer);
    }
    refused(&[&encrypted[..], &[0]].concat());
    refused(&[&encrypted[..], &encrypted[..]].concat());
    for block in (0..encrypted.len() - 32).step_by(16) {
        let mut reordered = encrypted.clone();
        reordered[block..block + 32].rotate_left(16);
        refused(&reordered);
    }
}

#[test]
fn each_thing_that_the_message_says_is_checked() {
    let (encrypted, sealed) = encrypt(&keys(), IV, &file(600), 600);
    let other_digest = Sealed { digest: [1; 32], ..sealed.clone() };
    let verdict = |sealed: &Sealed, incremental: Option<&IncrementalMacs>| {
        verify(&encrypted, sealed, incremental, 64).err()
    };
    assert_eq!(verdict(&other_digest, None), Some(AttachmentError::Damaged));
    // A MAC under another key, with the digest of this very file.
    let other_keys = AttachmentKeys::from_bytes(&[8; 64]).unwrap();
    let (foreign, foreign_sealed) = encrypt(&other_keys, IV, &file(600), 600);
    assert_eq!(verify(&foreign, &foreign_sealed, None, 64).err(), Some(AttachmentError::Damaged));
    // 600 bytes are filled up to 626.
    let all = Sealed { size: 626, ..sealed.clone() };
    assert_eq!(verdict(&all, None), None);
    let more = Sealed { size: 627, ..sealed.clone() };
    let too_short = AttachmentError::TooShort { stated: 627, found: 626 };
    assert_eq!(verdict(&more, None), Some(too_short));
    // Values that are too few, too many, ragged or of another file.
    let values = &sealed.incremental.values;
    for values in [
        Vec::new(),
        [&values[..], &[0; 32]].concat(),
        values[..31].to_vec(),
        foreign_sealed.incremental.values.to_vec(),
    ] {
        let macs = IncrementalMacs { values: values.into(), ..sealed.incremental.clone() };
        assert_eq!(verdict(&sealed, Some(&macs)), Some(AttachmentError::Damaged));
    }
    // Values over chunks too large to hold back, or too small to be cheap, are not used.
    for chunk in [1, u32::MAX] {
        let chunk = ChunkSize::new(chunk).unwrap();
        let macs = IncrementalMacs { chunk, values: vec![0; 32].into() };
        assert_eq!(verdict(&sealed, Some(&macs)), None);
    }
}

#[test]
fn a_damaged_chunk_is_noticed_where_it_is() {
    let (mut encrypted, sealed) = encrypt(&keys(), IV, &file(300_000), 5_000);
    encrypted[70_000] ^= 1;
    let incremental = Some(&sealed.incremental);
    let mut verifier =
        AttachmentVerifier::new(&keys(), &sealed.digest, sealed.size, incremental).unwrap();
    let noticed = encrypted.chunks(1000).position(|piece| verifier.update(piece).is_err());
    assert_eq!(noticed, Some(131), "the second chunk ends at 131,072");
    assert_eq!(verifier.finish().err(), Some(AttachmentError::Damaged));
}

#[test]
fn an_endless_file_is_given_up() {
    let (_, sealed) = encrypt(&keys(), IV, &file(10), 10);
    let mut verifier = AttachmentVerifier::new(&keys(), &sealed.digest, 10, None).unwrap();
    let fed = (0..5000).position(|_| verifier.update(&[0; 1_000]).is_err());
    assert_eq!(fed, Some(66), "twice 592 bytes and 64 KiB");
    assert_eq!(verifier.finish().err(), Some(AttachmentError::Damaged));
}

#[test]
fn a_file_that_changes_between_the_passes_gives_nothing_of_the_changed_chunk() {
    let plain = file(300_000);
    let (encrypted, sealed) = encrypt(&keys(), IV, &plain, 5_000);
    for (place, whole_chunks) in [(0, 0), (70_000, 1), (encrypted.len() - 1, 4)] {
        let decryptor = verify(&encrypted, &sealed, None, 5_000).unwrap();
        let mut changed = encrypted.clone();
        changed[place] ^= 1;
        let (out, end) = decrypt(decryptor, &changed, 5_000);
        assert_eq!(end, Err(AttachmentError::Damaged));
        assert!(out.len() <= whole_chunks * 65_536 && plain.starts_with(&out));
    }
    for len in [0, 15, 100, 65_536, 300_000, encrypted.len() - 1] {
        let decryptor = verify(&encrypted, &sealed, None, 5_000).unwrap();
        let (out, end) = decrypt(decryptor, &encrypted[..len], 5_000);
        assert_eq!(end, Err(AttachmentError::Damaged), "{len}");
        assert!(plain.starts_with(&out));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn where_pieces_begin_and_end_never_changes_the_result(
        len in prop_oneof![0..2_000usize, 60_000..200_000usize],
        pieces in proptest::array::uniform3(prop_oneof![1..200usize, 1_000..90_000usize]),
        with_values in any::<bool>(),
    ) {
        let plain = file(len);
        let (whole, expected) = encrypt(&keys(), IV, &plain, len.max(1));
        let (encrypted, sealed) = encrypt(&keys(), IV, &plain, pieces[0]);
        prop_assert_eq!((&encrypted, &sealed), (&whole, &expected));
        let incremental = Some(&sealed.incremental).filter(|_| with_values);
        let decryptor = verify(&encrypted, &sealed, incremental, pieces[1]).unwrap();
        let (out, end) = decrypt(decryptor, &encrypted, pieces[2]);
        prop_assert_eq!(end, Ok(()));
        prop_assert!(out == plain);
    }
}
