//! W§14.3 for whoever gets many messages: a sender certificate comes with each of them and lives for
//! days, so that checking its two signatures once is enough.

use super::certificate::{CertificateError, SenderCertificate, ServerCertificate};
use super::remembered::Remembered;
use crate::address::Timestamp;
use crate::crypto::hash::sha256;
use crate::crypto::{PublicKey, VerificationKey};
use alloc::{boxed::Box, vec::Vec};

/// Servers that are remembered. There are a handful, whatever the number of senders.
const SIGNERS: usize = 16;

/// Checks sender certificates and remembers those that held, by the hash of all their bytes.
///
/// What it remembers was checked under its trust roots, which cannot be changed: make a new one when
/// they do. That a certificate has not ended is asked every time; one that did not hold is not
/// remembered.
pub struct CertificateChecker {
    trust_roots: Vec<PublicKey>,
    known_signers: Vec<ServerCertificate>,
    senders: Remembered<()>,
    signers: Remembered<Box<VerificationKey>>,
}

impl CertificateChecker {
    /// `known_signers` are the server certificates that senders may name by id, usually none.
    /// `capacity` is how many sender certificates are remembered, rounded up to an even number, at
    /// about 50 bytes each; those not met for longest are forgotten first.
    pub fn new(
        trust_roots: Vec<PublicKey>,
        known_signers: Vec<ServerCertificate>,
        capacity: usize,
    ) -> Self {
        let (senders, signers) = (Remembered::new(capacity), Remembered::new(SIGNERS));
        Self { trust_roots, known_signers, senders, signers }
    }

    /// Whether the certificate holds at `now`: [`SenderCertificate::validate`], but for certificates
    /// that held before without looking at a signature.
    ///
    /// # Errors
    /// [`CertificateError`], the same as from [`SenderCertificate::validate`].
    pub fn check(
        &mut self,
        certificate: &SenderCertificate,
        now: Timestamp,
    ) -> Result<(), CertificateError> {
        let hash = sha256(certificate.encode());
        if self.senders.get(&hash).is_none() {
            self.check_signatures(certificate)?;
            self.senders.insert(hash, ());
        }
        certificate.check_time(now)
    }

    fn check_signatures(
        &mut self,
        certificate: &SenderCertificate,
    ) -> Result<(), CertificateError> {
        let signer = certificate.signer(&self.known_signers)?;
        let hash = sha256(signer.encode());
        if let Some(key) = self.signers.get(&hash) {
            return certificate.check_signature(key);
        }
        signer.validate(&self.trust_roots)?;
        let mut key = VerificationKey::new(*signer.key());
        let result = certificate.check_signature(&mut key);
        self.signers.insert(hash, Box::new(key));
        result
    }

    /// How many sender certificates are remembered.
    pub fn remembered(&self) -> usize {
        self.senders.len()
    }
}

impl core::fmt::Debug for CertificateChecker {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CertificateChecker")
            .field("remembered", &self.remembered())
            .finish_non_exhaustive()
    }
}
