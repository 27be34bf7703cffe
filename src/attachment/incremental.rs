//! W§18.1. The incremental MAC, by which an attachment is checked while it arrives, chunk by chunk.
//! It runs over encrypted bytes.

use crate::crypto::kdf::HmacSha256;
use alloc::vec::{self, Vec};
use bytes::Bytes;
use core::num::NonZeroU32;
use subtle::ConstantTimeEq;

/// Bytes of one value in the list.
const MAC: usize = 32;

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

/// An incremental MAC does not fit the data, or is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IncrementalMacError {
    /// A chunk of no bytes.
    #[error("a chunk has at least one byte")]
    ChunkSize,
    /// The list is not made of whole values.
    #[error("a list of {found} bytes, not a multiple of {MAC}")]
    ListLength {
        /// Bytes in the list.
        found: usize,
    },
    /// The data was changed, cut or lengthened, or the list belongs to other data. Nothing more is
    /// released: throw away what is not.
    #[error("the data is not what the list of values was made for")]
    Mismatch,
}

/// Bytes of a chunk, at least 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkSize(NonZeroU32);

impl ChunkSize {
    /// A size that the sender stated. A verifier holds back up to so many bytes.
    ///
    /// # Errors
    /// [`IncrementalMacError::ChunkSize`] for 0.
    pub fn new(bytes: u32) -> Result<Self, IncrementalMacError> {
        NonZeroU32::new(bytes).map(Self).ok_or(IncrementalMacError::ChunkSize)
    }

    /// The size that the convention has for data of `len` bytes: 64 KiB up to 16 MiB, 2 MiB from
    /// 512 MiB on, and a 256th of the data between them.
    pub fn for_len(len: u32) -> Self {
        let bytes = len.div_ceil(256).clamp(64 * KIB, 2 * MIB);
        Self(NonZeroU32::MIN.saturating_add(bytes - 1))
    }

    /// The number of bytes.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    fn as_usize(self) -> usize {
        usize::try_from(self.get()).unwrap_or(usize::MAX)
    }
}

/// The incremental values of some data, as its sender states them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IncrementalMacs {
    /// Bytes of the data that one value covers.
    pub chunk: ChunkSize,
    /// The values, 32 bytes each, as [`IncrementalMac::finish`] gave them.
    pub values: Bytes,
}

/// The running MAC, and how much of the current chunk it has seen.
struct Running {
    mac: HmacSha256,
    chunk: usize,
    seen: usize,
}

impl Running {
    fn new(key: &[u8], chunk: ChunkSize) -> Self {
        Self { mac: HmacSha256::new(key), chunk: chunk.as_usize(), seen: 0 }
    }

    /// Takes what is left of the current chunk off the front of `data`, and gives it with the
    /// chunk's value when it is complete.
    fn take<'a>(&mut self, data: &mut &'a [u8]) -> (&'a [u8], Option<[u8; MAC]>) {
        let (piece, rest) = data.split_at(data.len().min(self.chunk - self.seen));
        *data = rest;
        self.mac.update(piece);
        self.seen += piece.len();
        if self.seen < self.chunk {
            return (piece, None);
        }
        self.seen = 0;
        (piece, Some(self.mac.clone().finish()))
    }
}

/// Makes the list of values: one of the data up to each chunk's end, and one of all of it.
pub struct IncrementalMac {
    running: Running,
    list: Vec<u8>,
}

impl IncrementalMac {
    /// Starts with the attachment's MAC key, of any length.
    pub fn new(key: &[u8], chunk: ChunkSize) -> Self {
        Self { running: Running::new(key, chunk), list: Vec::new() }
    }

    /// Takes the next bytes, in pieces of any length.
    pub fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if let (_, Some(value)) = self.running.take(&mut data) {
                self.list.extend_from_slice(&value);
            }
        }
    }

    /// The values of the chunks that are complete.
    pub(super) fn values(&self) -> &[[u8; MAC]] {
        self.list.as_chunks().0
    }

    /// The MAC of all the data so far.
    pub(super) fn so_far(&self) -> [u8; MAC] {
        self.running.mac.clone().finish()
    }

    /// The list: 32 bytes for each whole chunk and 32 for all the data, even if that is the same.
    pub fn finish(mut self) -> Vec<u8> {
        self.list.extend_from_slice(&self.running.mac.finish());
        self.list
    }
}

/// Checks data against a list of values and lets nothing out before its value matched.
pub struct IncrementalVerifier {
    running: Running,
    /// The values still to come. Emptied by an error, so that nothing matches any more.
    values: vec::IntoIter<[u8; MAC]>,
    held: Vec<u8>,
}

impl IncrementalVerifier {
    /// Starts with the attachment's MAC key, of any length, and the list that came with it.
    ///
    /// # Errors
    /// [`IncrementalMacError::ListLength`] when the list is not made of whole values.
    pub fn new(key: &[u8], chunk: ChunkSize, list: &[u8]) -> Result<Self, IncrementalMacError> {
        let (values, []) = list.as_chunks::<MAC>() else {
            return Err(IncrementalMacError::ListLength { found: list.len() });
        };
        let values = values.to_vec();
        Ok(Self { running: Running::new(key, chunk), values: values.into_iter(), held: Vec::new() })
    }

    /// Takes the next bytes, in pieces of any length, and appends to `released` those of the chunks
    /// that are complete and match.
    ///
    /// # Errors
    /// [`IncrementalMacError::Mismatch`]. What was appended to `released` until then did match.
    pub fn update(
        &mut self,
        mut data: &[u8],
        released: &mut Vec<u8>,
    ) -> Result<(), IncrementalMacError> {
        while !data.is_empty() {
            let (piece, value) = self.running.take(&mut data);
            self.held.extend_from_slice(piece);
            if let Some(value) = value {
                self.check(value)?;
                released.append(&mut self.held);
            }
        }
        Ok(())
    }

    /// Ends the data and appends the rest of it, less than a chunk, to `released`.
    ///
    /// # Errors
    /// [`IncrementalMacError::Mismatch`] when the last value does not match or others are left.
    pub fn finish(mut self, released: &mut Vec<u8>) -> Result<(), IncrementalMacError> {
        let value = self.running.mac.clone().finish();
        self.check(value)?;
        if self.values.next().is_some() {
            return Err(IncrementalMacError::Mismatch);
        }
        released.append(&mut self.held);
        Ok(())
    }

    fn check(&mut self, value: [u8; MAC]) -> Result<(), IncrementalMacError> {
        match self.values.next() {
            Some(expected) if expected.ct_eq(&value).into() => Ok(()),
            _ => {
                self.values = Vec::new().into_iter();
                self.held = Vec::new();
                Err(IncrementalMacError::Mismatch)
            }
        }
    }
}

impl core::fmt::Debug for IncrementalMac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("IncrementalMac")
    }
}

impl core::fmt::Debug for IncrementalVerifier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("IncrementalVerifier")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [3; 32];

    fn list_of(data: &[u8], chunk: u32) -> Vec<u8> {
        let mut mac = IncrementalMac::new(&KEY, ChunkSize::new(chunk).unwrap());
        mac.update(data);
        mac.finish()
    }

    /// What comes out, piece by piece, and how it ends.
    fn verify(
        data: &[u8],
        chunk: u32,
        list: &[u8],
        piece: usize,
    ) -> (Vec<u8>, Result<(), IncrementalMacError>) {
        let chunk = ChunkSize::new(chunk).unwrap();
        let mut verifier = IncrementalVerifier::new(&KEY, chunk, list).unwrap();
        let mut out = Vec::new();
        for piece in data.chunks(piece) {
            if let Err(error) = verifier.update(piece, &mut out) {
                // From here on nothing more comes out, whatever is fed.
                let before = out.len();
                verifier.update(data, &mut out).unwrap_err();
                verifier.finish(&mut out).unwrap_err();
                assert_eq!(out.len(), before);
                return (out, Err(error));
            }
        }
        let end = verifier.finish(&mut out);
        (out, end)
    }

    #[test]
    fn honest_data_comes_out_whole_in_pieces_of_any_length() {
        let data: Vec<u8> = (0..50).collect();
        for len in [0, 1, 6, 7, 8, 14, 50] {
            let list = list_of(&data[..len], 7);
            assert_eq!(list.len(), MAC * (len / 7 + 1));
            for piece in [1, 3, 7, 20, 50] {
                assert_eq!(verify(&data[..len], 7, &list, piece), (data[..len].to_vec(), Ok(())));
            }
        }
    }

    #[test]
    fn no_byte_of_a_changed_chunk_or_behind_it_comes_out() {
        let data: Vec<u8> = (0..30).collect();
        let list = list_of(&data, 8);
        for place in 0..data.len() {
            let mut changed = data.clone();
            changed[place] ^= 1;
            let (out, end) = verify(&changed, 8, &list, 30);
            assert_eq!((out.len(), end), (place / 8 * 8, Err(IncrementalMacError::Mismatch)));
        }
    }

    #[test]
    fn a_missing_or_surplus_value_is_found_and_the_rest_stays_back() {
        let data: Vec<u8> = (0..30).collect();
        let mut list = list_of(&data, 8);
        let mismatch = Err(IncrementalMacError::Mismatch);
        assert_eq!(verify(&data, 8, &list[..MAC * 3], 5), (data[..24].to_vec(), mismatch));
        assert_eq!(verify(&data, 8, &list[..MAC], 5), (data[..8].to_vec(), mismatch));
        list.extend_from_slice(&[0; MAC]);
        assert_eq!(verify(&data, 8, &list, 5), (data[..24].to_vec(), mismatch));
    }

    #[test]
    fn a_ragged_list_and_an_empty_chunk_are_refused_at_once() {
        let chunk = ChunkSize::new(1).unwrap();
        assert_eq!(
            IncrementalVerifier::new(&KEY, chunk, &[0; 33]).unwrap_err(),
            IncrementalMacError::ListLength { found: 33 }
        );
        assert_eq!(ChunkSize::new(0), Err(IncrementalMacError::ChunkSize));
    }

    #[test]
    fn the_chunk_follows_the_size_of_the_data() {
        let cases = [
            (0, 65_536),
            (16 * MIB - 1, 65_536),
            (16 * MIB, 65_536),
            (16 * MIB + 1, 65_537),
            (512 * MIB - 1, 2 * MIB),
            (512 * MIB, 2 * MIB),
            (u32::MAX, 2 * MIB),
        ];
        for (len, chunk) in cases {
            assert_eq!(ChunkSize::for_len(len).get(), chunk, "{len}");
        }
    }
}
