//! S§6. The authenticator: MACs over what the braid exchanges, keyed by every secret so far; and the
//! secret of an epoch. What to do when a MAC is wrong is the braid's concern.

use super::SpqrError;
use crate::crypto::kdf::{HmacSha256, hkdf};
use crate::crypto::secret::{Secret, SecretBytes};
use alloc::vec::Vec;
use subtle::ConstantTimeEq;

const UPDATE: &[u8] = b"Signal_PQCKA_V1_MLKEM768:Authenticator Update";
const HEADER: &[u8] = b"Signal_PQCKA_V1_MLKEM768:ekheader";
const CIPHERTEXT: &[u8] = b"Signal_PQCKA_V1_MLKEM768:ciphertext";
const EPOCH_KEY: &[u8] = b"Signal_PQCKA_V1_MLKEM768:SCKA Key";

/// Root and MAC key.
#[derive(Clone)]
pub(super) struct Authenticator {
    pub(super) root: Secret<32>,
    pub(super) mac_key: Secret<32>,
}

/// What an epoch adds to the key chain.
pub(super) struct EpochSecret {
    pub(super) epoch: u64,
    pub(super) secret: Secret<32>,
}

impl EpochSecret {
    /// `epoch_key` (S§6.4), from the KEM's shared secret.
    pub(super) fn derive(epoch: u64, ss: &Secret<32>) -> Self {
        Self { epoch, secret: hkdf(None, ss.as_bytes(), &labelled(EPOCH_KEY, epoch)) }
    }
}

impl Authenticator {
    /// `auth_init` (S§6.1).
    pub(super) fn new(auth_key: &[u8]) -> Self {
        let zero = Self { root: Secret::zeroed(), mac_key: Secret::zeroed() };
        zero.updated(1, auth_key)
    }

    /// `update` (S§6.2).
    pub(super) fn updated(&self, epoch: u64, key: &[u8]) -> Self {
        let mut ikm = SecretBytes::with_capacity(32 + key.len());
        ikm.extend(self.root.as_bytes());
        ikm.extend(key);
        let okm: Secret<64> = hkdf(None, &ikm, &labelled(UPDATE, epoch));
        let (root, mac_key) = okm.split();
        Self { root, mac_key }
    }

    pub(super) fn header_mac(&self, epoch: u64, header: &[u8; 64]) -> [u8; 32] {
        self.mac(HEADER, epoch).chain(header).finish()
    }

    pub(super) fn ciphertext_mac(&self, epoch: u64, ct1: &[u8], ct2: &[u8]) -> [u8; 32] {
        self.mac(CIPHERTEXT, epoch).chain(ct1).chain(ct2).finish()
    }

    fn mac(&self, label: &[u8], epoch: u64) -> HmacSha256 {
        HmacSha256::new(self.mac_key.as_bytes()).chain(label).chain(&epoch.to_be_bytes())
    }
}

/// Compares in constant time.
pub(super) fn verify(expected: &[u8; 32], found: &[u8; 32]) -> Result<(), SpqrError> {
    if expected.ct_eq(found).into() { Ok(()) } else { Err(SpqrError::MacVerify) }
}

/// Here the epoch comes after the label; in the key chain the counter comes before it.
fn labelled(label: &[u8], epoch: u64) -> Vec<u8> {
    [label, &epoch.to_be_bytes()].concat()
}
