//! What people write: text, files, places, and the group that it is for.

use super::{at_most, exact, in_field};
use crate::address::ServiceId;
use crate::attachment::{AttachmentKeys, ChunkSize, IncrementalMacs};
use crate::wire::DecodeError;
use crate::wire::content as stored;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use stored::group_context::Change as StoredChange;

/// More files than a message shows well.
const MAX_ATTACHMENTS: usize = 32;
/// More members than a group message can be sent to at once.
const MAX_MEMBERS: usize = 1000;
/// Longest name, label, path or content type that is read, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;
/// Longest preview of a file, in bytes.
const MAX_PREVIEW: usize = 32 * 1024;

/// A message for people.
#[derive(Clone, PartialEq, Default)]
pub struct Data {
    /// The text; empty if there is none.
    pub text: String,
    /// Files, at most 32.
    pub attachments: Vec<AttachmentPointer>,
    /// A place.
    pub location: Option<Location>,
    /// The group that the message is for; without, it is for the recipient alone.
    pub group: Option<GroupContext>,
}

/// Where an encrypted file is, and what opens it (W§18.1).
#[derive(Clone, PartialEq, Eq)]
pub struct AttachmentPointer {
    /// Where the relay has it, as the relay named it: at most 1024 bytes.
    pub path: String,
    /// What opens it.
    pub keys: AttachmentKeys,
    /// SHA-256 of the encrypted file.
    pub digest: [u8; 32],
    /// Bytes of the file, without padding and encryption.
    pub size: u64,
    /// By these, the file can be used while it still arrives.
    pub incremental: Option<IncrementalMacs>,
    /// As in HTTP: a hint, at most 1024 bytes, perhaps empty.
    pub content_type: String,
    /// A hint, at most 1024 bytes, perhaps empty. Never use it as a path.
    pub file_name: String,
    /// A thumbnail or whatever the apps have agreed on: at most 32 KiB, perhaps empty.
    pub preview: Bytes,
}

/// The group that a message is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupContext {
    /// The group: 16 random bytes, chosen by who made it.
    pub id: [u8; 16],
    /// Grows by one with every change.
    pub revision: u32,
    /// Only in the message that tells of a change.
    pub change: Option<GroupChange>,
}

/// A change of a group. Who may make one is the client's policy: the sender is known by the session.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupChange {
    /// What the group is from this revision on.
    State {
        /// Its name: at most 1024 bytes.
        name: String,
        /// All its members, at most 1000.
        members: Vec<ServiceId>,
    },
    /// The sender has left.
    Left,
}

impl Data {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

impl TryFrom<stored::DataMessage> for Data {
    type Error = DecodeError;

    fn try_from(data: stored::DataMessage) -> Result<Self, DecodeError> {
        let attachments = at_most(MAX_ATTACHMENTS, data.attachments, "attachments")?;
        let attachments = attachments.into_iter().map(AttachmentPointer::try_from);
        Ok(Self {
            text: data.body,
            attachments: attachments.collect::<Result<_, _>>()?,
            location: data.location.map(Location::try_from).transpose()?,
            group: data.group.map(GroupContext::try_from).transpose()?,
        })
    }
}

impl From<&Data> for stored::DataMessage {
    fn from(data: &Data) -> Self {
        Self {
            body: data.text.clone(),
            attachments: data.attachments.iter().map(Into::into).collect(),
            location: data.location.as_ref().map(Into::into),
            group: data.group.as_ref().map(Into::into),
        }
    }
}

impl From<&AttachmentPointer> for stored::AttachmentPointer {
    fn from(pointer: &AttachmentPointer) -> Self {
        let incremental = pointer.incremental.as_ref();
        Self {
            path: pointer.path.clone(),
            keys: Bytes::copy_from_slice(pointer.keys.as_bytes()),
            digest: Bytes::copy_from_slice(&pointer.digest),
            size: pointer.size,
            chunk_size: incremental.map_or(0, |it| it.chunk.get()),
            macs: incremental.map_or_else(Bytes::new, |it| it.values.clone()),
            content_type: pointer.content_type.clone(),
            file_name: pointer.file_name.clone(),
            preview: pointer.preview.clone(),
        }
    }
}

impl TryFrom<stored::AttachmentPointer> for AttachmentPointer {
    type Error = DecodeError;

    fn try_from(pointer: stored::AttachmentPointer) -> Result<Self, DecodeError> {
        let values = pointer.macs;
        if !values.len().is_multiple_of(32) {
            return Err(DecodeError::Field { field: "macs" });
        }
        if pointer.preview.len() > MAX_PREVIEW {
            return Err(DecodeError::Field { field: "preview" });
        }
        let chunk = ChunkSize::new(pointer.chunk_size).ok();
        Ok(Self {
            path: name(pointer.path, "path")?,
            keys: AttachmentKeys::from_bytes(&pointer.keys).map_err(in_field("keys"))?,
            digest: exact(&pointer.digest, "digest")?,
            size: pointer.size,
            incremental: chunk.map(|chunk| IncrementalMacs { chunk, values }),
            content_type: name(pointer.content_type, "content_type")?,
            file_name: name(pointer.file_name, "file_name")?,
            preview: pointer.preview,
        })
    }
}

impl From<&GroupContext> for stored::GroupContext {
    fn from(group: &GroupContext) -> Self {
        let change = group.change.as_ref().map(|change| match change {
            GroupChange::Left => StoredChange::Left(true),
            GroupChange::State { name, members } => StoredChange::State(stored::GroupState {
                name: name.clone(),
                members: members.iter().map(|member| member.to_binary().into()).collect(),
            }),
        });
        Self { id: Bytes::copy_from_slice(&group.id), revision: group.revision, change }
    }
}

impl TryFrom<stored::GroupContext> for GroupContext {
    type Error = DecodeError;

    fn try_from(group: stored::GroupContext) -> Result<Self, DecodeError> {
        let change = match group.change {
            None => None,
            Some(StoredChange::Left(_)) => Some(GroupChange::Left),
            Some(StoredChange::State(state)) => {
                let members = at_most(MAX_MEMBERS, state.members, "members")?;
                Some(GroupChange::State {
                    name: name(state.name, "name")?,
                    members: members
                        .iter()
                        .map(|member| service_id(member, "members"))
                        .collect::<Result<_, _>>()?,
                })
            }
        };
        Ok(Self { id: exact(&group.id, "id")?, revision: group.revision, change })
    }
}

pub(super) fn service_id(bytes: &[u8], field: &'static str) -> Result<ServiceId, DecodeError> {
    ServiceId::from_binary(bytes).map_err(|_| DecodeError::Field { field })
}

fn name(text: String, field: &'static str) -> Result<String, DecodeError> {
    if text.len() > MAX_NAME_BYTES { Err(DecodeError::Field { field }) } else { Ok(text) }
}

/// Degrees times 10^7 of a quarter and of half a circle.
const QUARTER: i32 = 900_000_000;
const HALF: i32 = 1_800_000_000;
/// Units of 10^-7 degrees in a metre along a meridian, rounded up.
const UNITS_PER_METRE: i128 = 90;

/// A place, as precisely as the sender wants to tell it.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    latitude_e7: i32,
    longitude_e7: i32,
    precision_m: u32,
    label: String,
}

/// Numbers that are no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// Not in -90..=90 or -180..=180 degrees.
    #[error("a latitude is in -90..=90 degrees, a longitude in -180..=180")]
    Range,
    /// A precision of 0.
    #[error("a precision is at least one metre")]
    Precision,
}

impl Location {
    /// A place in degrees times 10^7, north and east positive, told to `precision_m` metres: what is
    /// finer is rounded away here, so that it cannot leave the device.
    ///
    /// # Errors
    /// [`LocationError`] outside the ranges, or for a precision of 0.
    pub fn new(
        latitude_e7: i32,
        longitude_e7: i32,
        precision_m: u32,
    ) -> Result<Self, LocationError> {
        let exact = Self::stated(latitude_e7, longitude_e7, precision_m)?;
        let pitch = i128::from(precision_m) * UNITS_PER_METRE;
        let latitude = round(latitude_e7, pitch, QUARTER);
        let longitude = round(longitude_e7, parallel(pitch, latitude), HALF);
        Ok(Self { latitude_e7: latitude, longitude_e7: longitude, ..exact })
    }

    /// With a name for it: at most [`MAX_NAME_BYTES`]. A longer one no reader takes, which
    /// [`Content::check`](super::Content::check) tells.
    #[must_use]
    pub fn with_label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    /// Degrees times 10^7, north positive.
    pub const fn latitude_e7(&self) -> i32 {
        self.latitude_e7
    }

    /// Degrees times 10^7, east positive.
    pub const fn longitude_e7(&self) -> i32 {
        self.longitude_e7
    }

    /// The place lies within so many metres of the coordinates: draw a circle, not a pin.
    pub const fn precision_m(&self) -> u32 {
        self.precision_m
    }

    /// Its name, perhaps empty.
    pub fn label(&self) -> &str {
        &self.label
    }

    fn stated(
        latitude_e7: i32,
        longitude_e7: i32,
        precision_m: u32,
    ) -> Result<Self, LocationError> {
        if !(-QUARTER..=QUARTER).contains(&latitude_e7) || !(-HALF..=HALF).contains(&longitude_e7) {
            return Err(LocationError::Range);
        }
        if precision_m == 0 {
            return Err(LocationError::Precision);
        }
        Ok(Self { latitude_e7, longitude_e7, precision_m, label: String::new() })
    }
}

/// The nearest multiple of `pitch`, kept within the range.
fn round(value: i32, pitch: i128, bound: i32) -> i32 {
    let rounded = (i128::from(value) + pitch / 2).div_euclid(pitch) * pitch;
    let bound = i128::from(bound);
    i32::try_from(rounded.clamp(-bound, bound)).unwrap_or(0)
}

/// A length along a meridian as one along the parallel of a latitude: divided by the cosine, which is
/// (180² - 4x²) / (180² + x²) within 0.2 % of one, x in degrees.
fn parallel(pitch: i128, latitude_e7: i32) -> i128 {
    let whole = i128::from(HALF) * i128::from(HALF);
    let square = i128::from(latitude_e7) * i128::from(latitude_e7);
    let cosine = (whole - 4 * square).max(1);
    (pitch * (whole + square) / cosine).min(4 * i128::from(HALF))
}

impl From<&Location> for stored::Location {
    fn from(location: &Location) -> Self {
        Self {
            latitude_e7: location.latitude_e7,
            longitude_e7: location.longitude_e7,
            precision_m: location.precision_m,
            label: location.label.clone(),
        }
    }
}

impl TryFrom<stored::Location> for Location {
    type Error = DecodeError;

    fn try_from(location: stored::Location) -> Result<Self, DecodeError> {
        let (latitude, longitude) = (location.latitude_e7, location.longitude_e7);
        let stated = Self::stated(latitude, longitude, location.precision_m);
        let stated = stated.map_err(|_| DecodeError::Field { field: "location" })?;
        Ok(stated.with_label(name(location.label, "label")?))
    }
}

// What people write, and where they are, is not for logs.

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data").finish_non_exhaustive()
    }
}

impl fmt::Debug for AttachmentPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachmentPointer").field("size", &self.size).finish_non_exhaustive()
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Location").field("precision_m", &self.precision_m).finish_non_exhaustive()
    }
}

impl fmt::Debug for GroupChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::State { .. } => "State",
            Self::Left => "Left",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Metres between two points that lie near each other, by the haversine formula.
    fn metres(a: (i32, i32), b: (i32, i32)) -> f64 {
        let radians = |e7: i32| (f64::from(e7) / 1e7).to_radians();
        let (from, to) = (radians(a.0), radians(b.0));
        let half = |difference: f64| (difference / 2.0).sin().powi(2);
        let across = half(radians(b.1) - radians(a.1));
        let h = half(to - from) + from.cos() * to.cos() * across;
        2.0 * 6_371_000.0 * h.sqrt().min(1.0).asin()
    }

    #[test]
    fn what_is_no_place_is_refused() {
        assert_eq!(Location::new(QUARTER + 1, 0, 1), Err(LocationError::Range));
        assert_eq!(Location::new(0, -HALF - 1, 1), Err(LocationError::Range));
        assert_eq!(Location::new(i32::MIN, i32::MAX, 1), Err(LocationError::Range));
        assert_eq!(Location::new(0, 0, 0), Err(LocationError::Precision));
        let poles = Location::new(QUARTER, HALF, u32::MAX).unwrap();
        assert_eq!((poles.latitude_e7, poles.longitude_e7), (0, 0));
    }

    #[test]
    fn places_in_one_cell_of_the_grid_look_alike() {
        // Two doors of one street in Lisbon, told to a kilometre.
        let a = Location::new(387_223_111, -91_393_222, 1000).unwrap();
        let b = Location::new(387_223_999, -91_392_111, 1000).unwrap();
        assert_eq!((a.latitude_e7, a.longitude_e7), (b.latitude_e7, b.longitude_e7));
        let exact = Location::new(387_223_111, -91_393_222, 1).unwrap();
        assert!(metres((387_223_111, -91_393_222), (exact.latitude_e7, exact.longitude_e7)) < 1.0);
    }

    proptest! {
        #[test]
        fn the_place_lies_within_the_precision_and_no_more_is_told(
            latitude in prop_oneof![-QUARTER..=QUARTER, QUARTER - 9_000_000..=QUARTER],
            longitude in -HALF..=HALF,
            precision in 1u32..100_000,
        ) {
            let told = Location::new(latitude, longitude, precision).unwrap();
            let (north, east) = (told.latitude_e7, told.longitude_e7);
            let off = metres((latitude, longitude), (north, east));
            // Coordinates themselves are centimetres apart.
            prop_assert!(off <= f64::from(precision) + 0.02, "{off} metres at {precision}");
            let again = Location::new(north, east, precision).unwrap();
            prop_assert_eq!((again.latitude_e7, again.longitude_e7), (north, east));
        }
    }
}
