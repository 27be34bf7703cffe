//! What a registration has to bring beside its signature. Nothing, a proof of work, or what an embedder asks for.

use sha2::{Digest, Sha256};
use tuckseal::service::Challenge;

use super::ServiceError;

/// Before the registration in the hash that the work is done on.
const WORK_LABEL: &[u8] = b"tuckseal-registration-work-v1";
/// Length of the answer.
const WORK_LEN: usize = 8;

/// Decides which registrations are looked at. Asked before any signature is checked, so an answer should be cheap.
pub trait RegistrationGate: Send + Sync + 'static {
    /// Writes into the challenge what it asks for.
    fn ask(&self, challenge: &mut Challenge);

    /// Whether the registration, encoded as it was signed, may go on with this `SignedRegistration.work`. Its challenge has
    /// been found to be ours and not expired.
    ///
    /// # Errors
    /// [`ServiceError::NotAdmitted`] says what to do.
    fn admit(&self, registration: &[u8], work: &[u8]) -> Result<(), ServiceError>;
}

/// Everybody may register.
pub struct OpenGate;

impl RegistrationGate for OpenGate {
    fn ask(&self, _challenge: &mut Challenge) {}

    fn admit(&self, _registration: &[u8], _work: &[u8]) -> Result<(), ServiceError> {
        Ok(())
    }
}

/// Who registers has tried 2^bits hashes, in the mean. The work is done on the whole registration, which has the challenge in
/// it: it is worth nothing for another name or key, nothing after the challenge has expired, and nothing is remembered here.
pub struct ProofOfWork {
    /// Zero bits at the beginning of the hash.
    pub bits: u8,
}

impl RegistrationGate for ProofOfWork {
    fn ask(&self, challenge: &mut Challenge) {
        challenge.work_bits = self.bits.into();
    }

    fn admit(&self, registration: &[u8], work: &[u8]) -> Result<(), ServiceError> {
        if work.len() == WORK_LEN && leading_zeros(&hash(registration, work)) >= self.bits.into() {
            return Ok(());
        }
        Err(ServiceError::NotAdmitted(
            "the registration lacks its proof of work; ask for a new challenge, try values of `work` until the hash of the \
             registration begins with work_bits zero bits, and send that",
        ))
    }
}

/// SHA-256(SHA-256(label || registration) || work)
fn hash(registration: &[u8], work: &[u8]) -> [u8; 32] {
    let inner = Sha256::new_with_prefix(WORK_LABEL).chain_update(registration).finalize();
    Sha256::new_with_prefix(inner).chain_update(work).finalize().into()
}

fn leading_zeros(hash: &[u8; 32]) -> u32 {
    let mut zeros = 0_u32;
    for byte in hash {
        zeros = zeros.saturating_add(byte.leading_zeros());
        if *byte != 0 {
            break;
        }
    }
    zeros
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_counted_over_bytes() {
        let mut hash = [0; 32];
        assert_eq!(leading_zeros(&hash), 256);
        hash[2] = 0b0001_0000;
        assert_eq!(leading_zeros(&hash), 19);
        hash[0] = 0x80;
        assert_eq!(leading_zeros(&hash), 0);
    }
}
