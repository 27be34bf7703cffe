//! Service ids, device ids, addresses and times (W§4).

use alloc::string::String;
use core::fmt;

/// Milliseconds since the Unix epoch. The crate has no clock: callers pass the time in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }
}

/// An identifier has not the exact form that W§4 asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not `PNI:`-prefixed or plain, 36 characters of hyphenated UUID.
    #[error("a service id is 36 characters of hyphenated UUID, with PNI: before it for a PNI")]
    ServiceIdText,
    /// Not one of the binary forms.
    #[error(
        "a service id is 16 bytes (ACI), 17 bytes with 0x01 first (PNI), or 17 in its fixed form"
    )]
    ServiceIdBytes,
    /// A device id outside 1..=127.
    #[error("device id {found} is not in 1..=127")]
    DeviceId {
        /// The number that stood there.
        found: u32,
    },
}

/// What a [`ServiceId`] names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ServiceIdKind {
    /// An account.
    Aci = 0,
    /// An account, by phone number.
    Pni = 1,
}

/// An account's identifier: a kind and a UUID (W§4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    kind: ServiceIdKind,
    uuid: [u8; 16],
}

/// Where the hyphens stand in the text of a UUID.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl ServiceId {
    /// An account id.
    pub const fn aci(uuid: [u8; 16]) -> Self {
        Self { kind: ServiceIdKind::Aci, uuid }
    }

    /// A phone-number id.
    pub const fn pni(uuid: [u8; 16]) -> Self {
        Self { kind: ServiceIdKind::Pni, uuid }
    }

    /// Account or phone number.
    pub const fn kind(&self) -> ServiceIdKind {
        self.kind
    }

    /// The UUID, 16 bytes big-endian.
    pub const fn uuid(&self) -> &[u8; 16] {
        &self.uuid
    }

    /// The fixed form: kind byte and UUID, 17 bytes.
    pub fn to_fixed(&self) -> [u8; 17] {
        let mut out = [self.kind as u8; 17];
        if let Some(uuid) = out.last_chunk_mut() {
            *uuid = self.uuid;
        }
        out
    }

    /// Reads the fixed form, 17 bytes.
    ///
    /// # Errors
    /// [`AddressError::ServiceIdBytes`] for another length or kind.
    pub fn from_fixed(bytes: &[u8]) -> Result<Self, AddressError> {
        let (kind, uuid) = bytes.split_first().ok_or(AddressError::ServiceIdBytes)?;
        let uuid = uuid.try_into().map_err(|_| AddressError::ServiceIdBytes)?;
        match kind {
            0 => Ok(Self::aci(uuid)),
            1 => Ok(Self::pni(uuid)),
            _ => Err(AddressError::ServiceIdBytes),
        }
    }

    /// Reads the variable form: 16 bytes are an ACI, 17 with 0x01 first a PNI.
    ///
    /// # Errors
    /// [`AddressError::ServiceIdBytes`] for anything else, the fixed form of an ACI included.
    pub fn from_binary(bytes: &[u8]) -> Result<Self, AddressError> {
        match (bytes.len(), bytes.first()) {
            (16, _) => bytes.try_into().map(Self::aci).map_err(|_| AddressError::ServiceIdBytes),
            (17, Some(1)) => Self::from_fixed(bytes),
            _ => Err(AddressError::ServiceIdBytes),
        }
    }

    /// The variable form: 16 bytes for an ACI, 17 for a PNI.
    pub fn to_binary(&self) -> alloc::vec::Vec<u8> {
        match self.kind {
            ServiceIdKind::Aci => self.uuid.to_vec(),
            ServiceIdKind::Pni => self.to_fixed().to_vec(),
        }
    }
}

impl core::str::FromStr for ServiceId {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (kind, text) = match text.strip_prefix("PNI:") {
            Some(rest) => (ServiceIdKind::Pni, rest),
            None => (ServiceIdKind::Aci, text),
        };
        parse_uuid(text).map(|uuid| Self { kind, uuid }).ok_or(AddressError::ServiceIdText)
    }
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let mut uuid = [0; 16];
    let mut digits = 0;
    for (place, byte) in text.bytes().enumerate() {
        if HYPHENS.contains(&place) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        let value = char::from(byte).to_digit(16)?;
        let slot = uuid.get_mut(digits / 2)?;
        *slot = (*slot << 4) | u8::try_from(value).ok()?;
        digits += 1;
    }
    Some(uuid)
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == ServiceIdKind::Pni {
            f.write_str("PNI:")?;
        }
        for (place, byte) in self.uuid.iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceId({self})")
    }
}

/// A device of an account: 1..=127.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceId(u8);

impl DeviceId {
    /// The first device of an account.
    pub const PRIMARY: Self = Self(1);

    /// A device id, or `None` for 0 and for more than 127.
    pub const fn new(id: u8) -> Option<Self> {
        if id >= 1 && id <= 127 { Some(Self(id)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u32> for DeviceId {
    type Error = AddressError;

    fn try_from(id: u32) -> Result<Self, AddressError> {
        u8::try_from(id).ok().and_then(Self::new).ok_or(AddressError::DeviceId { found: id })
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One device of one account: the key under which a session is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address {
    /// The account.
    pub service_id: ServiceId,
    /// Its device.
    pub device_id: DeviceId,
}

impl Address {
    /// Joins an account and a device.
    pub const fn new(service_id: ServiceId, device_id: DeviceId) -> Self {
        Self { service_id, device_id }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service_id, self.device_id)
    }
}

impl From<ServiceId> for String {
    fn from(id: ServiceId) -> Self {
        alloc::format!("{id}")
    }
}
