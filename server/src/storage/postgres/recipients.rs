//! Which mailboxes a submission is for, and whether its sender may.

use std::collections::{HashMap, HashSet};

use subtle::ConstantTimeEq;
use tokio_postgres::Row;

use super::row::{bytes, small};
use crate::storage::{Append, AppendAnswer, Authority, MailboxId, Mismatch, Recipient, StoreError};

/// Takes the ids that `wanted` gives.
pub(super) const ACCOUNTS: &str = "SELECT a.aci, a.access_hash, d.id, d.device, d.registration_id FROM account a \
     LEFT JOIN device d ON d.account = a.id WHERE a.aci = ANY($1) ORDER BY d.device";

struct Device {
    mailbox: MailboxId,
    device: u8,
    registration_id: u32,
}

struct Account {
    access_hash: [u8; 32],
    devices: Vec<Device>,
}

/// Accounts by their public id.
pub(super) struct Accounts(HashMap<[u8; 16], Account>);

/// The accounts of all recipients, each once.
pub(super) fn wanted(batch: &[Append]) -> Vec<&[u8]> {
    let recipients = batch.iter().flat_map(|new| &new.recipients);
    let wanted: HashSet<&[u8]> = recipients.map(|to| &to.account.0[..]).collect();
    wanted.into_iter().collect()
}

/// The accounts of these rows, with their devices in order.
pub(super) fn accounts(rows: Vec<Row>) -> Result<Accounts, StoreError> {
    let mut accounts = HashMap::with_capacity(rows.len());
    for row in rows {
        let access_hash = bytes(&row, 1)?;
        let account = accounts
            .entry(bytes(&row, 0)?)
            .or_insert_with(|| Account { access_hash, devices: Vec::new() });
        if let Some(mailbox) = row.try_get(2)? {
            account.devices.push(Device {
                mailbox: MailboxId(mailbox),
                device: small(row.try_get::<_, i16>(3)?)?,
                registration_id: small(row.try_get::<_, i32>(4)?)?,
            });
        }
    }
    Ok(Accounts(accounts))
}

/// The mailboxes of the messages, if the sender may and the devices are those of the account. An unknown account and
/// a wrong key take the same way to the same answer.
pub(super) fn plan(accounts: &Accounts, to: &Recipient) -> Result<Vec<MailboxId>, AppendAnswer> {
    let found = accounts.0.get(&to.account.0);
    let account = match to.authority {
        Authority::Token => found.ok_or(AppendAnswer::UnknownAccount)?,
        Authority::AccessHash(shown) => {
            let hash = found.map_or([0; 32], |account| account.access_hash);
            let equal: bool = shown.ct_eq(&hash).into();
            found.filter(|_| equal).ok_or(AppendAnswer::Unauthorised)?
        }
    };
    let mut mismatch = Mismatch::default();
    let mut mailboxes = Vec::with_capacity(to.messages.len());
    for message in &to.messages {
        match account.devices.iter().find(|device| device.device == message.device) {
            None => mismatch.extra.push(message.device),
            Some(device) if device.registration_id != message.registration_id => {
                mismatch.stale.push(message.device);
            }
            Some(device) => mailboxes.push(device.mailbox),
        }
    }
    let named = |device: &&Device| to.messages.iter().any(|m| m.device == device.device);
    mismatch.missing =
        account.devices.iter().filter(|d| !named(d)).map(|device| device.device).collect();
    if mismatch == Mismatch::default() {
        Ok(mailboxes)
    } else {
        Err(AppendAnswer::Mismatch(mismatch))
    }
}
