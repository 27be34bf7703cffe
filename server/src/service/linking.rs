//! How an account gets a further device. One that it has opens a link and hands the token of it, with the account's identity key, to the new
//! one by a way of its own; the new one registers with both; the old one waits to be told.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rand::Rng;
use tokio::time::{Instant, timeout_at};
use tuckseal::PublicKey;
use tuckseal::service::{
    DeviceLink, DeviceRegistration, KeysUpload, LinkedDevice, Registered, SignedDevice,
};
use zeroize::Zeroizing;

use super::accounts::{Caller, registration_id, sha256};
use super::devices::Devices;
use super::error::ServiceError;
use super::keys::{Fixed, checked_upload};
use super::{millis, now_ms, today};
use crate::bus::Notice;
use crate::metrics;
use crate::storage::{KeySet, LinkAnswer, LinkRow, Linked, Linking, OpeningLink, StoreError};

/// Before the signed bytes of a further device's registration.
const DEVICE_LABEL: &[u8] = b"tuckseal-device-v1";
/// Whoever waits looks at the store as often, in case a notice was lost.
const LOOK: Duration = Duration::from_secs(5);
/// As many wait already: one of them ends about then.
const POLL_AGAIN: Duration = Duration::from_secs(1);

impl Devices {
    /// Opens a link in place of the one that is open.
    ///
    /// # Errors
    /// [`ServiceError::TooMany`], [`ServiceError::Unauthorised`] if the device has just gone, or the store's.
    pub async fn open_link(&self, caller: &Caller) -> Result<DeviceLink, ServiceError> {
        self.links.spend(&caller.account_row).map_err(ServiceError::TooMany)?;
        let (mut id, mut token) = ([0; 16], Zeroizing::new([0; 32]));
        rand::rng().fill_bytes(&mut id);
        rand::rng().fill_bytes(&mut *token);
        let opening = OpeningLink {
            by: caller.mailbox,
            id,
            token_hash: sha256(&*token),
            expires_ms: now_ms().saturating_add(millis(self.link_ttl_secs)),
        };
        if !self.store.open_link(opening).await? {
            return Err(ServiceError::Unauthorised);
        }
        Ok(DeviceLink {
            id: Bytes::copy_from_slice(&id),
            token: Bytes::copy_from_slice(&*token),
            expires_in_secs: self.link_ttl_secs,
        })
    }

    /// Makes a device of the account that the linking token is of, once the signature proves possession of its identity key. The
    /// same registration again, while the link lives, gives the same device another token: the answer may have been lost.
    ///
    /// Drive it to its end: dropped after the commit, it leaves those who wait for the device to their next look.
    ///
    /// # Errors
    /// [`ServiceError::NoLink`], [`ServiceError::DeviceNotProven`], [`ServiceError::TooManyDevices`], [`ServiceError::TooMany`],
    /// [`ServiceError::Invalid`], [`ServiceError::NameTooLong`] or the store's. The link is as it was.
    pub async fn register(&self, signed: SignedDevice) -> Result<Registered, ServiceError> {
        let registration = DeviceRegistration::decode(signed.registration.clone())
            .map_err(|_| ServiceError::Invalid("it is not a DeviceRegistration message"))?;
        let link: [u8; 32] =
            registration.link_token.as_ref().try_into().map_err(|_| ServiceError::NoLink)?;
        let link = sha256(&link);
        let of = self.store.link_of_token(link, now_ms()).await?.ok_or(ServiceError::NoLink)?;
        self.attempts.spend(&of.account_row).map_err(ServiceError::TooMany)?;
        let name = self.checked_name(&registration.name)?;
        let registration_id = registration_id(registration.registration_id)?;
        let upload = registration.keys.ok_or(ServiceError::Invalid("keys are missing"))?;
        let (digest, max_waiting) = (sha256(&signed.registration), self.one_time_prekeys);
        // Up to 103 signatures: not on a thread that serves sockets.
        let checked = tokio::task::spawn_blocking(move || check(&of, &signed, upload, max_waiting));
        let keys = checked
            .await
            .map_err(|_| ServiceError::Invalid("the registration cannot be checked"))??;
        let mut token = Zeroizing::new([0; 32]);
        rand::rng().fill_bytes(&mut *token);
        let linking = Linking {
            link,
            now_ms: now_ms(),
            registration: digest,
            registration_id,
            name,
            token_hash: sha256(&*token),
            keys,
            max_devices: u32::try_from(self.max_devices).unwrap_or(u32::MAX),
            day: today(),
        };
        let linked = self.link(linking).await?;
        Ok(Registered {
            account: Bytes::copy_from_slice(&linked.account.0),
            device_id: linked.device.into(),
            token: Bytes::copy_from_slice(&*token),
        })
    }

    async fn link(&self, linking: Linking) -> Result<Linked, ServiceError> {
        let linked = match self.store.link_device(linking).await? {
            LinkAnswer::NoLink => return Err(ServiceError::NoLink),
            LinkAnswer::Full => return Err(ServiceError::TooManyDevices(self.max_devices)),
            LinkAnswer::Made(linked) => {
                metrics::DEVICES_LINKED.add(1);
                linked
            }
            LinkAnswer::Renewed(linked, epoch) => {
                // A stream opened with the token of before must not go on.
                self.bus.displace(linked.mailbox, i64::MAX);
                self.bus.elsewhere(None, Notice::Displaced(linked.mailbox, epoch));
                linked
            }
        };
        self.bus.linked(linked.account_row);
        self.bus.elsewhere(None, Notice::Linked(linked.account_row));
        Ok(linked)
    }

    /// The device that a link has made; waits a while for it. None if there is none by then.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] for a link of another account and one that has ended, [`ServiceError::TooMany`] or the store's.
    pub async fn linked(
        &self,
        caller: &Caller,
        id: [u8; 16],
    ) -> Result<Option<LinkedDevice>, ServiceError> {
        // Watched before the first look: what comes between the two is told.
        let watch = self.bus.watch(caller.account_row, self.polls);
        let mut watch = watch.ok_or(ServiceError::TooMany(POLL_AGAIN))?;
        let begun = Instant::now();
        let end = begun.checked_add(self.poll).unwrap_or(begun);
        loop {
            let state = self.store.link(id, now_ms()).await?;
            let state = state.filter(|state| state.account_row == caller.account_row);
            let state = state.ok_or(ServiceError::NotFound("link"))?;
            if let Some(device) = state.device {
                return Ok(Some(LinkedDevice { device_id: device.into() }));
            }
            let now = Instant::now();
            if now >= end {
                return Ok(None);
            }
            // Whether there is news or not: the store knows.
            let look = now.checked_add(LOOK).unwrap_or(end).min(end);
            let _ = timeout_at(look, watch.news()).await;
        }
    }
}

fn check(
    of: &LinkRow,
    signed: &SignedDevice,
    upload: KeysUpload,
    max_waiting: u64,
) -> Result<KeySet, ServiceError> {
    let identity = PublicKey::decode(&of.identity_key).map_err(|_| StoreError::Damaged)?;
    let message = [DEVICE_LABEL, &signed.registration].concat();
    identity
        .verify_signature(&message, &signed.signature)
        .map_err(|_| ServiceError::DeviceNotProven)?;
    checked_upload(upload, &identity, Fixed::Required, max_waiting)
}
