//! W§14. Who signed for a sender: a trust root signs a server key, the server key signs a sender.
//! Decoded certificates keep the bytes that they came in, and are verified over these.
//! Whether the *message* came from the certified sender is the business of `v1.rs`.

use crate::address::{Address, DeviceId, ServiceId, ServiceIdKind, Timestamp};
use crate::crypto::{PrivateKey, PublicKey, VerificationKey};
use crate::identity::IdentityKey;
use crate::wire::sealed_sender as wire;
use crate::wire::{DecodeError, in_field};
use alloc::boxed::Box;
use alloc::string::String;
use bytes::Bytes;
use prost::Message;
use rand_core::CryptoRng;
use wire::sender_certificate::certificate::{SenderUuid, Signer as WireSigner};

/// The one server key id that is withdrawn for good (W§14.3).
const REVOKED_ID: u32 = 0xDEAD_C357;

/// A certificate is well-formed and not acceptable. Drop the message that came with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The signer is named by an id that is not among the known signers.
    #[error("signer {id} is not among the known signers: add its server certificate to them")]
    UnknownSigner {
        /// The id in the sender certificate.
        id: u32,
    },
    /// The signer's key was withdrawn.
    #[error("signer {id} is revoked")]
    RevokedSigner {
        /// The id in the server certificate.
        id: u32,
    },
    /// No trust root signed the server certificate.
    #[error("no trust root signed the server certificate")]
    UntrustedSigner,
    /// The server key did not sign the sender certificate.
    #[error("the server key did not sign the sender certificate")]
    Signature,
    /// The time is past the last millisecond of the certificate.
    #[error("the sender certificate ended at {} ms: its owner must fetch a new one", expires.as_millis())]
    Expired {
        /// The last millisecond at which it was valid.
        expires: Timestamp,
    },
}

/// The two layers of both kinds: the signed part, and the signature beside it.
#[derive(Clone, PartialEq, Eq)]
struct Signed {
    encoded: Bytes,
    body: Bytes,
    /// Of any length: a wrong one is found when it is verified.
    signature: Bytes,
}

impl Signed {
    fn issue(body: Bytes, key: &PrivateKey, rng: &mut impl CryptoRng) -> Self {
        let signature = Bytes::copy_from_slice(&key.sign(&body, rng));
        // Both kinds have this outer shape.
        let outer = wire::ServerCertificate {
            certificate: Some(body.clone()),
            signature: Some(signature.clone()),
        };
        Self { encoded: outer.encode_to_vec().into(), body, signature }
    }

    fn decode(encoded: Bytes) -> Result<Self, DecodeError> {
        let outer = wire::ServerCertificate::decode(encoded.clone())?;
        let body = outer.certificate.ok_or(DecodeError::Missing { field: "certificate" })?;
        let signature = outer.signature.ok_or(DecodeError::Missing { field: "signature" })?;
        Ok(Self { encoded, body, signature })
    }

    fn is_signed_by(&self, key: &mut VerificationKey) -> bool {
        key.verify(&self.body, &self.signature).is_ok()
    }
}

/// A server key, signed by a trust root (W§14.1).
///
/// ```text
/// 1 certificate { 1 id: u32 · 2 key: 33 bytes } · 2 signature: 64 bytes over the certificate's bytes
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    signed: Signed,
    id: u32,
    key: PublicKey,
}

impl ServerCertificate {
    /// Signs a server key with a trust root's private key. Draws 64 bytes.
    pub fn issue(
        id: u32,
        key: &PublicKey,
        trust_root: &PrivateKey,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let body = wire::server_certificate::Certificate {
            id: Some(id),
            key: Some(Bytes::copy_from_slice(&key.serialize())),
        };
        let signed = Signed::issue(body.encode_to_vec().into(), trust_root, rng);
        Self { signed, id, key: *key }
    }

    /// Reads a certificate. That it decodes says nothing about who signed it.
    ///
    /// # Errors
    /// [`DecodeError`] when a part is missing or malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::from_bytes(Bytes::copy_from_slice(bytes))
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let signed = Signed::decode(bytes)?;
        let body = wire::server_certificate::Certificate::decode(signed.body.clone())?;
        let id = body.id.ok_or(DecodeError::Missing { field: "id" })?;
        let key = body.key.ok_or(DecodeError::Missing { field: "key" })?;
        let key = PublicKey::decode(&key).map_err(in_field("key"))?;
        Ok(Self { signed, id, key })
    }

    /// The bytes, as they came or were issued.
    pub fn encode(&self) -> &[u8] {
        &self.signed.encoded
    }

    /// The number by which sender certificates may name this one.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The server's public key.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Checks that it is not revoked and that one of the trust roots signed it (W§14.3, step 2).
    ///
    /// # Errors
    /// [`CertificateError::RevokedSigner`] or [`CertificateError::UntrustedSigner`].
    pub fn validate(&self, trust_roots: &[PublicKey]) -> Result<(), CertificateError> {
        if self.id == REVOKED_ID {
            return Err(CertificateError::RevokedSigner { id: self.id });
        }
        // Every root is tried, so that time does not tell which of them signed.
        let trusted = trust_roots.iter().fold(false, |any, root| any | self.is_signed_by(root));
        if trusted { Ok(()) } else { Err(CertificateError::UntrustedSigner) }
    }

    fn is_signed_by(&self, root: &PublicKey) -> bool {
        self.signed.is_signed_by(&mut VerificationKey::new(*root))
    }
}

impl core::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ServerCertificate").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a server certifies of a sender.
#[derive(Clone, PartialEq, Eq)]
pub struct SenderFields {
    /// The account.
    pub service_id: ServiceId,
    /// Its phone number, when recipients shall learn it.
    pub e164: Option<String>,
    /// Its device.
    pub device_id: DeviceId,
    /// Its identity key.
    pub identity_key: IdentityKey,
    /// The last millisecond at which the certificate is valid.
    pub expires: Timestamp,
}

#[derive(Clone, PartialEq, Eq)]
enum Signer {
    /// Boxed: a certificate is larger than all the other fields.
    Embedded(Box<ServerCertificate>),
    ById(u32),
}

/// An account, its device and its identity key, signed by a server (W§14.2).
///
/// ```text
/// 1 certificate { 1 e164: text? · 2 device: 1..=127 · 3 expires: fixed64, milliseconds
///               · 4 identity key: 33 bytes · 5 server certificate or 8 its id: u32
///               · 6 uuid: text or 7 uuid: 16 bytes }
/// 2 signature: 64 bytes over the certificate's bytes
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SenderCertificate {
    signed: Signed,
    signer: Signer,
    sender_text: String,
    e164: Option<String>,
    device_id: DeviceId,
    identity_key: IdentityKey,
    expires: Timestamp,
}

impl SenderCertificate {
    /// Signs for a sender with the private half of `server`'s key. Draws 64 bytes.
    ///
    /// `server_key` must be that private half; with any other the certificate is valid nowhere.
    /// The server certificate is written in full, the account as text (W§14.2).
    pub fn issue(
        fields: SenderFields,
        server: &ServerCertificate,
        server_key: &PrivateKey,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let SenderFields { service_id, e164, device_id, identity_key, expires } = fields;
        let sender_text = String::from(service_id);
        let body = wire::sender_certificate::Certificate {
            sender_e164: e164.clone(),
            sender_device: Some(device_id.get().into()),
            expires: Some(expires.as_millis()),
            identity_key: Some(Bytes::copy_from_slice(&identity_key.serialize())),
            signer: Some(WireSigner::Certificate(server.signed.encoded.clone())),
            sender_uuid: Some(SenderUuid::UuidString(sender_text.clone())),
        };
        let signed = Signed::issue(body.encode_to_vec().into(), server_key, rng);
        let signer = Signer::Embedded(Box::new(server.clone()));
        Self { signed, signer, sender_text, e164, device_id, identity_key, expires }
    }

    /// Reads a certificate. That it decodes says nothing about who signed it:
    /// [`SenderCertificate::validate`] does.
    ///
    /// # Errors
    /// [`DecodeError`] when a part, the embedded server certificate included, is missing or
    /// malformed (X8). Text of any kind is taken for the account.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::from_bytes(Bytes::copy_from_slice(bytes))
    }

    pub(crate) fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let missing = |field| DecodeError::Missing { field };
        let signed = Signed::decode(bytes)?;
        let body = wire::sender_certificate::Certificate::decode(signed.body.clone())?;
        let device_id = body.sender_device.ok_or(missing("sender_device"))?;
        let device_id = DeviceId::try_from(device_id)
            .map_err(|_| DecodeError::Field { field: "sender_device" })?;
        let expires = body.expires.map(Timestamp::from_millis).ok_or(missing("expires"))?;
        let identity_key = body.identity_key.ok_or(missing("identity_key"))?;
        let identity_key = IdentityKey::decode(&identity_key).map_err(in_field("identity_key"))?;
        let sender_text = decode_sender(body.sender_uuid.ok_or(missing("sender_uuid"))?)?;
        let signer = match body.signer.ok_or(missing("signer"))? {
            WireSigner::Certificate(bytes) => {
                Signer::Embedded(Box::new(ServerCertificate::from_bytes(bytes)?))
            }
            WireSigner::Id(id) => Signer::ById(id),
        };
        let e164 = body.sender_e164;
        Ok(Self { signed, signer, sender_text, e164, device_id, identity_key, expires })
    }

    /// The bytes, as they came or were issued.
    pub fn encode(&self) -> &[u8] {
        &self.signed.encoded
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        self.signed.encoded.clone()
    }

    /// The account, in the very text of the certificate: any text, not only a service id.
    pub fn sender_text(&self) -> &str {
        &self.sender_text
    }

    /// The sending device, if the text is that of an account id.
    pub fn sender(&self) -> Option<Address> {
        let id: ServiceId = self.sender_text.parse().ok()?;
        (id.kind() == ServiceIdKind::Aci).then(|| Address::new(id, self.device_id))
    }

    /// The phone number, if one is certified.
    pub fn e164(&self) -> Option<&str> {
        self.e164.as_deref()
    }

    /// The sender's device.
    pub const fn device_id(&self) -> DeviceId {
        self.device_id
    }

    /// The last millisecond at which it is valid.
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The sender's identity key.
    pub const fn identity_key(&self) -> &IdentityKey {
        &self.identity_key
    }

    /// Whether the certificate holds at `now` under one of the trust roots (W§14.3).
    ///
    /// `known_signers` are the server certificates that senders may name by id. They give no trust:
    /// one of the roots must have signed the one that is used.
    ///
    /// # Errors
    /// [`CertificateError`]: the first of signer unknown, revoked or untrusted, signature wrong,
    /// time past.
    pub fn validate(
        &self,
        trust_roots: &[PublicKey],
        known_signers: &[ServerCertificate],
        now: Timestamp,
    ) -> Result<(), CertificateError> {
        let signer = self.signer(known_signers)?;
        signer.validate(trust_roots)?;
        self.check_signature(&mut VerificationKey::new(*signer.key()))?;
        self.check_time(now)
    }

    /// Step 1: who signed.
    pub(super) fn signer<'a>(
        &'a self,
        known_signers: &'a [ServerCertificate],
    ) -> Result<&'a ServerCertificate, CertificateError> {
        match &self.signer {
            Signer::Embedded(signer) => Ok(signer),
            Signer::ById(id) => known_signers
                .iter()
                .find(|known| known.id == *id)
                .ok_or(CertificateError::UnknownSigner { id: *id }),
        }
    }

    /// Step 3: that the signer did.
    pub(super) fn check_signature(
        &self,
        signer: &mut VerificationKey,
    ) -> Result<(), CertificateError> {
        if self.signed.is_signed_by(signer) { Ok(()) } else { Err(CertificateError::Signature) }
    }

    /// Step 4: that the time is not past.
    pub(super) fn check_time(&self, now: Timestamp) -> Result<(), CertificateError> {
        if now > self.expires {
            return Err(CertificateError::Expired { expires: self.expires });
        }
        Ok(())
    }
}

fn decode_sender(sender: SenderUuid) -> Result<String, DecodeError> {
    match sender {
        SenderUuid::UuidString(text) => Ok(text),
        SenderUuid::UuidBytes(bytes) => bytes
            .as_ref()
            .try_into()
            .map(|uuid| ServiceId::aci(uuid).into())
            .map_err(|_| DecodeError::Field { field: "sender_uuid" }),
    }
}

impl core::fmt::Debug for SenderCertificate {
    /// Names nobody: an error or a log line may hold a certificate.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SenderCertificate").field("expires", &self.expires).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KeyPair;
    use crate::sealed::CertificateChecker;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    struct Authority {
        root: KeyPair,
        key: KeyPair,
        rng: ChaCha20Rng,
    }

    const END: Timestamp = Timestamp::from_millis(1000);

    impl Authority {
        fn new(seed: u8) -> Self {
            let mut rng = ChaCha20Rng::from_seed([seed; 32]);
            Self { root: KeyPair::generate(&mut rng), key: KeyPair::generate(&mut rng), rng }
        }

        fn server(&mut self, id: u32) -> ServerCertificate {
            let Self { root, key, rng } = self;
            ServerCertificate::issue(id, key.public(), root.private(), rng)
        }

        fn sender(&mut self, server: &ServerCertificate) -> SenderCertificate {
            let fields = SenderFields {
                service_id: ServiceId::aci([7; 16]),
                e164: Some("+15550100".into()),
                device_id: DeviceId::PRIMARY,
                identity_key: IdentityKey::new(*self.key.public()),
                expires: END,
            };
            SenderCertificate::issue(fields, server, self.key.private(), &mut self.rng)
        }
    }

    #[test]
    fn an_issued_certificate_decodes_to_itself_and_holds_to_its_last_millisecond() {
        let mut authority = Authority::new(1);
        let server = authority.server(9);
        let sender = authority.sender(&server);
        let decoded = SenderCertificate::decode(sender.encode()).unwrap();
        assert!(decoded == sender);
        assert!(ServerCertificate::decode(server.encode()).unwrap() == server);
        assert_eq!(
            decoded.sender(),
            Some(Address::new(ServiceId::aci([7; 16]), DeviceId::PRIMARY))
        );
        // The right root counts wherever it stands in the list.
        let other = *Authority::new(2).root.public();
        let roots = [other, *authority.root.public(), other];
        assert_eq!(decoded.validate(&roots, &[], END), Ok(()));
        let late = Timestamp::from_millis(1001);
        assert_eq!(
            decoded.validate(&roots, &[], late),
            Err(CertificateError::Expired { expires: END })
        );
    }

    #[test]
    fn foreign_roots_foreign_keys_and_revoked_ids_are_told_apart() {
        let mut authority = Authority::new(3);
        let root = *authority.root.public();
        let server = authority.server(9);
        let good = authority.sender(&server);
        assert_eq!(good.validate(&[], &[], END), Err(CertificateError::UntrustedSigner));

        let revoked = authority.server(REVOKED_ID);
        assert_eq!(
            authority.sender(&revoked).validate(&[root], &[], END),
            Err(CertificateError::RevokedSigner { id: REVOKED_ID })
        );
        // Signed with a key that is not the one in the server certificate.
        let mut forger = Authority::new(4);
        assert_eq!(
            forger.sender(&server).validate(&[root], &[], END),
            Err(CertificateError::Signature)
        );
    }

    #[test]
    fn a_checker_says_what_validation_says_the_first_time_and_again() {
        let mut authority = Authority::new(5);
        let root = *authority.root.public();
        let server = authority.server(9);
        let revoked = authority.server(REVOKED_ID);
        let foreign = Authority::new(6).server(9);
        let mut forger = Authority::new(7);
        let certificates = [
            authority.sender(&server),
            authority.sender(&server),
            authority.sender(&revoked),
            authority.sender(&foreign),
            forger.sender(&server),
        ];
        let mut checker = CertificateChecker::new(alloc::vec![root], alloc::vec![], 10);
        let late = Timestamp::from_millis(1001);
        for now in [END, late, END, late] {
            for certificate in &certificates {
                let expected = certificate.validate(&[root], &[], now);
                assert_eq!(checker.check(certificate, now), expected);
            }
        }
        assert_eq!(checker.remembered(), 2);
        // The same certificates under other roots.
        let other = *forger.root.public();
        let mut checker = CertificateChecker::new(alloc::vec![other], alloc::vec![], 10);
        for certificate in &certificates[..2] {
            let untrusted = Err(CertificateError::UntrustedSigner);
            assert_eq!(checker.check(certificate, END), untrusted);
        }
        assert_eq!(checker.remembered(), 0);
    }

    #[test]
    fn a_checker_remembers_no_more_than_it_may() {
        let mut authority = Authority::new(8);
        let server = authority.server(9);
        let roots = alloc::vec![*authority.root.public()];
        let mut checker = CertificateChecker::new(roots, alloc::vec![], 4);
        for _ in 0..10 {
            let certificate = authority.sender(&server);
            assert_eq!(checker.check(&certificate, END), Ok(()));
            assert!(checker.remembered() <= 4);
        }
    }

    /// A certificate that held, with one byte of it changed, is another one.
    #[test]
    fn what_is_remembered_is_every_byte_of_a_certificate() {
        let mut authority = Authority::new(9);
        let server = authority.server(9);
        let root = *authority.root.public();
        let good = authority.sender(&server);
        let mut checker = CertificateChecker::new(alloc::vec![root], alloc::vec![], 4);
        assert_eq!(checker.check(&good, END), Ok(()));
        for place in 0..good.encode().len() {
            let mut bytes = good.encode().to_vec();
            bytes[place] ^= 1;
            if let Ok(changed) = SenderCertificate::decode(&bytes) {
                assert!(checker.check(&changed, END).is_err(), "byte {place}");
            }
        }
    }
}
