//! AES-256 in the modes of the wire: CBC for message bodies (W§8.5), CTR for sealed sender version 1
//! (W§13), GCM-SIV for version 2 (W§15). The first two do not authenticate: the callers check their
//! MAC or signature first.

use super::secret::Secret;
use aes::Aes256;
use aes_gcm_siv::{Aes256GcmSiv, KeyInit, aead::AeadInOut};
use alloc::vec::Vec;
use cbc::cipher::{
    BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, StreamCipher, block_padding::Pkcs7,
};

pub(crate) const BLOCK: usize = 16;

/// Bytes of the ciphertext of `plaintext` bytes: always at least one of padding.
pub(crate) fn cbc_len(plaintext: usize) -> usize {
    (plaintext / BLOCK + 1) * BLOCK
}

/// Appends AES-256-CBC of the plaintext with PKCS#7 padding: [`cbc_len`] bytes.
#[allow(clippy::expect_used, reason = "the buffer was made large enough two lines above")]
pub(crate) fn cbc_append(out: &mut Vec<u8>, key: &Secret<32>, iv: &Secret<16>, plaintext: &[u8]) {
    let start = out.len();
    out.extend_from_slice(plaintext);
    out.resize(start + cbc_len(plaintext.len()), 0);
    let (_, body) = out.split_at_mut(start);
    cbc::Encryptor::<Aes256>::new(key.as_bytes().into(), iv.as_bytes().into())
        .encrypt_padded::<Pkcs7>(body, plaintext.len())
        .expect("the buffer has room for the padding");
}

/// The plaintext, or `None` when the length or the padding is wrong.
pub(crate) fn cbc_open(key: &Secret<32>, iv: &Secret<16>, body: &[u8]) -> Option<Vec<u8>> {
    if body.is_empty() {
        return None;
    }
    cbc::Decryptor::<Aes256>::new(key.as_bytes().into(), iv.as_bytes().into())
        .decrypt_padded_vec::<Pkcs7>(body)
        .ok()
}

/// AES-256-CTR from an all-zero counter block, in place. The counter is 32 bits, big-endian.
pub(crate) fn ctr_apply(key: &Secret<32>, data: &mut [u8]) {
    ctr::Ctr32BE::<Aes256>::new(key.as_bytes().into(), &[0; BLOCK].into()).apply_keystream(data);
}

/// Bytes of a GCM-SIV tag.
pub(crate) const SIV_TAG: usize = 16;

/// AES-256-GCM-SIV in place, the nonce all zero: a key for one message. Gives the tag.
#[allow(clippy::expect_used, reason = "no buffer in memory is 2^36 bytes long")]
pub(crate) fn siv_seal(key: &Secret<32>, data: &mut [u8]) -> [u8; SIV_TAG] {
    Aes256GcmSiv::new(key.as_bytes().into())
        .encrypt_inout_detached(&[0; 12].into(), &[], data.into())
        .expect("no buffer in memory is 2^36 bytes long")
        .into()
}

/// Opens what [`siv_seal`] sealed, in place. `false`: the tag does not fit, and the data is of no use.
pub(crate) fn siv_open(key: &Secret<32>, data: &mut [u8], tag: &[u8; SIV_TAG]) -> bool {
    Aes256GcmSiv::new(key.as_bytes().into())
        .decrypt_inout_detached(&[0; 12].into(), &[], data.into(), tag.into())
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cbc_round_trip_at_every_length_round_a_block() {
        let (key, iv) = (Secret::new([1; 32]), Secret::new([2; 16]));
        for len in 0..40 {
            let plaintext: Vec<u8> = (0..len).collect();
            let mut body = alloc::vec![9];
            cbc_append(&mut body, &key, &iv, &plaintext);
            assert_eq!(body.len(), 1 + cbc_len(plaintext.len()));
            assert_eq!(cbc_open(&key, &iv, &body[1..]).unwrap(), plaintext);
        }
    }

    #[test]
    fn cbc_refuses_empty_ragged_and_badly_padded_bodies() {
        let (key, iv) = (Secret::new([1; 32]), Secret::new([2; 16]));
        assert!(cbc_open(&key, &iv, &[]).is_none());
        assert!(cbc_open(&key, &iv, &[0; 15]).is_none());
        assert!(cbc_open(&key, &iv, &[0; 16]).is_none());
    }
}
