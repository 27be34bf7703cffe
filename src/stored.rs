//! How stored forms are written and read: big-endian, in order, nothing between. What they hold
//! stands beside each of them.

use crate::crypto::secret::{Secret, SecretBytes};
use crate::crypto::{PrivateKey, PublicKey};
use alloc::vec::Vec;

/// Writes into a buffer that is large enough from the beginning, so that no copy of a secret stays
/// behind.
pub(crate) struct Writer(pub(crate) SecretBytes);

impl Writer {
    #[inline]
    pub(crate) fn with_capacity(len: usize) -> Self {
        Self(SecretBytes::with_capacity(len))
    }

    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// A part behind its own length of four bytes.
    #[inline]
    pub(crate) fn sized(&mut self, write: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.u32(0);
        write(self);
        let (_, part) = self.0.as_mut_bytes().split_at_mut(at);
        if let Some((len, part)) = part.split_first_chunk_mut::<4>() {
            *len = (part.len() as u32).to_be_bytes();
        }
    }

    /// Whether it is there, and if so the thing.
    #[inline]
    pub(crate) fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.u8(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }

    #[inline]
    pub(crate) fn u8(&mut self, number: u8) {
        self.bytes(&[number]);
    }

    #[inline]
    pub(crate) fn u16(&mut self, number: u16) {
        self.bytes(&number.to_be_bytes());
    }

    #[inline]
    pub(crate) fn u32(&mut self, number: u32) {
        self.bytes(&number.to_be_bytes());
    }

    #[inline]
    pub(crate) fn u64(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }
}

/// Reads from the front; `None` when too little is left or a value cannot be.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(head)
    }

    #[inline]
    pub(crate) fn secret<const N: usize>(&mut self) -> Option<Secret<N>> {
        let bytes = self.array()?;
        Some(Secret::new(*bytes))
    }

    /// What [`Writer::option`] wrote.
    #[inline]
    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn public_key(&mut self) -> Option<PublicKey> {
        let u = self.array()?;
        Some(PublicKey::from_u(*u))
    }

    /// So many of a kind, one after the other, each of at least so many bytes.
    #[inline]
    pub(crate) fn repeated<T>(
        &mut self,
        count: usize,
        least: usize,
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        if count > self.0.len() / least {
            return None;
        }
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(read(self)?);
        }
        Some(all)
    }

    /// The bytes of a private key, which is written clamped (W§2.2).
    #[inline]
    pub(crate) fn clamped(&mut self) -> Option<&'a [u8; 32]> {
        self.array().filter(|[first, .., last]: &&[u8; 32]| first & 7 == 0 && last >> 6 == 1)
    }

    #[inline]
    pub(crate) fn private_key(&mut self) -> Option<PrivateKey> {
        let bytes = self.clamped()?;
        Some(PrivateKey::clamp(Secret::new(*bytes)))
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| *byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }
}
