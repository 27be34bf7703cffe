//! The three kinds of prekey and the bundle in which a peer finds them (W§6).
//!
//! Whether a KEM prekey is one-time or last-resort is known to its owner alone: on the wire they
//! look the same. Keep the base keys that a last-resort key has seen (W§7.5).

use crate::address::{DeviceId, Timestamp};
use crate::crypto::{
    InvalidSignature, KemKeyPair, KemPublicKey, KeyPair, PublicKey, SigningKey, VerificationKey,
};
use crate::identity::{IdentityKey, IdentityKeyPair};
use alloc::vec::Vec;
use rand_core::CryptoRng;

macro_rules! key_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u32);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

key_id! {
    /// Id of a one-time EC prekey. 0 is an id like any other.
    PreKeyId
}
key_id! {
    /// Id of a signed EC prekey.
    SignedPreKeyId
}
key_id! {
    /// Id of a KEM prekey, one-time or last-resort.
    KemPreKeyId
}

/// A one-time EC prekey. Not signed; delete it when [`crate::Decrypted::consumed`] names it.
#[derive(Clone, Debug)]
pub struct PreKey {
    /// Its id.
    pub id: PreKeyId,
    /// The key pair.
    pub pair: KeyPair,
}

impl PreKey {
    /// A fresh prekey: draws 32 bytes.
    pub fn generate(id: PreKeyId, rng: &mut impl CryptoRng) -> Self {
        Self { id, pair: KeyPair::generate(rng) }
    }
}

/// The signed EC prekey: one at a time, replaced now and then, the last ones kept for late messages.
#[derive(Clone, Debug)]
pub struct SignedPreKey {
    /// Its id.
    pub id: SignedPreKeyId,
    /// The key pair.
    pub pair: KeyPair,
    /// By the owner's identity key, over the 33 serialized bytes.
    pub signature: [u8; 64],
    /// When it was made.
    pub created: Timestamp,
}

impl SignedPreKey {
    /// A fresh signed prekey: draws 32 bytes for the key, then 64 for the signature.
    pub fn generate(
        id: SignedPreKeyId,
        identity: &IdentityKeyPair,
        rng: &mut impl CryptoRng,
        now: Timestamp,
    ) -> Self {
        let pair = KeyPair::generate(rng);
        let signature = identity.private_key().sign(&pair.public().serialize(), rng);
        Self { id, pair, signature, created: now }
    }
}

/// A KEM prekey (round-3 Kyber-1024).
#[derive(Clone, Debug)]
pub struct KemPreKey {
    /// Its id.
    pub id: KemPreKeyId,
    /// The key pair.
    pub pair: KemKeyPair,
    /// By the owner's identity key, over the 1569 serialized bytes.
    pub signature: [u8; 64],
    /// When it was made.
    pub created: Timestamp,
}

impl KemPreKey {
    /// A fresh KEM prekey: draws 64 bytes for the key, then 64 for the signature.
    pub fn generate(
        id: KemPreKeyId,
        identity: &IdentityKeyPair,
        rng: &mut impl CryptoRng,
        now: Timestamp,
    ) -> Self {
        Self::signed_by(&SigningKey::new(identity.private_key().clone()), id, rng, now)
    }

    /// Fresh KEM prekeys with these ids: the same as one after the other, with the same draws, and about
    /// a fifth cheaper, because the identity is made ready to sign only once.
    pub fn generate_many(
        ids: impl IntoIterator<Item = KemPreKeyId>,
        identity: &IdentityKeyPair,
        rng: &mut impl CryptoRng,
        now: Timestamp,
    ) -> Vec<Self> {
        let signer = SigningKey::new(identity.private_key().clone());
        ids.into_iter().map(|id| Self::signed_by(&signer, id, rng, now)).collect()
    }

    fn signed_by(
        signer: &SigningKey,
        id: KemPreKeyId,
        rng: &mut impl CryptoRng,
        now: Timestamp,
    ) -> Self {
        let pair = KemKeyPair::generate(rng);
        let signature = signer.sign(&pair.public().serialize(), rng);
        Self { id, pair, signature, created: now }
    }
}

/// A device's public prekeys, as a key server hands them out. The signatures are checked by
/// [`crate::SessionRecord::initiate`], every time.
#[derive(Clone, Debug)]
pub struct PreKeyBundle {
    /// The device's registration id.
    pub registration_id: u32,
    /// The device. Not compared with the address that the bundle is used for (W§7.4).
    pub device_id: DeviceId,
    /// The account's identity.
    pub identity_key: IdentityKey,
    /// The signed EC prekey.
    pub signed_prekey: SignedPreKeyPublic,
    /// A one-time EC prekey, if one was left.
    pub one_time: Option<PreKeyPublic>,
    /// The KEM prekey. Without it only X3DH is possible, which has to be allowed by name.
    pub kem: Option<KemPreKeyPublic>,
}

/// Public half of a [`PreKey`].
#[derive(Clone, Copy, Debug)]
pub struct PreKeyPublic {
    /// Its id.
    pub id: PreKeyId,
    /// The key.
    pub key: PublicKey,
}

/// Public half of a [`SignedPreKey`].
#[derive(Clone, Copy, Debug)]
pub struct SignedPreKeyPublic {
    /// Its id.
    pub id: SignedPreKeyId,
    /// The key.
    pub key: PublicKey,
    /// By the identity key, over the 33 serialized bytes.
    pub signature: [u8; 64],
}

/// Public half of a [`KemPreKey`].
#[derive(Clone, Debug)]
pub struct KemPreKeyPublic {
    /// Its id.
    pub id: KemPreKeyId,
    /// The key.
    pub key: KemPublicKey,
    /// By the identity key, over the 1569 serialized bytes.
    pub signature: [u8; 64],
}

impl PreKey {
    /// The half that may be published.
    pub fn public(&self) -> PreKeyPublic {
        PreKeyPublic { id: self.id, key: *self.pair.public() }
    }
}

impl SignedPreKey {
    /// The half that may be published.
    pub fn public(&self) -> SignedPreKeyPublic {
        SignedPreKeyPublic { id: self.id, key: *self.pair.public(), signature: self.signature }
    }
}

impl KemPreKey {
    /// The half that may be published.
    pub fn public(&self) -> KemPreKeyPublic {
        KemPreKeyPublic { id: self.id, key: self.pair.public().clone(), signature: self.signature }
    }
}

impl PreKeyBundle {
    /// B2 and B3: the signed prekey's signature first, then the KEM prekey's.
    pub(crate) fn verify_signatures(&self) -> Result<(), InvalidSignature> {
        let mut identity = VerificationKey::new(*self.identity_key.public_key());
        let signed = &self.signed_prekey;
        identity.verify(&signed.key.serialize(), &signed.signature)?;
        match &self.kem {
            Some(kem) => identity.verify(&kem.key.serialize(), &kem.signature),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    #[test]
    fn many_at_once_are_the_same_as_one_after_the_other() {
        let identity = IdentityKeyPair::generate(&mut ChaCha20Rng::from_seed([1; 32]));
        let rng = || ChaCha20Rng::from_seed([2; 32]);
        let now = Timestamp::from_millis(5);
        let ids = || [7, 3, u32::MAX].map(KemPreKeyId);
        let many = KemPreKey::generate_many(ids(), &identity, &mut rng(), now);
        let mut one_rng = rng();
        let one = ids().map(|id| KemPreKey::generate(id, &identity, &mut one_rng, now));
        assert_eq!(many.len(), 3);
        for (many, one) in many.iter().zip(&one) {
            assert_eq!(
                (many.id, many.created, many.signature),
                (one.id, one.created, one.signature)
            );
            assert_eq!(many.pair.public(), one.pair.public());
        }
    }
}
