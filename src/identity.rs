//! Identity keys and the signature by which one identity vouches for another (W§5).

use crate::address::{Address, ServiceId};
use crate::crypto::{InvalidSignature, KeyError, KeyPair, PrivateKey, PublicKey};
use crate::ratchet::JumpLimit;
use alloc::vec::Vec;
use rand_core::CryptoRng;

/// The long-term public key of an account.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct IdentityKey(PublicKey);

impl IdentityKey {
    /// Wraps a public key that is known to be an identity.
    pub const fn new(key: PublicKey) -> Self {
        Self(key)
    }

    /// Reads the 33 serialized bytes.
    ///
    /// # Errors
    /// [`KeyError`] as [`PublicKey::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        PublicKey::decode(bytes).map(Self)
    }

    /// The 33 serialized bytes.
    pub fn serialize(&self) -> [u8; 33] {
        self.0.serialize()
    }

    /// The key itself.
    pub const fn public_key(&self) -> &PublicKey {
        &self.0
    }

    /// Checks that this identity vouched for `other` (W§5).
    ///
    /// # Errors
    /// [`InvalidSignature`] when it did not.
    pub fn verify_alternate_identity(
        &self,
        other: &IdentityKey,
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        self.0.verify_signature(&alternate_identity_message(other), signature)
    }
}

/// An identity key with its private half: the one secret that an account cannot replace unnoticed.
#[derive(Clone, Debug)]
pub struct IdentityKeyPair(KeyPair);

impl IdentityKeyPair {
    /// A fresh identity: draws 32 bytes.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self(KeyPair::generate(rng))
    }

    /// The public half.
    pub fn identity_key(&self) -> IdentityKey {
        IdentityKey(*self.0.public())
    }

    /// The private half.
    pub fn private_key(&self) -> &PrivateKey {
        self.0.private()
    }

    /// Vouches for another identity, as an account does for its alternate one (W§5): 64 bytes.
    pub fn sign_alternate_identity(
        &self,
        other: &IdentityKey,
        rng: &mut impl CryptoRng,
    ) -> [u8; 64] {
        self.private_key().sign(&alternate_identity_message(other), rng)
    }
}

impl From<PrivateKey> for IdentityKeyPair {
    fn from(private: PrivateKey) -> Self {
        Self(private.into())
    }
}

fn alternate_identity_message(other: &IdentityKey) -> Vec<u8> {
    [&[0xFF; 32][..], b"Signal_PNI_Signature", &other.serialize()].concat()
}

/// Who we are in a session: identity, registration id and the address under which peers know us.
#[derive(Clone, Debug)]
pub struct LocalParty {
    /// Our identity.
    pub identity: IdentityKeyPair,
    /// Drawn once per installation, 1..=0x3FFC; it tells peers that a device was set up anew.
    pub registration_id: u32,
    /// Our address.
    pub address: Address,
}

impl LocalParty {
    /// How far ahead a message of this peer may be: further in a session with ourselves (W§11.5).
    pub(crate) fn jump_limit(&self, remote: &ServiceId, identity: &IdentityKey) -> JumpLimit {
        let same_account = self.address.service_id == *remote;
        if same_account && self.identity.identity_key() == *identity {
            JumpLimit::OwnDevice
        } else {
            JumpLimit::Peer
        }
    }
}

/// What the app knows of a peer's identity, asked for on every use of a session.
///
/// Look the peer up in your store and say what you found: there is no callback that could answer
/// "yes" by accident. A key that you did not expect is reported as an error that names it; show it
/// to a person, store it if they accept it, and call again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Trust {
    /// Nothing is known yet: take the key that comes, and store it.
    FirstUse,
    /// Only this key.
    Only(IdentityKey),
    /// No key: the peer is blocked.
    Nobody,
}

impl Trust {
    pub(crate) fn check(&self, offered: &IdentityKey) -> Result<(), UntrustedIdentity> {
        match self {
            Self::FirstUse => Ok(()),
            Self::Only(known) if known == offered => Ok(()),
            Self::Only(_) | Self::Nobody => Err(UntrustedIdentity { offered: *offered }),
        }
    }
}

/// The peer's identity key is not the trusted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the peer's identity key is not the trusted one: let a person decide, then store it and try again"
)]
pub struct UntrustedIdentity {
    /// The key that was offered.
    pub offered: IdentityKey,
}
