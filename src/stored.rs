//! How stored forms are written and read: big-endian, in order, nothing between. What they hold
//! stands beside each of them.

use crate::crypto::secret::Secret;
use crate::crypto::{PrivateKey, PublicKey};
use alloc::vec::Vec;
use zeroize::Zeroizing;

/// Writes into a buffer whose final size is known, so that no copy of a secret stays behind.
pub(crate) struct Writer(pub(crate) Zeroizing<Vec<u8>>);

impl Writer {
    pub(crate) fn with_capacity(len: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(len)))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        debug_assert!(self.0.len() + bytes.len() <= self.0.capacity());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, number: u8) {
        self.bytes(&[number]);
    }

    pub(crate) fn u16(&mut self, number: u16) {
        self.bytes(&number.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, number: u32) {
        self.bytes(&number.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }
}

/// Reads from the front; `None` when too little is left.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn secret<const N: usize>(&mut self) -> Option<Secret<N>> {
        self.array().map(Secret::new)
    }

    pub(crate) fn public_key(&mut self) -> Option<PublicKey> {
        self.array().map(PublicKey::from_u)
    }

    /// A private key, which is written clamped (W§2.2).
    pub(crate) fn private_key(&mut self) -> Option<PrivateKey> {
        match self.bytes(32)? {
            bytes @ [first, .., last] if first & 7 == 0 && last >> 6 == 1 => {
                PrivateKey::from_bytes(bytes).ok()
            }
            _ => None,
        }
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}
