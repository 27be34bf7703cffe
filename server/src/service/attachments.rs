//! Attachments: capabilities that the relay signs, sizes, times. What is in them is sealed by the clients.
//!
//! ```text
//! capability = kind (1) || id (16) || expires, ms (8) || size (8) || HMAC-SHA-256, cut (16)    base64url
//! ```
//! The uploader alone gets the one to upload with; the one to download with goes to the recipients, sealed.

use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tuckseal::service::AttachmentSlot;
use zeroize::Zeroizing;

use super::accounts::Caller;
use super::error::ServiceError;
use super::hooks::Hooks;
use super::limits::Budget;
use super::{millis, now_ms};
use crate::config::Limits;
use crate::identity::ServerIdentity;
use crate::storage::{AttachmentName, AttachmentStore, MailboxId, Stored, Upload, Uploaded};

const SIGNED_LEN: usize = 33;
const CAPABILITY_LEN: usize = 49;
/// Where they are.
const PATH: &str = "/v1/attachments/";

/// What a capability is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentUse {
    /// Upload, see how far it has come, give up.
    Upload,
    /// Read.
    Download,
}

/// A capability whose signature and time are good.
#[derive(Debug, Clone, Copy)]
pub struct Capability {
    /// What it is for.
    pub right: AttachmentUse,
    /// Which attachment.
    pub name: AttachmentName,
}

/// The attachment store of the relay.
pub struct Attachments {
    store: AttachmentStore,
    secret: Zeroizing<[u8; 32]>,
    /// Largest attachment, in bytes.
    pub max_bytes: u64,
    ttl_ms: i64,
    budget: Budget<MailboxId>,
    hooks: Hooks,
}

impl Attachments {
    pub(super) fn new(
        store: AttachmentStore,
        hooks: Hooks,
        identity: &ServerIdentity,
        limits: &Limits,
    ) -> Self {
        Self {
            store,
            secret: identity.attachment_secret(),
            max_bytes: limits.max_attachment_bytes,
            ttl_ms: millis(limits.attachment_ttl_secs),
            budget: Budget::new(limits.attachment_burst_kib, limits.attachment_kib_per_hour),
            hooks,
        }
    }

    /// Room for an attachment of so many bytes.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`], [`ServiceError::TooLarge`], [`ServiceError::TooMany`], the hook's or the store's.
    pub async fn create(&self, caller: &Caller, size: u64) -> Result<AttachmentSlot, ServiceError> {
        if size == 0 {
            return Err(ServiceError::Invalid("an attachment has at least 1 byte"));
        }
        if size > self.max_bytes {
            return Err(ServiceError::AttachmentTooLarge(self.max_bytes));
        }
        let kib = u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX);
        self.budget.spend_many(&caller.mailbox, kib).map_err(ServiceError::TooMany)?;
        self.hooks.upload(caller.account, size).await?;
        let mut id = [0; 16];
        rand::rng().fill_bytes(&mut id);
        let name = AttachmentName { id, expires_ms: now_ms().saturating_add(self.ttl_ms), size };
        self.store.create(name).await.map_err(ServiceError::Files)?;
        let path = |right| format!("{PATH}{}", self.sign(Capability { right, name }));
        Ok(AttachmentSlot {
            upload: path(AttachmentUse::Upload),
            download: path(AttachmentUse::Download),
            expires_ms: name.expires_ms.unsigned_abs(),
        })
    }

    /// The capability that a text stands for.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], whatever is wrong with it.
    pub fn capability(&self, text: &str) -> Result<Capability, ServiceError> {
        let capability = self.verified(text).filter(|known| now_ms() < known.name.expires_ms);
        capability.ok_or(ServiceError::NotFound("attachment"))
    }

    /// How far an upload has come, in bytes.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] or the store's.
    pub async fn offset(&self, capability: Capability) -> Result<u64, ServiceError> {
        match self.store.uploaded(capability.name).await.map_err(refused)? {
            Uploaded::Part(bytes) | Uploaded::Whole(bytes) => Ok(bytes),
        }
    }

    /// Goes on with an upload; also says how far it has come.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::UploadBusy`], [`ServiceError::TooManyPieces`] or the store's.
    pub async fn resume(&self, capability: Capability) -> Result<(Upload, u64), ServiceError> {
        self.store.resume(capability.name).await.map_err(refused)
    }

    /// An attachment that is whole.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] or the store's.
    pub async fn open(&self, capability: Capability) -> Result<Stored, ServiceError> {
        self.store.open(capability.name).await.map_err(refused)
    }

    /// Forgets it.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] or the store's.
    pub async fn remove(&self, capability: Capability) -> Result<(), ServiceError> {
        self.store.remove(capability.name).await.map_err(refused)
    }

    /// Drops what has expired.
    ///
    /// # Errors
    /// The store's.
    pub async fn purge(&self) -> Result<(), ServiceError> {
        self.budget.forget_full();
        self.store.purge(now_ms()).await.map(drop).map_err(ServiceError::Files)
    }

    fn sign(&self, capability: Capability) -> String {
        let Capability { right, name } = capability;
        let kind = match right {
            AttachmentUse::Upload => 1,
            AttachmentUse::Download => 2,
        };
        let (expires, size) = (name.expires_ms.to_be_bytes(), name.size.to_be_bytes());
        let signed = [&[kind], &name.id[..], &expires, &size].concat();
        let mac = self.mac(&signed);
        URL_SAFE_NO_PAD.encode([&signed[..], &mac].concat())
    }

    fn verified(&self, text: &str) -> Option<Capability> {
        let bytes: [u8; CAPABILITY_LEN] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (signed, mac) = bytes.split_at_checked(SIGNED_LEN)?;
        if !bool::from(self.mac(signed).ct_eq(mac)) {
            return None;
        }
        let (kind, rest) = signed.split_first()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (expires, size) = rest.split_first_chunk()?;
        let right = match kind {
            1 => AttachmentUse::Upload,
            2 => AttachmentUse::Download,
            _ => return None,
        };
        let (expires_ms, size) =
            (i64::from_be_bytes(*expires), u64::from_be_bytes(size.try_into().ok()?));
        Some(Capability { right, name: AttachmentName { id: *id, expires_ms, size } })
    }

    fn mac(&self, message: &[u8]) -> [u8; 16] {
        // HMAC takes a key of any length; 32 bytes never fail.
        let keyed = Hmac::<Sha256>::new_from_slice(&*self.secret);
        let mac = keyed.map(|keyed| keyed.chain_update(message).finalize().into_bytes());
        let mac: [u8; 32] = mac.map(Into::into).unwrap_or_default();
        mac.first_chunk().copied().unwrap_or_default()
    }
}

/// What the store says, for the caller.
pub(crate) fn refused(error: io::Error) -> ServiceError {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => ServiceError::TooManyPieces,
        io::ErrorKind::NotFound => ServiceError::NotFound("attachment"),
        io::ErrorKind::WouldBlock => ServiceError::UploadBusy(Duration::from_secs(1)),
        _ => ServiceError::Files(error),
    }
}
