//! Why a service refuses. `http/error.rs` gives each its status.

use std::time::Duration;

use tuckseal::ENVELOPE_SIZES;
use tuckseal::service::DeviceMismatch;

use crate::hook::ReasonCode;
use crate::storage::{KeyCollision, Mismatch, StoreError};

/// Nothing was stored or taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The request is not what the API asks for.
    #[error("{0}")]
    Invalid(&'static str),
    /// No valid token, access key, challenge or signature. Says no more on purpose.
    #[error("not authorised; show a valid device token or access key")]
    Unauthorised,
    /// The registration does not prove that the caller has the identity key, or came too late.
    #[error(
        "the challenge or its signature is not valid; ask for a new challenge and sign it with the identity key"
    )]
    NotProven,
    /// No link has this token.
    #[error(
        "this linking token is unknown, used by another device, or too old; ask a device of the account for a new one"
    )]
    NoLink,
    /// The registration of a further device does not prove that it has the identity key of the account.
    #[error(
        "the signature is not that of the account's identity key; sign the registration as it is sent, the token stays good"
    )]
    DeviceNotProven,
    /// The account has its devices.
    #[error(
        "the account may have {0} devices and has them; remove one, and ask for a new linking token after that"
    )]
    TooManyDevices(u64),
    /// A device that is not the first one wants to change another.
    #[error(
        "a device may name and remove itself alone; ask the first device of the account for more"
    )]
    NotFirst,
    /// The first device is to be removed.
    #[error(
        "the first device of an account is not removed; register the name again to put another in its place"
    )]
    FirstStays,
    /// The name of a device.
    #[error("the name of a device has at most {0} bytes, encrypted")]
    NameTooLong(u64),
    /// The registration does not bring what the gate asks for.
    #[error("{0}")]
    NotAdmitted(&'static str),
    /// The operator's hook says no.
    #[error("the operator of this server refuses it (reason: {}); ask them", .0.as_str())]
    RefusedByOperator(ReasonCode),
    /// The operator's hook says: not now.
    #[error("the operator of this server asks to wait {} s", .0.as_secs())]
    NotNow(Duration),
    /// The operator's hook does not answer, and nothing goes on without it.
    #[error("the server cannot ask its operator's check now; try again")]
    NoCheck(Duration),
    /// A token of a report is not one of that account, or is too old.
    #[error(
        "this is no report token of that account, or it has expired; show one that came inside a message of that account"
    )]
    NoReportToken,
    /// The name has another owner.
    #[error("this name belongs to another identity key; choose another name")]
    NameTaken,
    /// No such name, account or device.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// An id was used for another key before.
    #[error("key id {} was used before with other bytes; use ids above those of high_water", .0.id)]
    KeyCollision(KeyCollision),
    /// The device has enough one-time prekeys.
    #[error("too many one-time prekeys are waiting; upload more when some are used")]
    TooManyKeys,
    /// The devices of a submission are not those of the recipient.
    #[error("the devices are not those of the recipient; fetch bundles and try again")]
    Devices(Mismatch),
    /// An envelope is larger than the server takes.
    #[error("an envelope is larger than {0} bytes")]
    TooLarge(u64),
    /// An envelope is not padded to a size that the server takes.
    #[error("an envelope must have one of {ENVELOPE_SIZES:?} bytes; pad it with 0x80 and zeros")]
    EnvelopeSize,
    /// A submission is for more recipients than the server takes at once.
    #[error("a submission is for more than {0} recipients; send several")]
    TooManyRecipients(u64),
    /// An attachment is larger than the server takes.
    #[error("an attachment is larger than {0} bytes")]
    AttachmentTooLarge(u64),
    /// Another request writes to the upload.
    #[error("another request writes to this upload; wait {} s and ask with HEAD how far it has come", .0.as_secs())]
    UploadBusy(Duration),
    /// The upload was broken off too often.
    #[error("this upload was broken off too often; give it up and begin another one")]
    TooManyPieces,
    /// The disk or the bucket of the attachments refused.
    #[error("the server cannot store or read attachments now; try again")]
    Files(#[source] std::io::Error),
    /// Over a limit of requests.
    #[error("over the limit; wait {} s", .0.as_secs())]
    TooMany(Duration),
    /// The store did not do it.
    #[error("the server cannot store it now; try again")]
    Store(#[from] StoreError),
}

impl From<Mismatch> for DeviceMismatch {
    fn from(mismatch: Mismatch) -> Self {
        let list = |devices: Vec<u8>| devices.into_iter().map(u32::from).collect();
        let Mismatch { missing, extra, stale } = mismatch;
        Self { missing: list(missing), extra: list(extra), stale: list(stale) }
    }
}
