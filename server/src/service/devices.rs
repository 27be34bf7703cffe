//! The devices of an account: who they are, what they are called, and how one goes. How one comes is in `linking`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tuckseal::service::{DeviceInfo, DeviceName, Devices as DeviceList};

use super::accounts::{Caller, FIRST_DEVICE};
use super::error::ServiceError;
use super::limits::Budget;
use super::now_ms;
use crate::bus::{Bus, Notice};
use crate::config::Limits;
use crate::metrics;
use crate::storage::{DeviceEntry, Store};

/// Linking, naming and removing devices.
pub struct Devices {
    pub(super) store: Arc<dyn Store>,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) link_ttl_secs: u64,
    pub(super) poll: Duration,
    pub(super) polls: usize,
    pub(super) max_devices: u64,
    pub(super) one_time_prekeys: u64,
    name_bytes: u64,
    /// By account: links, and attempts to use them.
    pub(super) links: Budget<i64>,
    pub(super) attempts: Budget<i64>,
}

impl Devices {
    pub(super) fn new(store: Arc<dyn Store>, bus: Arc<dyn Bus>, limits: &Limits) -> Self {
        Self {
            store,
            bus,
            link_ttl_secs: limits.link_ttl_secs,
            poll: Duration::from_secs(limits.link_poll_secs),
            polls: usize::try_from(limits.link_polls).unwrap_or(usize::MAX),
            max_devices: limits.max_devices,
            one_time_prekeys: limits.one_time_prekeys,
            name_bytes: limits.device_name_bytes,
            links: Budget::new(limits.link_burst, limits.link_per_hour),
            attempts: Budget::new(limits.link_burst, limits.link_per_hour),
        }
    }

    /// The devices of the caller's account.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self, caller: &Caller) -> Result<DeviceList, ServiceError> {
        let devices = self.store.devices(caller.account_row).await?;
        Ok(DeviceList { devices: devices.into_iter().map(info).collect() })
    }

    /// Names a device of the caller's account.
    ///
    /// # Errors
    /// [`ServiceError::NotFirst`], [`ServiceError::Invalid`], [`ServiceError::NotFound`] or the store's.
    pub async fn rename(
        &self,
        caller: &Caller,
        device: u8,
        name: DeviceName,
    ) -> Result<(), ServiceError> {
        may_change(caller, device)?;
        let name = self.checked_name(&name.name)?;
        if self.store.name_device(caller.account_row, device, name).await? {
            Ok(())
        } else {
            Err(ServiceError::NotFound("device"))
        }
    }

    /// Takes a device away from the caller's account. Its token is worth nothing from then on, what waited for it is gone, and its
    /// stream is closed, wherever it is.
    ///
    /// Drive it to its end: dropped after the commit, it leaves the stream to the sweep.
    ///
    /// # Errors
    /// [`ServiceError::NotFirst`], [`ServiceError::FirstStays`], [`ServiceError::NotFound`] or the store's.
    pub async fn remove(&self, caller: &Caller, device: u8) -> Result<(), ServiceError> {
        may_change(caller, device)?;
        if device == FIRST_DEVICE {
            return Err(ServiceError::FirstStays);
        }
        let removed = self.store.remove_device(caller.account_row, device).await?;
        let mailbox = removed.ok_or(ServiceError::NotFound("device"))?;
        metrics::DEVICES_REMOVED.add(1);
        self.bus.remove(mailbox);
        self.bus.elsewhere(None, Notice::Removed(mailbox));
        Ok(())
    }

    /// Forgets links that have expired and budgets that are full again.
    ///
    /// # Errors
    /// The store's.
    pub async fn tidy(&self) -> Result<(), ServiceError> {
        self.links.forget_full();
        self.attempts.forget_full();
        while self.store.purge_links(now_ms()).await? > 0 {}
        Ok(())
    }

    pub(super) fn checked_name(&self, name: &Bytes) -> Result<Bytes, ServiceError> {
        if name.len() as u64 > self.name_bytes {
            return Err(ServiceError::NameTooLong(self.name_bytes));
        }
        // A copy: a slice of the request would keep the whole request in memory.
        Ok(Bytes::copy_from_slice(name))
    }
}

/// The first device may change any, another one itself.
fn may_change(caller: &Caller, device: u8) -> Result<(), ServiceError> {
    let may = caller.device == FIRST_DEVICE || caller.device == device;
    if may { Ok(()) } else { Err(ServiceError::NotFirst) }
}

fn info(entry: DeviceEntry) -> DeviceInfo {
    DeviceInfo {
        device_id: entry.device.into(),
        registration_id: entry.registration_id.into(),
        name: entry.name,
        made_day: u32::try_from(entry.made_day).unwrap_or_default(),
    }
}
