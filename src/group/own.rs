//! W§12, the sending side: our own key of one distribution, what it encrypts and how others learn it.
//! The wire formats are in `message.rs`, the stored form in `codec.rs`.

use super::chain::GroupMessageKeys;
use super::message::{Head, SenderKeyDistributionMessage};
use crate::crypto::cipher::cbc_len;
use crate::crypto::secret::Secret;
use crate::crypto::{PrivateKey, PublicKey, SigningKey};
use crate::keys::ChainKey;
use crate::ratchet::double::Chain;
use alloc::vec::Vec;
use rand_core::CryptoRng;

/// Our key of one distribution: a chain of our own, and the key that signs its messages.
///
/// Everybody who was sent [`SenderKey::distribution_message`] reads what is encrypted from then on.
/// Nothing can be taken back: who leaves is kept out by a new key ([`SenderKey::generate`]), sent to
/// those who stay.
///
/// Each iteration encrypts once. There is one owner, encryption borrows it alone, and it is not
/// `Clone`: two callers cannot come to the same iteration.
///
/// ```compile_fail,E0599
/// # use tuckseal::SenderKey;
/// # let mut rng: rand::rngs::StdRng = rand::make_rng();
/// let key = SenderKey::generate([7; 16], &mut rng);
/// let copy = key.clone();
/// ```
///
/// ```
/// # use tuckseal::SenderKey;
/// # let mut rng: rand::rngs::StdRng = rand::make_rng();
/// let key = SenderKey::generate([7; 16], &mut rng);
/// let moved = key;
/// # let _ = moved;
/// ```
pub struct SenderKey {
    pub(crate) distribution_id: [u8; 16],
    pub(crate) chain_id: u32,
    pub(crate) chain: Chain,
    pub(crate) signing: SigningKey,
    pub(crate) signing_public: PublicKey,
}

/// A group message could not be encrypted. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupEncryptError {
    /// G7: the chain has reached its last iteration.
    #[error("the sender key is used up: generate a new one and distribute it")]
    Exhausted,
}

impl SenderKey {
    /// A fresh key for a distribution, named by a UUID of 16 bytes. Draws 68 bytes: chain id (4, of
    /// which 31 bits are used), chain key (32), signing key (32).
    pub fn generate(distribution_id: [u8; 16], rng: &mut impl CryptoRng) -> Self {
        let chain_id = rng.next_u32() >> 1;
        let mut key = Secret::zeroed();
        rng.fill_bytes(key.as_mut_bytes());
        let signing = PrivateKey::generate(rng);
        Self {
            distribution_id,
            chain_id,
            chain: Chain { key: ChainKey::new(key), index: 0 },
            signing_public: signing.public_key(),
            signing: SigningKey::new(signing),
        }
    }

    /// What others need to read the messages from now on, none of those before. Send it through
    /// sessions alone.
    pub fn distribution_message(&self) -> SenderKeyDistributionMessage {
        SenderKeyDistributionMessage::new(
            self.distribution_id,
            self.chain_id,
            self.chain.index,
            self.chain.key.as_bytes(),
            self.signing_public,
        )
    }

    /// Encrypts for everybody who has the key: a [`super::SenderKeyMessage`] on the wire. Save the
    /// key before the message leaves. Draws 64 bytes.
    ///
    /// # Errors
    /// [`GroupEncryptError`]; the key is as it was.
    pub fn encrypt(
        &mut self,
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, GroupEncryptError> {
        let (seed, next) = self.chain.step().map_err(|_| GroupEncryptError::Exhausted)?;
        let head = Head {
            distribution_id: &self.distribution_id,
            chain_id: self.chain_id,
            iteration: self.chain.index,
        };
        let mut out = head.begin(cbc_len(plaintext.len()));
        GroupMessageKeys::derive(&seed).seal(&mut out, plaintext);
        let signature = self.signing.sign(&out, rng);
        out.extend_from_slice(&signature);
        self.chain = next;
        Ok(out)
    }

    /// The distribution that it belongs to, a UUID of 16 bytes.
    pub const fn distribution_id(&self) -> &[u8; 16] {
        &self.distribution_id
    }

    /// Which chain of that distribution.
    pub const fn chain_id(&self) -> u32 {
        self.chain_id
    }

    /// How many messages were encrypted: the iteration of the next.
    pub const fn iteration(&self) -> u32 {
        self.chain.index
    }
}

impl core::fmt::Debug for SenderKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SenderKey")
            .field("chain_id", &self.chain_id)
            .field("iteration", &self.chain.index)
            .finish_non_exhaustive()
    }
}
