//! W§16. Safety numbers: what two people compare, by reading or by scanning, to know that no one
//! stands between them.

use crate::address::ServiceId;
use crate::crypto::hash::sha512;
use crate::identity::IdentityKey;
use crate::wire::fingerprint::{ScannableFingerprint, Side};
use crate::wire::{self, DecodeError};
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use prost::Message;
use subtle::ConstantTimeEq;

/// Bytes of a hash that are shown to a scanner. The digits come from the first 30 of them.
const CONTENT: usize = 32;
/// Five bytes make five digits.
const GROUP: usize = 5;
const GROUPS: usize = 6;

/// How often a key is hashed: 2..=1,000,000 times. Both sides must take the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iterations(u32);

impl Iterations {
    /// 5200, what the peers' apps take: a few milliseconds.
    pub const DEFAULT: Self = Self(5200);

    /// Another number.
    ///
    /// # Errors
    /// F1: [`InvalidIterations`] outside 2..=1,000,000.
    pub const fn new(iterations: u32) -> Result<Self, InvalidIterations> {
        match iterations {
            2..=1_000_000 => Ok(Self(iterations)),
            found => Err(InvalidIterations { found }),
        }
    }
}

impl Default for Iterations {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A number of iterations that no safety number is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} iterations, not in 2..=1000000: the peers' apps take 5200")]
pub struct InvalidIterations {
    /// The number that was asked for.
    pub found: u32,
}

/// One of the two that a safety number is about.
#[derive(Clone, Copy, Debug)]
pub struct FingerprintParty<'a> {
    /// A name of the account that never changes: in version 2 the binary service id, in version 1 the
    /// phone number as text.
    pub id: &'a [u8],
    /// The account's identity key.
    pub identity_key: IdentityKey,
}

/// The safety number of two accounts.
///
/// Printed, it is 60 digits, the same on both sides; `{:#}` prints twelve groups of five.
/// [`Fingerprint::encode`] gives what the other side scans.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    version: u32,
    local: [u8; CONTENT],
    remote: [u8; CONTENT],
}

impl Fingerprint {
    /// Version by which accounts are named by service ids.
    pub const VERSION: u32 = 2;

    /// Computes a safety number. The version is told to the scanner and changes no digit.
    pub fn new(
        version: u32,
        iterations: Iterations,
        local: FingerprintParty<'_>,
        remote: FingerprintParty<'_>,
    ) -> Self {
        Self { version, local: local.hash(iterations), remote: remote.hash(iterations) }
    }

    /// The safety number of two accounts as the peers' apps compute it today: version 2, 5200 iterations.
    pub fn of_accounts(local: (ServiceId, IdentityKey), remote: (ServiceId, IdentityKey)) -> Self {
        let (local_id, remote_id) = (local.0.to_binary(), remote.0.to_binary());
        Self::new(
            Self::VERSION,
            Iterations::DEFAULT,
            FingerprintParty { id: &local_id, identity_key: local.1 },
            FingerprintParty { id: &remote_id, identity_key: remote.1 },
        )
    }

    /// The version that was given.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// What the other side scans: about 74 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let side = |content: &[u8]| Some(Side { content: Some(Bytes::copy_from_slice(content)) });
        ScannableFingerprint {
            version: Some(self.version),
            local: side(&self.local),
            remote: side(&self.remote),
        }
        .encode_to_vec()
    }

    /// Reads what [`Fingerprint::encode`] wrote, from its writer's point of view.
    ///
    /// # Errors
    /// F3: [`DecodeError`] when it is malformed, or a part is missing or not 32 bytes long.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let scanned = wire::fingerprint::ScannableFingerprint::decode(bytes)?;
        let version = scanned.version.unwrap_or(0);
        let exact = |side, field| {
            content(side, field)?[..].try_into().map_err(|_| DecodeError::Field { field })
        };
        let local = exact(scanned.local, "local")?;
        Ok(Self { version, local, remote: exact(scanned.remote, "remote")? })
    }

    /// Compares with what the other side shows: its own part must be our remote one, and the reverse.
    ///
    /// # Errors
    /// F2, F3: [`FingerprintError`] when the bytes are no safety number, or one of another version. Neither
    /// says anything about the keys.
    pub fn compare(&self, scanned: &[u8]) -> Result<Comparison, FingerprintError> {
        let theirs = ScannableFingerprint::decode(scanned).map_err(DecodeError::from)?;
        let version = theirs.version.unwrap_or(0);
        if version != self.version {
            return Err(FingerprintError::Version { ours: self.version, theirs: version });
        }
        let (local, remote) = (content(theirs.local, "local")?, content(theirs.remote, "remote")?);
        let equal = local[..].ct_eq(&self.remote[..]) & remote[..].ct_eq(&self.local[..]);
        Ok(if equal.into() { Comparison::Match } else { Comparison::Differ })
    }
}

fn content(side: Option<Side>, field: &'static str) -> Result<Bytes, DecodeError> {
    side.and_then(|side| side.content).ok_or(DecodeError::Missing { field })
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "different safety numbers mean that somebody may stand between the two"]
pub enum Comparison {
    /// Both see the same identity keys: remember the key as verified.
    Match,
    /// They do not: one of them has a key that the other never had, or it is another account's number.
    Differ,
}

/// Scanned bytes cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FingerprintError {
    /// F3: they are no safety number.
    #[error("the scanned code is no safety number: {0}")]
    Decode(#[from] DecodeError),
    /// F2: they are one of another version, so one of the two apps has to be updated.
    #[error(
        "the scanned safety number has version {theirs}, ours has {ours}: update the older app"
    )]
    Version {
        /// Our version.
        ours: u32,
        /// The scanned one.
        theirs: u32,
    },
}

impl FingerprintParty<'_> {
    fn hash(&self, iterations: Iterations) -> [u8; CONTENT] {
        let key = self.identity_key.serialize();
        // The two bytes are always zero, whatever the version.
        let first = sha512(&[&[0, 0], &key, self.id, &key]);
        let last = (1..iterations.0).fold(first, |hash, _| sha512(&[&hash, &key]));
        let mut content = [0; CONTENT];
        content.iter_mut().zip(last).for_each(|(to, from)| *to = from);
        content
    }
}

/// Six groups of five digits.
fn digits(content: &[u8; CONTENT]) -> [u64; GROUPS] {
    let mut groups = [0; GROUPS];
    for (group, bytes) in groups.iter_mut().zip(content.as_chunks::<GROUP>().0) {
        *group = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)) % 100_000;
    }
    groups
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As many digits in each group, so numbers and texts have the same order.
        let (a, b) = (digits(&self.local), digits(&self.remote));
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        for (place, group) in first.iter().chain(&second).enumerate() {
            if f.alternate() && place > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{group:05}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::PublicKey;
    use alloc::format;

    fn party(id: &[u8], key: u8) -> FingerprintParty<'_> {
        FingerprintParty { id, identity_key: IdentityKey::new(PublicKey::from_u([key; 32])) }
    }

    fn number(version: u32, local: u8, remote: u8) -> Fingerprint {
        let two = Iterations::new(2).unwrap();
        Fingerprint::new(version, two, party(b"a", local), party(b"b", remote))
    }

    /// The same two, seen from the other side.
    fn mirrored(number: Fingerprint) -> Fingerprint {
        Fingerprint { local: number.remote, remote: number.local, ..number }
    }

    #[test]
    fn both_sides_read_the_same_digits_and_scan_a_match() {
        let (ours, theirs) = (number(2, 1, 2), mirrored(number(2, 1, 2)));
        assert_eq!(format!("{ours}"), format!("{theirs}"));
        assert_eq!(ours.compare(&theirs.encode()), Ok(Comparison::Match));
        assert_eq!(theirs.compare(&ours.encode()), Ok(Comparison::Match));
        let grouped = format!("{ours:#}");
        assert_eq!(grouped.replace(' ', ""), format!("{ours}"));
        assert!(grouped.split(' ').all(|group| group.len() == 5));
    }

    #[test]
    fn another_key_and_our_own_code_differ() {
        let ours = number(2, 1, 2);
        assert_eq!(ours.compare(&ours.encode()), Ok(Comparison::Differ));
        assert_eq!(ours.compare(&mirrored(number(2, 1, 3)).encode()), Ok(Comparison::Differ));
        assert_eq!(ours.compare(&mirrored(number(2, 3, 2)).encode()), Ok(Comparison::Differ));
    }

    #[test]
    fn another_version_is_told_apart_from_another_key() {
        let (ours, theirs) = (number(2, 1, 2), mirrored(number(1, 1, 2)));
        let expected = Err(FingerprintError::Version { ours: 2, theirs: 1 });
        assert_eq!(ours.compare(&theirs.encode()), expected);
        assert_eq!(format!("{ours}"), format!("{theirs}"));
    }

    #[test]
    fn what_is_no_safety_number_is_refused_and_a_part_of_another_length_differs() {
        let (ours, theirs) = (number(2, 1, 2), mirrored(number(2, 1, 2)));
        let missing = |field| Err(FingerprintError::Decode(DecodeError::Missing { field }));
        assert_eq!(ours.compare(b"\x08\x02"), missing("local"));
        // A part without content is missing too.
        assert_eq!(ours.compare(b"\x08\x02\x12\x00\x1a\x00"), missing("local"));
        assert_eq!(ours.compare(b"\x0a\x01"), Err(FingerprintError::Decode(DecodeError::Protobuf)));
        // The version is judged before the parts.
        assert_eq!(ours.compare(b""), Err(FingerprintError::Version { ours: 2, theirs: 0 }));
        let encoded = theirs.encode();
        assert_eq!(ours.compare(&encoded[..38]), missing("remote"));
        let short = Side { content: Some(Bytes::from_static(b"short")) };
        let mut scanned = ScannableFingerprint::decode(&encoded[..]).unwrap();
        scanned.local = Some(short);
        assert_eq!(ours.compare(&scanned.encode_to_vec()), Ok(Comparison::Differ));
        let refused = Fingerprint::decode(&scanned.encode_to_vec());
        assert_eq!(refused, Err(DecodeError::Field { field: "local" }));
        assert_eq!(Fingerprint::decode(&encoded), Ok(theirs));
    }

    #[test]
    fn iterations_have_bounds() {
        for found in [0, 1, 1_000_001, u32::MAX] {
            assert_eq!(Iterations::new(found), Err(InvalidIterations { found }));
        }
        for iterations in [2, 5200, 1_000_000] {
            assert_eq!(Iterations::new(iterations), Ok(Iterations(iterations)));
        }
    }
}
