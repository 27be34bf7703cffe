//! How a session begins: the checks around the key agreement and their order (W§7.4, 7.5, 11.3).

use super::cipher::{DecryptError, Decrypted, TrialError};
use super::record::{Pending, Place, Session, SessionRecord};
use crate::address::{Address, Timestamp};
use crate::crypto::{InvalidSignature, KeyError, KeyPair, PublicKey};
use crate::handshake::{self, ResponderKeys};
use crate::identity::{LocalParty, Trust, UntrustedIdentity};
use crate::keys::PqrKey;
use crate::message::{PreKeySignalMessage, SessionVersion};
use crate::prekey::{
    KemPreKey, KemPreKeyId, PreKey, PreKeyBundle, PreKeyId, SignedPreKey, SignedPreKeyId,
};
use crate::ratchet::double::DoubleRatchet;
use crate::ratchet::{JumpLimit, TripleRatchet};
use crate::spqr::{ChainLimits, Direction, MinVersion, Spqr};
use alloc::boxed::Box;
use rand_core::CryptoRng;

/// What a session may be begun with. What it then has is told by [`crate::SessionInfo`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum AgreementPolicy {
    /// PQXDH and the post-quantum ratchet: a bundle without a KEM prekey, a first message of version
    /// 3, or a peer without the ratchet is refused. The peers' releases since v0.92.0 do the same.
    #[default]
    RequireSpqr,
    /// PQXDH; the post-quantum ratchet is switched off for a peer that has none. To be chosen when a
    /// session begins: under the other policies the first message already needs the ratchet to be read. Keys that leak
    /// later are then not healed against a quantum computer.
    AllowNoSpqr,
    /// As [`Self::RequireSpqr`], and X3DH for peers and data that have nothing else: who records such
    /// a session today can read it with a quantum computer later.
    AllowX3dh,
    /// As [`Self::AllowNoSpqr`], and X3DH.
    AllowX3dhAndNoSpqr,
}

impl AgreementPolicy {
    fn allows_x3dh(self) -> bool {
        matches!(self, Self::AllowX3dh | Self::AllowX3dhAndNoSpqr)
    }

    fn min_version(self) -> MinVersion {
        match self {
            Self::RequireSpqr | Self::AllowX3dh => MinVersion::V1,
            Self::AllowNoSpqr | Self::AllowX3dhAndNoSpqr => MinVersion::V0,
        }
    }
}

/// The post-quantum ratchet of a new session (W§9): on in version 4, off in version 3.
fn post_quantum(
    key: Option<&PqrKey>,
    direction: Direction,
    policy: AgreementPolicy,
    limit: JumpLimit,
) -> Spqr {
    let max_jump = match limit {
        JumpLimit::Peer => ChainLimits::DEFAULT.max_jump,
        JumpLimit::OwnDevice => u32::MAX,
    };
    let limits = ChainLimits { max_jump, ..ChainLimits::DEFAULT };
    key.map_or(Spqr::Off, |key| Spqr::new(direction, policy.min_version(), key, limits))
}

/// No session could be begun from a bundle. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// B1: the identity in the bundle is not the trusted one.
    #[error(transparent)]
    UntrustedIdentity(#[from] UntrustedIdentity),
    /// B2, B3: a prekey was not signed by the identity in the bundle.
    #[error("a prekey of the bundle is not signed by its identity key: fetch the bundle again")]
    Signature(#[from] InvalidSignature),
    /// B4: no KEM prekey, and the policy asks for one.
    #[error("the bundle has no KEM prekey, and X3DH was not allowed")]
    X3dhRefused,
    /// B5: a prekey of low order.
    #[error("a prekey of the bundle cannot be used: {0}")]
    Key(#[from] KeyError),
}

/// Whether a base key was seen before with the KEM prekey and signed prekey of a first message.
///
/// For a last-resort KEM prekey, remember the base keys of each pair of its id and a signed prekey's
/// id (W§7.5), and look there; a one-time KEM prekey is deleted at its first use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BaseKeyUse {
    /// Not seen.
    First,
    /// Seen: the message is a replay, and will be refused.
    Repeated,
}

/// The prekeys that a first message named, as far as they were found.
#[derive(Clone, Copy, Debug)]
pub struct PreKeys<'a> {
    /// The signed prekey of [`crate::Needs::signed`].
    pub signed: Option<&'a SignedPreKey>,
    /// The one-time prekey of [`crate::Needs::one_time`].
    pub one_time: Option<&'a PreKey>,
    /// The KEM prekey of [`crate::Needs::kem`]; not looked at in version 3, which has none.
    pub kem: Option<&'a KemPreKey>,
    /// Whether the KEM prekey has seen the base key.
    pub base_key: BaseKeyUse,
}

impl PreKeys<'_> {
    /// None at all: enough for a message whose session exists.
    pub const NONE: Self =
        Self { signed: None, one_time: None, kem: None, base_key: BaseKeyUse::First };
}

/// A kind of prekey.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PreKeyKind {
    /// [`SignedPreKey`]
    Signed,
    /// [`PreKey`]
    OneTime,
    /// [`KemPreKey`]
    Kem,
}

/// The prekeys that a new session used up. In the transaction that saves the record: delete the
/// one-time prekeys, and remember the base key of a last-resort KEM prekey.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Consumed {
    /// Delete it.
    pub one_time: Option<PreKeyId>,
    /// Keep it.
    pub signed: SignedPreKeyId,
    /// Delete it if it is a one-time key; else remember the base key with this id and `signed`.
    pub kem: Option<KemPreKeyId>,
    /// The initiator's base key.
    pub base_key: PublicKey,
}

impl SessionRecord {
    /// Begins a session with the device that published this bundle (W§7); it becomes the current one,
    /// the former current one is archived. Save the record and the identity afterwards.
    ///
    /// Draws 32 bytes for the base key, 32 for the KEM if there is one, 32 for the ratchet key.
    ///
    /// # Errors
    /// [`HandshakeError`], in the order B1 to B5; the record is as it was.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a different type, and none has a default"
    )]
    pub fn initiate(
        &mut self,
        local: &LocalParty,
        remote: &Address,
        bundle: &PreKeyBundle,
        trust: Trust,
        policy: AgreementPolicy,
        rng: &mut impl CryptoRng,
        now: Timestamp,
    ) -> Result<(), HandshakeError> {
        trust.check(&bundle.identity_key)?;
        if bundle.kem.is_none() && !policy.allows_x3dh() {
            return Err(HandshakeError::X3dhRefused);
        }
        bundle.verify_signatures()?;
        let base = KeyPair::generate(rng);
        let initiated = handshake::initiate(&local.identity, &base, bundle, rng)?;
        let agreed = initiated.agreed;
        let double =
            DoubleRatchet::initiator(&agreed.root, agreed.chain, &bundle.signed_prekey.key, rng)?;
        let limit = local.jump_limit(&remote.service_id, &bundle.identity_key);
        let pq = post_quantum(agreed.pqr.as_ref(), Direction::A2B, policy, limit);
        let kem = bundle.kem.as_ref().map(|prekey| prekey.id);
        let ciphertext = initiated.kem_ciphertext.map(|ciphertext| ciphertext.serialize());
        self.promote(Box::new(Session {
            version: if kem.is_some() { SessionVersion::V4 } else { SessionVersion::V3 },
            local_identity: local.identity.identity_key(),
            remote_identity: bundle.identity_key,
            local_registration_id: local.registration_id,
            remote_registration_id: bundle.registration_id,
            base_key: *base.public(),
            pending: Some(Pending {
                one_time: bundle.one_time.map(|prekey| prekey.id),
                signed: bundle.signed_prekey.id,
                kem: kem.zip(ciphertext),
                created_secs: now.as_secs(),
            }),
            ratchet: TripleRatchet { double, pq },
        }));
        Ok(())
    }

    /// Whether the session that a first message names is here, so that no prekeys are needed.
    pub fn has_session_of(&self, message: &PreKeySignalMessage) -> bool {
        self.find(message.version(), message.base_key()).is_some()
    }

    /// Decrypts a first message (W§11.3), beginning its session unless it is here already. Save the
    /// record, the identity, and what [`Decrypted::consumed`] says.
    ///
    /// # Errors
    /// [`DecryptError`] in the order P1 to P11; the record is as it was, and so must the prekeys and
    /// the known identity stay.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a different type, and none has a default"
    )]
    pub fn decrypt_first(
        &mut self,
        local: &LocalParty,
        remote: &Address,
        message: &PreKeySignalMessage,
        prekeys: PreKeys<'_>,
        trust: Trust,
        policy: AgreementPolicy,
        rng: &mut impl CryptoRng,
    ) -> Result<Decrypted, DecryptError> {
        trust.check(message.identity_key())?;
        match self.find(message.version(), message.base_key()) {
            Some(place) => self.decrypt_repeated(local, remote, message, place, rng),
            None => self.decrypt_new(local, remote, message, prekeys, policy, rng),
        }
    }

    /// Step 2 of W§11.3: the session is here; only the identity is compared (P11).
    fn decrypt_repeated(
        &mut self,
        local: &LocalParty,
        remote: &Address,
        message: &PreKeySignalMessage,
        place: Place,
        rng: &mut impl CryptoRng,
    ) -> Result<Decrypted, DecryptError> {
        let trial = self.try_place(place, local, remote, message.message(), rng, |session| {
            session.remote_identity == *message.identity_key()
        });
        match trial {
            Ok(opened) => Ok(self.commit_opened(place, opened)),
            Err(error) => Err(error.into()),
        }
    }

    /// Steps 3 to 8 of W§11.3.
    fn decrypt_new(
        &mut self,
        local: &LocalParty,
        remote: &Address,
        message: &PreKeySignalMessage,
        prekeys: PreKeys<'_>,
        policy: AgreementPolicy,
        rng: &mut impl CryptoRng,
    ) -> Result<Decrypted, DecryptError> {
        if message.version() == SessionVersion::V3 && !policy.allows_x3dh() {
            return Err(DecryptError::X3dhRefused);
        }
        let needs = message.needs();
        let missing = |kind, id: u32| DecryptError::NoPreKey { kind, id };
        let signed = prekeys.signed.ok_or(missing(PreKeyKind::Signed, needs.signed.0))?;
        let kem = match (needs.kem, message.kem_ciphertext()) {
            (Some(id), Some(ciphertext)) if message.version() == SessionVersion::V4 => {
                let prekey = prekeys.kem.ok_or(missing(PreKeyKind::Kem, id.0))?;
                Some((&prekey.pair, ciphertext))
            }
            _ => None,
        };
        // Anybody can write the fields of a KEM prekey behind a message of version 3.
        let used_kem = kem.and(needs.kem);
        let one_time = match needs.one_time {
            Some(id) => Some(&prekeys.one_time.ok_or(missing(PreKeyKind::OneTime, id.0))?.pair),
            None => None,
        };
        if !message.base_key().is_canonical() {
            return Err(DecryptError::Invalid);
        }
        let keys = ResponderKeys { identity: &local.identity, signed: &signed.pair, one_time, kem };
        let agreed = handshake::respond(&keys, message.identity_key(), message.base_key())?;
        let limit = local.jump_limit(&remote.service_id, message.identity_key());
        let pq = post_quantum(agreed.pqr.as_ref(), Direction::B2A, policy, limit);
        let double = DoubleRatchet::responder(agreed.root, agreed.chain, signed.pair.clone());
        let mut session = Session {
            version: message.version(),
            local_identity: local.identity.identity_key(),
            remote_identity: *message.identity_key(),
            local_registration_id: local.registration_id,
            remote_registration_id: message.registration_id(),
            base_key: *message.base_key(),
            pending: None,
            ratchet: TripleRatchet { double, pq },
        };
        let opened = session.open(local, remote, message.message(), rng).map_err(|error| {
            // A fresh session has no past: every failure is the generic one.
            if let TrialError::TooFarAhead { .. } = error {
                error.into()
            } else {
                DecryptError::Invalid
            }
        })?;
        if prekeys.base_key == BaseKeyUse::Repeated {
            return Err(DecryptError::Invalid);
        }
        session.ratchet.commit_receive(opened.plan);
        self.promote(Box::new(session));
        Ok(Decrypted {
            plaintext: opened.plaintext,
            identity: *message.identity_key(),
            consumed: Some(Consumed {
                one_time: needs.one_time,
                signed: needs.signed,
                kem: used_kem,
                base_key: needs.base_key,
            }),
        })
    }
}
