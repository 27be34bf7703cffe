//! Rows of what devices are asked for again. One row a device, and a bounded number of them.

use rusqlite::{OptionalExtension, Row};
use tuckseal::{Address, DeviceId, PublicKey, ServiceId, Timestamp};

use super::{ProfileError, Rows, from_sql, to_sql};

/// Devices of which something is known here; those who were quiet for longest go first.
const RETRIES_MAX: i64 = 10_000;

/// What is wanted of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Want {
    Nothing = 0,
    /// Numbers are missing; the session works.
    Missing = 1,
    /// A group message could not be read: its key is missing; the session works.
    Group = 2,
    /// A message could not be read: the session is broken.
    Failed = 3,
    /// The same, and our prekeys cannot be used: we begin the next session.
    FailedAnew = 4,
}

/// Messages of one device that are named in a request; the others are told by their numbers.
const FAILED_MAX: usize = 64;

/// SHA-256 of a session message, first 16 bytes.
pub(crate) type Digest = [u8; 16];

/// Messages that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) digests: Vec<Digest>,
    /// Of the last for which it could be told: the sender compares it with the key that it uses now.
    pub(crate) ratchet_key: Option<PublicKey>,
    /// When the relay took the first.
    pub(crate) server: Timestamp,
}

impl Failed {
    /// Adds later ones.
    pub(crate) fn append(&mut self, later: &Self) {
        self.digests.extend(&later.digests);
        self.digests.truncate(FAILED_MAX);
        self.ratchet_key = later.ratchet_key.or(self.ratchet_key);
    }
}

/// See the table.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    pub(crate) address: Address,
    pub(crate) want: Want,
    pub(crate) failed: Option<Failed>,
    pub(crate) attempts: u32,
    pub(crate) asked: Timestamp,
    pub(crate) not_before: Timestamp,
    pub(crate) answered: Timestamp,
}

const NEVER: Timestamp = Timestamp::from_millis(0);

impl Retry {
    fn none(address: Address) -> Self {
        Self {
            address,
            want: Want::Nothing,
            failed: None,
            attempts: 0,
            asked: NEVER,
            not_before: NEVER,
            answered: NEVER,
        }
    }
}

const COLUMNS: &str = "account, device, want, failed, ratchet_key, failed_ms, attempts, asked_ms, next_ms, answered_ms";

fn read(row: &Row<'_>) -> rusqlite::Result<Retry> {
    let at = |column| row.get(column).map(|ms| Timestamp::from_millis(from_sql(ms)));
    let ratchet_key: Option<Vec<u8>> = row.get(4)?;
    let (digests, server): (Option<Vec<u8>>, _) = (row.get(3)?, at(5)?);
    let digests = digests.map(|bytes| bytes.as_chunks().0.to_vec());
    let ratchet_key = ratchet_key.and_then(|key| PublicKey::decode(&key).ok());
    let device = DeviceId::new(row.get(1)?).unwrap_or(DeviceId::PRIMARY);
    Ok(Retry {
        address: Address::new(ServiceId::aci(row.get(0)?), device),
        want: match row.get::<_, u8>(2)? {
            0 => Want::Nothing,
            1 => Want::Missing,
            2 => Want::Group,
            3 => Want::Failed,
            _ => Want::FailedAnew,
        },
        failed: digests.map(|digests| Failed { digests, ratchet_key, server }),
        attempts: row.get(6)?,
        asked: at(7)?,
        not_before: at(8)?,
        answered: at(9)?,
    })
}

impl Rows<'_> {
    pub(crate) fn retry(self, address: Address) -> Result<Retry, ProfileError> {
        let sql = format!("SELECT {COLUMNS} FROM retry WHERE account = ?1 AND device = ?2");
        let mut statement = self.0.prepare_cached(&sql)?;
        let key = (address.service_id.uuid(), address.device_id.get());
        Ok(statement.query_row(key, read).optional()?.unwrap_or(Retry::none(address)))
    }

    pub(crate) fn save_retry(self, retry: &Retry) -> Result<(), ProfileError> {
        let mut statement = self.0.prepare_cached(
            "INSERT OR REPLACE INTO retry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        let at = |time: Timestamp| to_sql(time.as_millis());
        let failed = retry.failed.as_ref();
        let key = failed.and_then(|failed| failed.ratchet_key);
        statement.execute((
            retry.address.service_id.uuid(),
            retry.address.device_id.get(),
            retry.want as u8,
            failed.map(|failed| failed.digests.concat()),
            key.map(|key| key.serialize()),
            at(failed.map_or(NEVER, |failed| failed.server)),
            retry.attempts,
            at(retry.asked),
            at(retry.not_before),
            at(retry.answered),
        ))?;
        self.0.execute(
            "DELETE FROM retry WHERE (account, device) IN (SELECT account, device FROM retry
             ORDER BY max(asked_ms, answered_ms) DESC LIMIT -1 OFFSET ?1)",
            (RETRIES_MAX,),
        )?;
        Ok(())
    }

    /// A message of this device was read: the next request need not wait longer than the first.
    pub(crate) fn retry_succeeded(self, address: Address) -> Result<(), ProfileError> {
        let mut statement = self.0.prepare_cached(
            "UPDATE retry SET attempts = 0 WHERE account = ?1 AND device = ?2 AND attempts > 0",
        )?;
        statement.execute((address.service_id.uuid(), address.device_id.get()))?;
        Ok(())
    }

    /// A device is no more.
    pub(crate) fn forget_requests(self, address: Address) -> Result<(), ProfileError> {
        let mut statement =
            self.0.prepare_cached("DELETE FROM retry WHERE account = ?1 AND device = ?2")?;
        statement.execute((address.service_id.uuid(), address.device_id.get()))?;
        Ok(())
    }

    /// The request whose time comes first.
    pub(crate) fn next_retry(self) -> Result<Option<Retry>, ProfileError> {
        let sql = format!("SELECT {COLUMNS} FROM retry WHERE want > 0 ORDER BY next_ms LIMIT 1");
        let mut statement = self.0.prepare_cached(&sql)?;
        Ok(statement.query_row((), read).optional()?)
    }
}
