//! W§13.1–13.2. What lies in an envelope: a message, who sent it, and how to treat its loss.
//! Believing the sender is one call, [`SealedContent::authenticate`]; decrypting the message that
//! lies inside is the session's or the group's business.

use super::certificate::SenderCertificate;
use super::checker::CertificateChecker;
use super::error::{OpenError, SelfSend};
use crate::address::{Address, Timestamp};
use crate::crypto::PublicKey;
use crate::sealed::ServerCertificate;
use crate::wire::DecodeError;
use crate::wire::sealed_sender::unidentified_sender_message::Message as Wire;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use prost::Message;

/// What kind of message lies inside. The numbers are those of the envelope: they are not the type
/// codes of W§10.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ContentKind {
    /// The first message of a session.
    PreKey = 1,
    /// A later message of a session.
    Whisper = 2,
    /// A group message.
    SenderKey = 7,
    /// A request to send again, which is not encrypted inside the envelope.
    Plaintext = 8,
}

/// How the sender wants the loss of this message to be treated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ContentHint {
    /// Nothing said: show an error.
    #[default]
    Default,
    /// The sender can send it again: ask, and leave room for it.
    Resendable,
    /// Not worth a word.
    Implicit,
    /// A value of a later release, kept as it came.
    Unknown(u32),
}

impl ContentHint {
    const fn from_wire(value: i32) -> Self {
        match value {
            0 => Self::Default,
            1 => Self::Resendable,
            2 => Self::Implicit,
            other => Self::Unknown(other.cast_unsigned()),
        }
    }

    const fn to_wire(self) -> i32 {
        match self {
            Self::Default => 0,
            Self::Resendable => 1,
            Self::Implicit => 2,
            Self::Unknown(other) => other.cast_signed(),
        }
    }
}

/// The content of an envelope (USMC, W§13.1).
///
/// ```text
/// 1 type: 1, 2, 7 or 8 · 2 sender certificate · 3 content · 4 hint, if not 0 · 5 group id, if not empty
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SealedContent {
    /// What `content` is.
    pub kind: ContentKind,
    /// Who says that they sent it. Believe it after [`SealedContent::authenticate`] alone.
    pub sender: SenderCertificate,
    /// The message, still encrypted by its session or group. May be empty.
    pub content: Bytes,
    /// How to treat its loss.
    pub hint: ContentHint,
    /// The group that it belongs to, for the answer to a failed decryption. Never `Some` and empty
    /// after decoding.
    pub group_id: Option<Bytes>,
}

impl SealedContent {
    /// Reads the decrypted bytes of an envelope.
    ///
    /// # Errors
    /// [`DecodeError`] when a part is missing, of unknown kind or malformed (X7, X8).
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::from_bytes(Bytes::copy_from_slice(bytes))
    }

    pub(super) fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let missing = |field| DecodeError::Missing { field };
        let wire = Wire::decode(bytes)?;
        let kind = match wire.r#type.ok_or(missing("type"))? {
            1 => ContentKind::PreKey,
            2 => ContentKind::Whisper,
            7 => ContentKind::SenderKey,
            8 => ContentKind::Plaintext,
            _ => return Err(DecodeError::Field { field: "type" }),
        };
        let sender = wire.sender_certificate.ok_or(missing("sender_certificate"))?;
        Ok(Self {
            kind,
            content: wire.content.ok_or(missing("content"))?,
            sender: SenderCertificate::from_bytes(sender)?,
            hint: ContentHint::from_wire(wire.content_hint.unwrap_or_default()),
            group_id: wire.group_id.filter(|id| !id.is_empty()),
        })
    }

    /// The bytes that an envelope encrypts.
    pub fn encode(&self) -> Vec<u8> {
        self.to_wire().encode_to_vec()
    }

    /// The bytes are shared, not copied.
    pub(super) fn to_wire(&self) -> impl Message {
        Wire {
            r#type: Some(self.kind as i32),
            sender_certificate: Some(self.sender.to_bytes()),
            content: Some(self.content.clone()),
            content_hint: Some(self.hint.to_wire()).filter(|hint| *hint != 0),
            group_id: self.group_id.clone().filter(|id| !id.is_empty()),
        }
    }

    /// Who sent this, proven: the certificate holds at `now` under one of the trust roots, and the
    /// sender is not this very device. The answer is the address of the session that decrypts
    /// [`SealedContent::content`].
    ///
    /// `known_signers` are the server certificates that senders may name by id, usually none;
    /// `own_e164` is our phone number if we go by one.
    ///
    /// # Errors
    /// [`OpenError::Certificate`], [`OpenError::SelfSend`], or [`OpenError::NotAnAccount`] when the
    /// certificate names the sender by something else than an account id.
    pub fn authenticate(
        &self,
        trust_roots: &[PublicKey],
        known_signers: &[ServerCertificate],
        own: &Address,
        own_e164: Option<&str>,
        now: Timestamp,
    ) -> Result<Address, OpenError> {
        self.sender.validate(trust_roots, known_signers, now)?;
        self.sender_but(own, own_e164)
    }

    /// [`SealedContent::authenticate`] by a checker that remembers the certificates that held.
    ///
    /// # Errors
    /// As [`SealedContent::authenticate`].
    pub fn authenticate_by(
        &self,
        checker: &mut CertificateChecker,
        own: &Address,
        own_e164: Option<&str>,
        now: Timestamp,
    ) -> Result<Address, OpenError> {
        checker.check(&self.sender, now)?;
        self.sender_but(own, own_e164)
    }

    /// The sender, unless it is this very device. Which it also is when our account is written in upper case: as text that
    /// is another, as an address it is ours.
    fn sender_but(&self, own: &Address, own_e164: Option<&str>) -> Result<Address, OpenError> {
        self.check_not_self(own, own_e164)?;
        let sender = self.sender.sender().ok_or(OpenError::NotAnAccount)?;
        if sender == *own { Err(SelfSend.into()) } else { Ok(sender) }
    }

    /// A part of [`SealedContent::authenticate`], for who validates certificates elsewhere: that
    /// the sender is not this very device. Texts are compared as they are, case included (W§13.2): compare the address
    /// that you make of the text with your own, too.
    ///
    /// # Errors
    /// [`SelfSend`] when it is.
    pub fn check_not_self(&self, own: &Address, own_e164: Option<&str>) -> Result<(), SelfSend> {
        let same_account = self.sender.sender_text() == String::from(own.service_id)
            || own_e164.is_some_and(|own| self.sender.e164() == Some(own));
        if same_account && self.sender.device_id() == own.device_id {
            return Err(SelfSend);
        }
        Ok(())
    }
}

impl core::fmt::Debug for SealedContent {
    /// Neither sender nor content.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SealedContent")
            .field("kind", &self.kind)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{DeviceId, ServiceId};
    use crate::crypto::PrivateKey;
    use crate::identity::IdentityKey;
    use crate::sealed::{CertificateError, SenderFields};
    use crate::wire::sealed_sender as wire;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
    use wire::sender_certificate::{Certificate as InnerWire, certificate::SenderUuid};

    const NOW: Timestamp = Timestamp::from_millis(1000);

    fn device(id: u8) -> DeviceId {
        DeviceId::new(id).unwrap()
    }

    /// From device 1 of this account, with the trust root that certified it.
    fn content_from(service_id: ServiceId, e164: Option<&str>) -> (SealedContent, PublicKey) {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let key = PrivateKey::generate(&mut rng);
        let public = key.public_key();
        let server = ServerCertificate::issue(1, &public, &key, &mut rng);
        let fields = SenderFields {
            service_id,
            e164: e164.map(String::from),
            device_id: device(1),
            identity_key: IdentityKey::new(public),
            expires: NOW,
        };
        let content = SealedContent {
            kind: ContentKind::Whisper,
            sender: SenderCertificate::issue(fields, &server, &key, &mut rng),
            content: Bytes::new(),
            hint: ContentHint::Default,
            group_id: None,
        };
        (content, public)
    }

    #[test]
    fn self_is_the_same_account_or_number_on_the_same_device() {
        let (sender, other) = (ServiceId::aci([0xAB; 16]), ServiceId::aci([2; 16]));
        let is_self = |sender_e164, own: ServiceId, own_device, own_e164| {
            let (content, _) = content_from(sender, sender_e164);
            content.check_not_self(&Address::new(own, device(own_device)), own_e164).is_err()
        };
        assert!(is_self(None, sender, 1, None));
        assert!(!is_self(None, sender, 2, None));
        assert!(!is_self(None, other, 1, None));
        assert!(is_self(Some("+1"), other, 1, Some("+1")));
        assert!(!is_self(Some("+1"), other, 2, Some("+1")));
        assert!(!is_self(Some("+1"), other, 1, Some("+2")));
        assert!(!is_self(None, other, 1, Some("+1")));
        assert!(!is_self(Some("+1"), other, 1, None));
        // Two empty numbers are equal (W§13.2).
        assert!(is_self(Some(""), other, 1, Some("")));
    }

    #[test]
    fn authentication_goes_through_every_step() {
        let sender = ServiceId::aci([1; 16]);
        let us = Address::new(ServiceId::aci([2; 16]), device(1));
        let (content, root) = content_from(sender, None);
        let address = Address::new(sender, device(1));
        let authenticate =
            |root: &[PublicKey], own, now| content.authenticate(root, &[], own, None, now);
        assert_eq!(authenticate(&[root], &us, NOW), Ok(address));
        assert_eq!(
            authenticate(&[], &us, NOW),
            Err(OpenError::Certificate(CertificateError::UntrustedSigner))
        );
        assert_eq!(authenticate(&[root], &address, NOW), Err(OpenError::SelfSend(SelfSend)));
        let late = Timestamp::from_millis(1001);
        assert_eq!(
            authenticate(&[root], &us, late),
            Err(OpenError::Certificate(CertificateError::Expired { expires: NOW }))
        );
    }

    #[test]
    fn our_own_address_in_another_spelling_is_ours() {
        let us = Address::new(ServiceId::aci([0xAB; 16]), device(1));
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let (content, root) = content_from(us.service_id, None);
        let key = PrivateKey::generate(&mut rng);
        let outer = wire::SenderCertificate::decode(content.sender.encode()).unwrap();
        let mut body = InnerWire::decode(outer.certificate.unwrap()).unwrap();
        let text = String::from(us.service_id).to_uppercase();
        body.sender_uuid = Some(SenderUuid::UuidString(text));
        let body = body.encode_to_vec();
        let signature = Some(Bytes::copy_from_slice(&key.sign(&body, &mut rng)));
        let outer = wire::SenderCertificate { certificate: Some(body.into()), signature };
        let sender = SenderCertificate::decode(&outer.encode_to_vec()).unwrap();
        let content = SealedContent { sender, ..content };
        let refused = Err(OpenError::SelfSend(SelfSend));
        assert_eq!(content.authenticate(&[root], &[], &us, None, NOW), refused);
        let mut checker = CertificateChecker::new(alloc::vec![root], alloc::vec![], 2);
        assert_eq!(content.authenticate_by(&mut checker, &us, None, NOW), refused);
        let ours = Address::new(us.service_id, device(2));
        assert_eq!(content.authenticate(&[root], &[], &ours, None, NOW), Ok(us));
    }

    #[test]
    fn a_sender_that_is_no_account_is_not_answered_as_an_address() {
        let us = Address::new(ServiceId::aci([2; 16]), device(1));
        let (content, root) = content_from(ServiceId::pni([1; 16]), None);
        let sender = content.authenticate(&[root], &[], &us, None, NOW);
        assert_eq!(sender, Err(OpenError::NotAnAccount));
    }
}
