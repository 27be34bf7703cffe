//! Rows about others: accounts, their identity keys, their devices with the sessions.

use rusqlite::{OptionalExtension, Row};
use tuckseal::{Address, DeviceId, IdentityKey, ServiceId, SessionRecord};

use super::profile::read_identity;
use super::{ProfileError, Rows, from_sql, to_sql};

/// What we know of an account.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) account: ServiceId,
    /// The server gave us the account for this name.
    pub(crate) username: Option<String>,
    /// What they call themselves.
    pub(crate) claimed_name: Option<String>,
    /// The key that is trusted.
    pub(crate) identity: Option<IdentityKey>,
    /// Another key that turned up.
    pub(crate) offered: Option<IdentityKey>,
    pub(crate) decision: Decision,
    pub(crate) access_key: Option<[u8; 16]>,
    /// Somebody has compared the safety number.
    pub(crate) verified: bool,
}

/// What the app has said to [`Peer::offered`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// There is nothing to decide.
    None = 0,
    /// It was asked.
    Awaited = 1,
    /// Not this key.
    Rejected = 2,
}

/// One device of a peer.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) address: Address,
    /// As the session knows it.
    pub(crate) registration_id: u32,
    pub(crate) session: SessionRecord,
    /// The stream of what we send it; 0: none was begun.
    pub(crate) sent_stream: u64,
    /// Sequence number of the last message for it.
    pub(crate) sent: u64,
    /// The stream of what it sends us; 0: nothing has come.
    pub(crate) next_stream: u64,
    /// Sequence number that we expect from it.
    pub(crate) next: u64,
}

impl Peer {
    pub(crate) fn unknown(account: ServiceId) -> Self {
        Self {
            account,
            username: None,
            claimed_name: None,
            identity: None,
            offered: None,
            decision: Decision::None,
            access_key: None,
            verified: false,
        }
    }
}

impl Device {
    pub(crate) fn unknown(address: Address) -> Self {
        Self {
            address,
            registration_id: 0,
            session: SessionRecord::new(),
            sent_stream: 0,
            sent: 0,
            next_stream: 0,
            next: 1,
        }
    }
}

const PEER_COLUMNS: &str =
    "account, username, claimed_name, identity, offered, decision, access_key, verified";
const DEVICE_COLUMNS: &str =
    "device, registration_id, session, sent_stream, sent, next_stream, next";

fn read_peer(row: &Row<'_>) -> Result<Peer, ProfileError> {
    let key = |column| -> Result<Option<IdentityKey>, ProfileError> {
        let bytes: Option<Vec<u8>> = row.get(column)?;
        bytes.map(|bytes| read_identity(&bytes)).transpose()
    };
    Ok(Peer {
        account: ServiceId::aci(row.get(0)?),
        username: row.get(1)?,
        claimed_name: row.get(2)?,
        identity: key(3)?,
        offered: key(4)?,
        decision: match row.get::<_, u8>(5)? {
            0 => Decision::None,
            1 => Decision::Awaited,
            _ => Decision::Rejected,
        },
        access_key: row.get(6)?,
        verified: row.get(7)?,
    })
}

fn read_device(account: ServiceId, row: &Row<'_>) -> Result<Device, ProfileError> {
    let damaged = |what| ProfileError::Damaged { what };
    let device = DeviceId::new(row.get(0)?).ok_or(damaged("device"))?;
    let session: zeroize::Zeroizing<Vec<u8>> = row.get(2).map(zeroize::Zeroizing::new)?;
    Ok(Device {
        address: Address::new(account, device),
        registration_id: row.get(1)?,
        session: SessionRecord::decode(&session).map_err(|_| damaged("session"))?,
        sent_stream: from_sql(row.get(3)?),
        sent: from_sql(row.get(4)?),
        next_stream: from_sql(row.get(5)?),
        next: from_sql(row.get(6)?),
    })
}

impl Rows<'_> {
    pub(crate) fn peer(self, account: ServiceId) -> Result<Option<Peer>, ProfileError> {
        let sql = format!("SELECT {PEER_COLUMNS} FROM peer WHERE account = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        statement.query_row((account.uuid(),), |row| Ok(read_peer(row))).optional()?.transpose()
    }

    pub(crate) fn peers(self) -> Result<Vec<Peer>, ProfileError> {
        let sql = format!("SELECT {PEER_COLUMNS} FROM peer ORDER BY username, account");
        let mut statement = self.0.prepare_cached(&sql)?;
        let rows = statement.query_map((), |row| Ok(read_peer(row)))?;
        rows.map(|row| row?).collect()
    }

    pub(crate) fn peer_named(self, username: &str) -> Result<Option<Peer>, ProfileError> {
        let sql = format!("SELECT {PEER_COLUMNS} FROM peer WHERE username = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        statement.query_row((username,), |row| Ok(read_peer(row))).optional()?.transpose()
    }

    pub(crate) fn save_peer(self, peer: &Peer) -> Result<(), ProfileError> {
        let mut statement = self.0.prepare_cached(
            "INSERT INTO peer (account, username, claimed_name, identity, offered, decision, access_key, verified)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (account) DO UPDATE SET username = ?2, claimed_name = ?3, identity = ?4, offered = ?5,
               decision = ?6, access_key = ?7, verified = ?8",
        )?;
        statement.execute((
            peer.account.uuid(),
            &peer.username,
            &peer.claimed_name,
            peer.identity.map(|key| key.serialize()),
            peer.offered.map(|key| key.serialize()),
            peer.decision as u8,
            peer.access_key,
            peer.verified,
        ))?;
        Ok(())
    }

    pub(crate) fn device(self, address: Address) -> Result<Option<Device>, ProfileError> {
        let sql = format!("SELECT {DEVICE_COLUMNS} FROM device WHERE account = ?1 AND device = ?2");
        let mut statement = self.0.prepare_cached(&sql)?;
        let key = (address.service_id.uuid(), address.device_id.get());
        statement
            .query_row(key, |row| Ok(read_device(address.service_id, row)))
            .optional()?
            .transpose()
    }

    /// All devices that we know of an account, by number.
    pub(crate) fn devices(self, account: ServiceId) -> Result<Vec<Device>, ProfileError> {
        let sql = format!("SELECT {DEVICE_COLUMNS} FROM device WHERE account = ?1 ORDER BY device");
        let mut statement = self.0.prepare_cached(&sql)?;
        let rows = statement.query_map((account.uuid(),), |row| Ok(read_device(account, row)))?;
        rows.map(|row| row?).collect()
    }

    /// Whether any device of an account is known.
    pub(crate) fn has_devices(self, account: ServiceId) -> Result<bool, ProfileError> {
        let sql = "SELECT 1 FROM device WHERE account = ?1";
        Ok(self.0.prepare_cached(sql)?.exists((account.uuid(),))?)
    }

    pub(crate) fn save_device(self, device: &Device) -> Result<(), ProfileError> {
        let mut statement = self.0.prepare_cached(
            "INSERT INTO device (account, device, registration_id, session, sent_stream, sent, next_stream, next)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (account, device) DO UPDATE SET registration_id = ?3, session = ?4, sent_stream = ?5,
               sent = ?6, next_stream = ?7, next = ?8",
        )?;
        let session = device.session.encode();
        statement.execute((
            device.address.service_id.uuid(),
            device.address.device_id.get(),
            device.registration_id,
            &session[..],
            to_sql(device.sent_stream),
            to_sql(device.sent),
            to_sql(device.next_stream),
            to_sql(device.next),
        ))?;
        Ok(())
    }

    pub(crate) fn delete_device(self, address: Address) -> Result<(), ProfileError> {
        self.0.execute(
            "DELETE FROM device WHERE account = ?1 AND device = ?2",
            (address.service_id.uuid(), address.device_id.get()),
        )?;
        Ok(())
    }
}
