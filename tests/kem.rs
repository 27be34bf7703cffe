//! Two independent codes of ML-KEM, that of libcrux, which this crate computes with, and the crate
//! `ml-kem`, give the same bytes for the same randomness (FIPS 203); and libcrux gives them whether its
//! vector code or its portable code runs. Round-3 Kyber-1024 (W§2.4) is compared where the two schemes share
//! their parts: the encryption inside is the same, its hashes around it are not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use libcrux_ml_kem::{kyber1024, mlkem768, mlkem1024};
use ml_kem::{B32, Decapsulate, DecapsulationKey768, DecapsulationKey1024, KeyExport};
use proptest::array::uniform32;
use proptest::prelude::*;

/// d ‖ z of a key generation.
fn seed((d, z): ([u8; 32], [u8; 32])) -> [u8; 64] {
    [d, z].concat().try_into().unwrap()
}

/// One parameter set: keys and ciphertexts of `ml-kem`, of libcrux as it chooses its code on this
/// machine, and of its portable code; decapsulated in turn, also when the ciphertext was changed.
macro_rules! agree {
    ($name:ident, $libcrux:ident, $theirs:ident) => {
        fn $name(seed: [u8; 64], m: [u8; 32], place: usize, bit: u8) {
            let theirs = $theirs::from_seed(seed.into());
            let pair = $libcrux::generate_key_pair(seed);
            let portable = $libcrux::portable::generate_key_pair(seed);
            assert_eq!(pair.pk(), portable.pk());
            assert_eq!(pair.sk(), portable.sk());
            assert_eq!(pair.pk()[..], theirs.encapsulation_key().to_bytes()[..]);

            let (sent, secret) =
                theirs.encapsulation_key().encapsulate_deterministic(&B32::from(m));
            let (ciphertext, ours) = $libcrux::encapsulate(pair.public_key(), m);
            let (again, ours_again) = $libcrux::portable::encapsulate(pair.public_key(), m);
            assert_eq!((ciphertext.as_slice(), ours), (again.as_slice(), ours_again));
            assert_eq!((&ciphertext.as_slice()[..], &ours[..]), (&sent[..], &secret[..]));

            let mut changed = *ciphertext.as_slice();
            let place = place % changed.len();
            changed[place] ^= 1 << (bit % 8);
            for (ciphertext, expected) in [(*ciphertext.as_slice(), Some(ours)), (changed, None)] {
                let theirs = theirs.decapsulate(&ciphertext.into());
                let received = ciphertext.into();
                let ours = $libcrux::decapsulate(pair.private_key(), &received);
                let portable = $libcrux::portable::decapsulate(pair.private_key(), &received);
                assert_eq!((&ours[..], ours), (&theirs[..], portable));
                assert_eq!(expected.is_none_or(|expected| expected == ours), true);
            }
        }
    };
}

agree!(agree_768, mlkem768, DecapsulationKey768);
agree!(agree_1024, mlkem1024, DecapsulationKey1024);

fn sha3_256(data: &[u8]) -> [u8; 32] {
    libcrux_sha3::sha256(data)
}

fn shake256(parts: &[&[u8]]) -> [u8; 32] {
    libcrux_sha3::shake256(&parts.concat())
}

/// Kyber: the coins and the ciphertext are ML-KEM's for m = SHA3-256(random) under the same key; the secret is
/// hashed once more, with the ciphertext (round-3 specification, algorithms 8 and 9).
fn kyber_1024(seed: [u8; 64], random: [u8; 32]) {
    let pair = kyber1024::generate_key_pair(seed);
    let portable = mlkem1024::portable::kyber_generate_key_pair(seed);
    assert_eq!((pair.pk(), pair.sk()), (portable.pk(), portable.sk()));
    let key = ml_kem::EncapsulationKey1024::new(&(*pair.pk()).into()).unwrap();
    let (sent, secret) = key.encapsulate_deterministic(&B32::from(sha3_256(&random)));

    let (ciphertext, ours) = kyber1024::encapsulate(pair.public_key(), random);
    let (again, ours_again) = mlkem1024::portable::kyber_encapsulate(pair.public_key(), random);
    assert_eq!((ciphertext.as_slice(), ours), (again.as_slice(), ours_again));
    assert_eq!(ciphertext.as_slice()[..], sent[..]);
    let hash = sha3_256(&sent);
    assert_eq!(ours, shake256(&[&secret, &hash]));

    // The stored key has one layout in both schemes, so that theirs decapsulates under ours.
    let stored = (*pair.sk()).into();
    #[allow(deprecated, reason = "the expanded form is what is stored (W§2.4)")]
    let theirs = ml_kem::DecapsulationKey1024::from_expanded(&stored).unwrap();
    assert_eq!(theirs.decapsulate(&sent), secret);
    assert_eq!(kyber1024::decapsulate(pair.private_key(), &ciphertext), ours);
    assert_eq!(mlkem1024::portable::kyber_decapsulate(pair.private_key(), &ciphertext), ours);

    // What was not made for the key gives a secret of z and the ciphertext that nobody else can know, so it
    // does not matter that libcrux hashes once more than the specification: SHAKE256(z ‖ SHA3-256(c)) there.
    let mut changed = *ciphertext.as_slice();
    changed[7] ^= 1;
    let rejected = shake256(&[&shake256(&[&seed[32..], &changed]), &sha3_256(&changed)]);
    assert_eq!(kyber1024::decapsulate(pair.private_key(), &changed.into()), rejected);
    assert_eq!(
        mlkem1024::portable::kyber_decapsulate(pair.private_key(), &changed.into()),
        rejected
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ml_kem_768_is_the_same_everywhere(
        d in uniform32(any::<u8>()), z in uniform32(any::<u8>()), m in uniform32(any::<u8>()),
        place: usize, bit: u8,
    ) {
        agree_768(seed((d, z)), m, place, bit);
    }

    #[test]
    fn ml_kem_1024_is_the_same_everywhere(
        d in uniform32(any::<u8>()), z in uniform32(any::<u8>()), m in uniform32(any::<u8>()),
        place: usize, bit: u8,
    ) {
        agree_1024(seed((d, z)), m, place, bit);
    }

    #[test]
    fn kyber_1024_is_ml_kem_inside_and_its_own_outside(
        d in uniform32(any::<u8>()), z in uniform32(any::<u8>()), m in uniform32(any::<u8>()),
    ) {
        kyber_1024(seed((d, z)), m);
    }
}
