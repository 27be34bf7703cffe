//! W§18.1, sending: a file is padded and encrypted piece by piece.

use super::{AttachmentError, AttachmentKeys, ChunkSize, IV, IncrementalMac, IncrementalMacs, MAC};
use crate::crypto::cbc_stream::CbcEncryptor;
use crate::crypto::cipher::cbc_len;
use crate::crypto::hash::RunningSha256;
use alloc::vec::Vec;
use rand_core::CryptoRng;

/// Files up to this size look alike.
const SMALLEST: u64 = 541;
/// Zeros that are encrypted at once.
const ZEROS: usize = 16 * 1024;

/// What a file of `size` bytes is filled up to with zeros: the power of 1.05 that is not below it,
/// without its fraction, and at least 541. Lengths then tell a file's size within five percent.
fn padded_len(size: u64) -> u64 {
    // 64 bits behind the point; below 2^40 no power comes near enough to a whole number to be missed.
    let mut power: u128 = 1 << 64;
    while ((power >> 64) as u64) < size {
        power = power * 21 / 20;
    }
    ((power >> 64) as u64).max(SMALLEST)
}

/// Bytes of the encrypted form of a file of `size` bytes: what a relay is asked room for.
///
/// # Errors
/// [`AttachmentError::TooLarge`] when that does not fit 4 GiB.
pub fn encrypted_attachment_len(size: u64) -> Result<u64, AttachmentError> {
    let too_large = AttachmentError::TooLarge { size };
    let padded = u32::try_from(size).map(|size| padded_len(size.into())).map_err(|_| too_large)?;
    let padded = usize::try_from(padded).map_err(|_| too_large)?;
    let len = (IV + MAC) as u64 + cbc_len(padded) as u64;
    u32::try_from(len).map(u64::from).map_err(|_| too_large)
}

/// Encrypts a file piece by piece.
///
/// Give it the file with [`AttachmentEncryptor::update`], then call [`AttachmentEncryptor::finish`]
/// until it is done; pass on what is appended each time. It keeps less than a block of the file, and
/// 32 bytes for each chunk.
pub struct AttachmentEncryptor {
    cbc: CbcEncryptor,
    /// Over IV and ciphertext; before the end it is the MAC too.
    incremental: IncrementalMac,
    digest: RunningSha256,
    chunk: ChunkSize,
    /// Until it was written.
    iv: Option<[u8; IV]>,
    size: u64,
    /// Bytes of the file that are still to come, and zeros behind it.
    missing: u64,
    zeros: u64,
}

/// How far [`AttachmentEncryptor::finish`] came.
#[must_use]
#[allow(clippy::large_enum_variant, reason = "one lives at a time, and is taken apart at once")]
pub enum Sealing {
    /// There is more padding: pass on what was appended and call [`AttachmentEncryptor::finish`] again.
    More(AttachmentEncryptor),
    /// That was all.
    Done(Sealed),
}

/// What has to be told of an encrypted file, besides its keys and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// SHA-256 of the encrypted file.
    pub digest: [u8; 32],
    /// Bytes of the file.
    pub size: u64,
    /// The values by which parts of it can be checked.
    pub incremental: IncrementalMacs,
}

impl AttachmentEncryptor {
    /// Begins a file of `size` bytes with keys that were used for no other. Draws 16 bytes.
    ///
    /// # Errors
    /// [`AttachmentError::TooLarge`].
    pub fn new(
        keys: &AttachmentKeys,
        size: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, AttachmentError> {
        let mut iv = [0; IV];
        rng.fill_bytes(&mut iv);
        Self::with_iv(keys, size, iv)
    }

    /// [`AttachmentEncryptor::new`] with the IV given by the caller: to make the same bytes of the same
    /// file again, for an upload that was interrupted, and for tests. Another file needs other keys.
    ///
    /// # Errors
    /// [`AttachmentError::TooLarge`].
    pub fn with_iv(
        keys: &AttachmentKeys,
        size: u64,
        iv: [u8; IV],
    ) -> Result<Self, AttachmentError> {
        let too_large = AttachmentError::TooLarge { size };
        let len = u32::try_from(encrypted_attachment_len(size)?).map_err(|_| too_large)?;
        let chunk = ChunkSize::for_len(len);
        let (cipher, mac) = keys.split();
        Ok(Self {
            cbc: CbcEncryptor::new(cipher.as_bytes(), &iv),
            incremental: IncrementalMac::new(mac.as_bytes(), chunk),
            digest: RunningSha256::default(),
            chunk,
            iv: Some(iv),
            size,
            missing: size,
            zeros: padded_len(size) - size,
        })
    }

    /// Takes the next bytes of the file, in pieces of any length, and appends what of the encrypted
    /// form is ready.
    ///
    /// # Errors
    /// [`AttachmentError::SizeChanged`] when the file is longer than stated; nothing is appended.
    pub fn update(&mut self, file: &[u8], out: &mut Vec<u8>) -> Result<(), AttachmentError> {
        let stated = self.size;
        let rest = self.missing.checked_sub(file.len() as u64);
        self.missing = rest.ok_or(AttachmentError::SizeChanged { stated })?;
        self.encrypt(file, out);
        Ok(())
    }

    /// Ends the file: appends a part of its padding, at most 16 KiB, or the end.
    ///
    /// # Errors
    /// [`AttachmentError::SizeChanged`] when the file was shorter than stated.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Sealing, AttachmentError> {
        if self.missing > 0 {
            return Err(AttachmentError::SizeChanged { stated: self.size });
        }
        if let Ok(zeros @ 1..) = usize::try_from(self.zeros.min(ZEROS as u64)) {
            self.zeros -= zeros as u64;
            self.encrypt(&alloc::vec![0; zeros], out);
            return Ok(Sealing::More(self));
        }
        let start = out.len();
        self.cbc.finish(out);
        let (_, end) = out.split_at(start);
        self.incremental.update(end);
        self.digest.update(end);
        let mac = self.incremental.so_far();
        self.incremental.update(&mac);
        self.digest.update(&mac);
        out.extend_from_slice(&mac);
        Ok(Sealing::Done(Sealed {
            digest: self.digest.finish(),
            size: self.size,
            incremental: IncrementalMacs {
                chunk: self.chunk,
                values: self.incremental.finish().into(),
            },
        }))
    }

    fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend(self.iv.take().into_iter().flatten());
        self.cbc.update(plaintext, out);
        let (_, new) = out.split_at(start);
        self.incremental.update(new);
        self.digest.update(new);
    }
}
