//! AES-256-CBC piece by piece, for files larger than memory (W§18.1). `cipher.rs` does messages.
//! Neither authenticates: the callers check their MACs first.

use super::cipher::BLOCK;
use aes::Aes256;
use alloc::vec::Vec;
use cbc::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};

/// Appends ciphertext as far as whole blocks are there.
pub(crate) struct CbcEncryptor {
    cbc: cbc::Encryptor<Aes256>,
    /// Less than a block, not yet encrypted.
    rest: Vec<u8>,
}

impl CbcEncryptor {
    pub(crate) fn new(key: &[u8; 32], iv: &[u8; BLOCK]) -> Self {
        let cbc = cbc::Encryptor::new(key.into(), iv.into());
        Self { cbc, rest: Vec::with_capacity(BLOCK) }
    }

    /// Appends the ciphertext of all blocks that are complete with this piece.
    pub(crate) fn update(&mut self, mut plaintext: &[u8], out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            let (head, tail) = plaintext.split_at(plaintext.len().min(BLOCK - self.rest.len()));
            self.rest.extend_from_slice(head);
            plaintext = tail;
            if self.rest.len() < BLOCK {
                return;
            }
            self.append(&self.rest.clone(), out);
            self.rest.clear();
        }
        let (blocks, rest) = plaintext.split_at(plaintext.len() / BLOCK * BLOCK);
        self.append(blocks, out);
        self.rest.extend_from_slice(rest);
    }

    /// Appends the last block, which ends with its padding (PKCS#7).
    pub(crate) fn finish(mut self, out: &mut Vec<u8>) {
        let missing = BLOCK - self.rest.len();
        self.rest.resize(BLOCK, missing as u8);
        self.append(&self.rest.clone(), out);
    }

    fn append(&mut self, blocks: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(blocks);
        let (_, new) = out.split_at_mut(start);
        self.cbc.encrypt_blocks(Array::slice_as_chunks_mut(new).0);
    }
}

/// Decrypts whole blocks in place; what they end with is the caller's concern.
pub(crate) struct CbcDecryptor(cbc::Decryptor<Aes256>);

impl CbcDecryptor {
    pub(crate) fn new(key: &[u8; 32], iv: &[u8; BLOCK]) -> Self {
        Self(cbc::Decryptor::new(key.into(), iv.into()))
    }

    /// Bytes after the last whole block stay as they are.
    pub(crate) fn decrypt(&mut self, blocks: &mut [u8]) {
        self.0.decrypt_blocks(Array::slice_as_chunks_mut(blocks).0);
    }
}
