//! W§18.1, receiving, in two passes over an encrypted file that was fetched: the first checks all of
//! it, the second decrypts. No byte of a file that was changed, cut or lengthened comes out.
//!
//! The first pass takes down values of its own for every chunk, and the second compares them: whoever
//! changes the file between the two passes gains nothing.

use super::{
    AttachmentError, AttachmentKeys, ChunkSize, IV, IncrementalMac, IncrementalMacError,
    IncrementalMacs, IncrementalVerifier, MAC, encrypted_attachment_len,
};
use crate::crypto::cbc_stream::CbcDecryptor;
use crate::crypto::cipher::{BLOCK, cbc_open};
use crate::crypto::hash::RunningSha256;
use crate::crypto::secret::Secret;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The end of the encrypted form, which is looked at apart: block before the last, last block, MAC.
const END: usize = 2 * BLOCK + MAC;
/// The sender's values are used when a chunk is small enough to be held back until it is checked, and
/// large enough for its check to cost little. The convention has 64 KiB to 2 MiB.
const CHUNKS: RangeInclusive<u32> = 4 * 1024..=2 * 1024 * 1024;
/// Room for the padding of other software, in bytes, besides as much as the file itself has.
const MAX_PADDING: u64 = 64 * 1024;

/// First pass: checks an encrypted file that arrives piece by piece. It keeps 32 bytes for each chunk,
/// and gives up a file that does not end where it must.
pub struct AttachmentVerifier {
    keys: AttachmentKeys,
    digest: [u8; 32],
    size: u64,
    /// More bytes than an honest file has.
    limit: u64,
    /// The sender's values.
    expected: Option<Expected>,
    chunk: ChunkSize,
    running: RunningSha256,
    /// All but the end, that is held back in `end`.
    incremental: IncrementalMac,
    end: Vec<u8>,
    len: u64,
}

/// The sender's list of values and how many of them were compared.
struct Expected {
    values: Vec<[u8; MAC]>,
    compared: usize,
}

impl AttachmentVerifier {
    /// Begins with what the message said. With the sender's incremental values, a damaged file is
    /// noticed at its first damaged chunk, and not only at its end.
    ///
    /// # Errors
    /// [`AttachmentError::TooLarge`] when such a file cannot be, [`AttachmentError::Damaged`] for values
    /// that are none.
    pub fn new(
        keys: &AttachmentKeys,
        digest: &[u8; 32],
        size: u64,
        incremental: Option<&IncrementalMacs>,
    ) -> Result<Self, AttachmentError> {
        let too_large = AttachmentError::TooLarge { size };
        let len = u32::try_from(encrypted_attachment_len(size)?).map_err(|_| too_large)?;
        let incremental = incremental.filter(|it| CHUNKS.contains(&it.chunk.get()));
        let expected = incremental.map(Expected::new).transpose()?;
        let chunk = incremental.map_or(ChunkSize::for_len(len), |it| it.chunk);
        let (_, mac) = keys.split();
        Ok(Self {
            keys: keys.clone(),
            digest: *digest,
            size,
            limit: 2 * u64::from(len) + MAX_PADDING,
            expected,
            chunk,
            running: RunningSha256::default(),
            incremental: IncrementalMac::new(mac.as_bytes(), chunk),
            end: Vec::with_capacity(2 * END),
            len: 0,
        })
    }

    /// Takes the next bytes, in pieces of any length.
    ///
    /// # Errors
    /// [`AttachmentError::Damaged`] when a chunk is not the sender's, or there is more than twice what can
    /// be. Then the end is an error too, whatever comes.
    pub fn update(&mut self, encrypted: &[u8]) -> Result<(), AttachmentError> {
        self.len = self.len.saturating_add(encrypted.len() as u64);
        if self.len > self.limit {
            return Err(AttachmentError::Damaged);
        }
        self.running.update(encrypted);
        if encrypted.len() >= END {
            let (body, end) = encrypted.split_at(encrypted.len() - END);
            self.incremental.update(&self.end);
            self.incremental.update(body);
            self.end.clear();
            self.end.extend_from_slice(end);
        } else {
            self.end.extend_from_slice(encrypted);
            let body = self.end.len().saturating_sub(END);
            self.incremental.update(self.end.get(..body).unwrap_or_default());
            self.end.drain(..body);
        }
        match &mut self.expected {
            Some(expected) => expected.compare(self.incremental.values()),
            None => Ok(()),
        }
    }

    /// Ends the file. What it gives decrypts the same bytes, fed to it again.
    ///
    /// # Errors
    /// [`AttachmentError::Damaged`] when MAC, digest, length, padding or a value is wrong;
    /// [`AttachmentError::TooShort`] when an authentic file has fewer bytes than its sender stated.
    pub fn finish(mut self) -> Result<AttachmentDecryptor, AttachmentError> {
        let damaged = AttachmentError::Damaged;
        let (before, rest) = self.end.split_first_chunk::<BLOCK>().ok_or(damaged)?;
        let (last, mac) = rest.split_first_chunk::<BLOCK>().ok_or(damaged)?;
        self.incremental.update(before);
        self.incremental.update(last);
        let authentic =
            self.incremental.so_far().ct_eq(mac) & self.running.finish().ct_eq(&self.digest);
        if !bool::from(authentic) || self.len > self.limit {
            return Err(damaged);
        }
        self.incremental.update(mac);
        let values = self.incremental.finish();
        if let Some(expected) = self.expected {
            expected.compare_all(&values)?;
        }
        let (cipher, mac) = self.keys.split();
        let last = cbc_open(&cipher, &Secret::new(*before), last).ok_or(damaged)?;
        let ciphertext = self.len - (IV + MAC) as u64;
        if !ciphertext.is_multiple_of(BLOCK as u64) {
            return Err(damaged);
        }
        let found = ciphertext - BLOCK as u64 + last.len() as u64;
        if found < self.size {
            return Err(AttachmentError::TooShort { stated: self.size, found });
        }
        Ok(AttachmentDecryptor {
            verifier: IncrementalVerifier::new(mac.as_bytes(), self.chunk, &values)?,
            file: File {
                cipher,
                cbc: None,
                verified: Zeroizing::new(Vec::new()),
                missing: self.size,
            },
        })
    }
}

impl Expected {
    fn new(macs: &IncrementalMacs) -> Result<Self, AttachmentError> {
        let (values, rest) = macs.values.as_chunks::<MAC>();
        if !rest.is_empty() {
            return Err(AttachmentError::Damaged);
        }
        Ok(Self { values: values.to_vec(), compared: 0 })
    }

    /// Compares the values that are new. The last one of the list is for the end of the file.
    fn compare(&mut self, values: &[[u8; MAC]]) -> Result<(), AttachmentError> {
        let new = values.get(self.compared..).unwrap_or_default();
        let ours = self.values.get(self.compared..values.len()).ok_or(AttachmentError::Damaged)?;
        self.compared = values.len();
        if ours.as_flattened().ct_eq(new.as_flattened()).into() {
            Ok(())
        } else {
            Err(AttachmentError::Damaged)
        }
    }

    fn compare_all(&self, values: &[u8]) -> Result<(), AttachmentError> {
        let equal = self.values.as_flattened().ct_eq(values);
        if equal.into() { Ok(()) } else { Err(AttachmentError::Damaged) }
    }
}

/// Second pass: decrypts the file that [`AttachmentVerifier`] has checked. It holds back a chunk at a
/// time, at most 2 MiB.
pub struct AttachmentDecryptor {
    verifier: IncrementalVerifier,
    file: File,
}

/// What was verified, on its way to what comes out.
struct File {
    cipher: Secret<32>,
    /// Begun when the IV is there.
    cbc: Option<CbcDecryptor>,
    /// Bytes whose value matched, not yet decrypted.
    verified: Zeroizing<Vec<u8>>,
    /// Bytes of the file that have not come out.
    missing: u64,
}

impl AttachmentDecryptor {
    /// Takes the same bytes again, in pieces of any length, and appends what of the file is ready.
    ///
    /// # Errors
    /// [`AttachmentError::Damaged`] when they are not the same. What was appended until then is authentic.
    pub fn update(&mut self, encrypted: &[u8], out: &mut Vec<u8>) -> Result<(), AttachmentError> {
        let result = self.verifier.update(encrypted, &mut self.file.verified);
        self.file.decrypt(out);
        Ok(result?)
    }

    /// Ends the encrypted bytes and appends the rest of the file.
    ///
    /// # Errors
    /// [`AttachmentError::Damaged`] when they end elsewhere than the first time.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<(), AttachmentError> {
        let Self { verifier, mut file } = self;
        verifier.finish(&mut file.verified)?;
        file.decrypt(out);
        if file.missing > 0 { Err(AttachmentError::Damaged) } else { Ok(()) }
    }
}

impl File {
    /// Decrypts all whole blocks and appends what belongs to the file.
    fn decrypt(&mut self, out: &mut Vec<u8>) {
        let mut taken = 0;
        let cbc = match &mut self.cbc {
            Some(cbc) => cbc,
            none => {
                let Some(iv) = self.verified.first_chunk::<IV>() else { return };
                taken = IV;
                none.insert(CbcDecryptor::new(self.cipher.as_bytes(), iv))
            }
        };
        let (_, bytes) = self.verified.split_at_mut(taken);
        let whole = bytes.len() / BLOCK * BLOCK;
        let (blocks, _) = bytes.split_at_mut(whole);
        cbc.decrypt(blocks);
        let wanted = usize::try_from(self.missing).unwrap_or(usize::MAX).min(blocks.len());
        let (file, _zeros) = blocks.split_at(wanted);
        out.extend_from_slice(file);
        self.missing -= wanted as u64;
        self.verified.drain(..taken + whole);
    }
}

impl From<IncrementalMacError> for AttachmentError {
    fn from(_: IncrementalMacError) -> Self {
        Self::Damaged
    }
}

impl core::fmt::Debug for AttachmentVerifier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("AttachmentVerifier")
    }
}

impl core::fmt::Debug for AttachmentDecryptor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("AttachmentDecryptor")
    }
}
