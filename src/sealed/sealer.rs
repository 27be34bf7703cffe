//! Sealing and opening for whoever talks with the same people often: the agreement between our
//! identity key and theirs is the same in every envelope (W§13, 15.1), so that it is kept.

use super::content::SealedContent;
use super::error::{OpenError, SealError};
use super::remembered::Remembered;
use super::v2::{self, SealedRecipient};
use super::{open_with, v1};
use crate::address::ServiceId;
use crate::crypto::curve::SharedSecret;
use crate::identity::{IdentityKey, IdentityKeyPair};
use alloc::{boxed::Box, vec::Vec};
use rand_core::CryptoRng;

/// An identity that seals and opens, and remembers what it agreed with whom: one scalar
/// multiplication less in each envelope from or to somebody remembered.
///
/// What it writes is what [`super::seal_v1`], [`super::seal_v2`] and [`super::seal_v2_multi`] write.
/// It holds secrets that are as good as the identity key for conversations with those remembered:
/// they are wiped when forgotten or dropped, and are never stored.
pub struct Sealer {
    identity: IdentityKeyPair,
    /// By the peer's identity key. Boxed, so that no secret stays behind where an entry was moved.
    agreed: Remembered<Box<SharedSecret>>,
}

impl Sealer {
    /// `capacity` is how many peers are remembered, rounded up to an even number, at about 100 bytes
    /// each; those not met for longest are forgotten first.
    pub fn new(identity: IdentityKeyPair, capacity: usize) -> Self {
        Self { identity, agreed: Remembered::new(capacity) }
    }

    /// [`super::seal_v1`].
    ///
    /// # Errors
    /// As there.
    pub fn seal_v1(
        &mut self,
        content: &SealedContent,
        recipient: &IdentityKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, SealError> {
        let agreed = self.agree(recipient)?;
        v1::seal_agreed(content, &self.identity.identity_key(), &agreed, recipient, rng)
    }

    /// [`super::seal_v2`].
    ///
    /// # Errors
    /// As there.
    pub fn seal_v2(
        &mut self,
        content: &SealedContent,
        recipient: &IdentityKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, SealError> {
        let agreed = self.agree(recipient)?;
        v2::seal_agreed(content, &self.identity.identity_key(), &agreed, recipient, rng)
    }

    /// [`super::seal_v2_multi`].
    ///
    /// # Errors
    /// As there.
    pub fn seal_v2_multi(
        &mut self,
        content: &SealedContent,
        recipients: &[SealedRecipient],
        excluded: &[ServiceId],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, SealError> {
        let known = recipients
            .iter()
            .map(|recipient| self.agreed.get(recipient.identity.public_key().as_u()).cloned())
            .collect();
        let (out, agreed) =
            v2::seal_multi(content, &self.identity, recipients, known, excluded, rng)?;
        for (recipient, agreed) in recipients.iter().zip(agreed) {
            self.agreed.insert(*recipient.identity.public_key().as_u(), agreed);
        }
        Ok(out)
    }

    /// [`super::open`]. The sender is remembered once the envelope is found to be theirs; whether they
    /// may be believed is [`SealedContent::authenticate`]'s business, as ever.
    ///
    /// # Errors
    /// As there.
    pub fn open(&mut self, envelope: &[u8]) -> Result<SealedContent, OpenError> {
        let Self { identity, agreed } = self;
        let mut fresh = None;
        let content = open_with(envelope, identity, |sender| match agreed.get(sender.as_u()) {
            Some(known) => Ok((**known).clone()),
            None => {
                let shared = identity.private_key().agree(sender)?;
                fresh = Some(Box::new(shared.clone()));
                Ok(shared)
            }
        })?;
        if let Some(shared) = fresh {
            agreed.insert(*content.sender.identity_key().public_key().as_u(), shared);
        }
        Ok(content)
    }

    fn agree(&mut self, with: &IdentityKey) -> Result<SharedSecret, SealError> {
        let key = with.public_key();
        if let Some(known) = self.agreed.get(key.as_u()) {
            return Ok((**known).clone());
        }
        let shared = self.identity.private_key().agree(key).map_err(SealError::Recipient)?;
        self.agreed.insert(*key.as_u(), Box::new(shared.clone()));
        Ok(shared)
    }

    /// How many peers are remembered.
    pub fn remembered(&self) -> usize {
        self.agreed.len()
    }
}

impl core::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sealer").field("remembered", &self.remembered()).finish_non_exhaustive()
    }
}
