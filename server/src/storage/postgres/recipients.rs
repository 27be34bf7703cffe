//! Which mailboxes a submission is for, and whether its sender may.
//!
//! What was looked up is remembered, so that a batch need not ask again. It may be out of date: each registration, and each device
//! that is linked or removed, counts the generation of the account's mailboxes up, and nothing is placed in a mailbox of another generation than was planned
//! with (`place`). Nothing is refused by what is remembered.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deadpool_postgres::Object;
use lru::LruCache;
use subtle::ConstantTimeEq;

use super::row::{bytes, small};
use crate::storage::{AppendAnswer, Authority, MailboxId, Mismatch, Recipient, StoreError};

/// Accounts that are remembered: about 15 MB.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

const ACCOUNTS: &str = "SELECT a.aci, a.access_hash, d.id, m.generation, d.device, d.registration_id FROM account a \
     LEFT JOIN device d ON d.account = a.id LEFT JOIN mailbox m ON m.device = d.id \
     WHERE a.aci = ANY($1) ORDER BY d.device";

struct Device {
    target: Target,
    device: u8,
    registration_id: u32,
}

struct Account {
    access_hash: [u8; 32],
    devices: Vec<Device>,
}

/// A mailbox, and the generation that it had.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) mailbox: MailboxId,
    pub(super) generation: i64,
}

/// Where the messages for a recipient go, one mailbox each, or why they do not.
pub(super) type Plan = Result<Vec<Target>, AppendAnswer>;

type Found = HashMap<[u8; 16], Arc<Account>>;

/// The accounts that were asked for last, by their public id.
pub(super) struct Accounts(Mutex<LruCache<[u8; 16], Arc<Account>>>);

impl Accounts {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }

    /// The plans for these recipients, in order.
    pub(super) async fn plans(
        &self,
        db: &Object,
        recipients: &[&Recipient],
    ) -> Result<Vec<Plan>, StoreError> {
        let mut plans = self.remembered(recipients);
        let doubtful = plans.iter().zip(recipients).filter(|(plan, _)| is_doubtful(plan));
        let doubtful: HashSet<&[u8]> = doubtful.map(|(_, to)| &to.account.0[..]).collect();
        if doubtful.is_empty() {
            return Ok(plans);
        }
        let found = look_up(db, doubtful.into_iter().collect()).await?;
        for (known, to) in plans.iter_mut().zip(recipients).filter(|(known, _)| is_doubtful(known))
        {
            *known = plan(found.get(&to.account.0).map(|account| &**account), to);
        }
        let mut known = self.lock();
        for (aci, account) in found {
            known.put(aci, account);
        }
        Ok(plans)
    }

    /// Something of these recipients has changed.
    pub(super) fn forget<'a>(&self, recipients: impl IntoIterator<Item = &'a Recipient>) {
        let mut known = self.lock();
        for to in recipients {
            known.pop(&to.account.0);
        }
    }

    fn remembered(&self, recipients: &[&Recipient]) -> Vec<Plan> {
        let mut known = self.lock();
        recipients
            .iter()
            .map(|to| plan(known.get(&to.account.0).map(|known| &**known), to))
            .collect()
    }

    /// The map is whole between statements, so a poisoned lock does no harm.
    fn lock(&self) -> MutexGuard<'_, LruCache<[u8; 16], Arc<Account>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing is refused by what is remembered, and where there is no mailbox there is no generation that could be another.
fn is_doubtful(plan: &Plan) -> bool {
    plan.as_ref().map_or(true, Vec::is_empty)
}

/// The accounts with these ids, with their devices in order.
async fn look_up(db: &Object, wanted: Vec<&[u8]>) -> Result<Found, StoreError> {
    let rows = db.query(&db.prepare_cached(ACCOUNTS).await?, &[&wanted]).await?;
    let mut accounts: HashMap<[u8; 16], Account> = HashMap::with_capacity(wanted.len());
    for row in rows {
        let access_hash = bytes(&row, 1)?;
        let account = accounts
            .entry(bytes(&row, 0)?)
            .or_insert_with(|| Account { access_hash, devices: Vec::new() });
        if let Some(mailbox) = row.try_get(2)? {
            account.devices.push(Device {
                target: Target { mailbox: MailboxId(mailbox), generation: row.try_get(3)? },
                device: small(row.try_get::<_, i16>(4)?)?,
                registration_id: small(row.try_get::<_, i32>(5)?)?,
            });
        }
    }
    Ok(accounts.into_iter().map(|(aci, account)| (aci, Arc::new(account))).collect())
}

/// The mailboxes of the messages, if the sender may and the devices are those of the account. An unknown account and
/// a wrong key take the same way to the same answer.
fn plan(found: Option<&Account>, to: &Recipient) -> Plan {
    let account = match to.authority {
        Authority::Token | Authority::Own(_) => found.ok_or(AppendAnswer::UnknownAccount)?,
        Authority::AccessHash(shown) => {
            let hash = found.map_or([0; 32], |account| account.access_hash);
            let equal: bool = shown.ct_eq(&hash).into();
            found.filter(|_| equal).ok_or(AppendAnswer::Unauthorised)?
        }
    };
    let mut mismatch = Mismatch::default();
    let mut targets = Vec::with_capacity(to.messages.len());
    let devices = || account.devices.iter().filter(|it| !to.authority.is_own(it.device));
    for message in &to.messages {
        match devices().find(|device| device.device == message.device) {
            None => mismatch.extra.push(message.device),
            Some(device) if device.registration_id != message.registration_id => {
                mismatch.stale.push(message.device);
            }
            Some(device) => targets.push(device.target),
        }
    }
    let named = |device: &&Device| to.messages.iter().any(|m| m.device == device.device);
    mismatch.missing = devices().filter(|d| !named(d)).map(|device| device.device).collect();
    if mismatch == Mismatch::default() {
        Ok(targets)
    } else {
        Err(AppendAnswer::Mismatch(mismatch))
    }
}
