//! Sender certificates: short-lived, by the server key under the trust root.

use bytes::Bytes;
use tuckseal::service::{PushOffer, SenderCertificateAnswer, ServerInfo};
use tuckseal::{DeviceId, IdentityKey, SenderCertificate, SenderFields, ServiceId, Timestamp};

use super::accounts::Caller;
use super::error::ServiceError;
use super::{millis, now_ms};
use crate::config::Limits;
use crate::identity::ServerIdentity;

/// Issues sender certificates and says who the server is.
pub struct Certificates {
    identity: ServerIdentity,
    push: PushOffer,
    ttl_secs: u64,
    max_envelope_bytes: u64,
}

impl Certificates {
    pub(super) fn new(identity: ServerIdentity, push: PushOffer, limits: &Limits) -> Self {
        Self {
            identity,
            push,
            ttl_secs: limits.certificate_ttl_secs,
            max_envelope_bytes: limits.max_envelope_bytes,
        }
    }

    /// What the server is and takes.
    #[must_use]
    pub fn server_info(&self) -> ServerInfo {
        ServerInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            trust_root: Bytes::copy_from_slice(&self.identity.trust_root.serialize()),
            max_envelope_bytes: self.max_envelope_bytes,
            now_ms: now_ms().unsigned_abs(),
            push: Some(self.push.clone()),
        }
    }

    /// A certificate for this device.
    ///
    /// # Errors
    /// None for a caller that the server has authenticated.
    pub fn issue(&self, caller: &Caller) -> Result<SenderCertificateAnswer, ServiceError> {
        let damaged = ServiceError::Invalid("the device's identity is damaged; register again");
        let device_id = DeviceId::new(caller.device).ok_or(ServiceError::NotFound("device"))?;
        let identity_key = IdentityKey::decode(&caller.identity_key).map_err(|_| damaged)?;
        let expires_ms = now_ms().saturating_add(millis(self.ttl_secs)).unsigned_abs();
        let fields = SenderFields {
            service_id: ServiceId::aci(caller.account.0),
            e164: None,
            device_id,
            identity_key,
            expires: Timestamp::from_millis(expires_ms),
        };
        let ServerIdentity { certificate, key, .. } = &self.identity;
        let issued = SenderCertificate::issue(fields, certificate, key, &mut rand::rng());
        Ok(SenderCertificateAnswer {
            certificate: Bytes::copy_from_slice(issued.encode()),
            expires_ms,
        })
    }
}
