//! Why a profile cannot be used.

use std::path::PathBuf;

/// The profile's folder or database is the cause. Nothing was changed by the call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Nobody has registered in this folder.
    #[error("there is no registered profile in {}: register one first", folder.display())]
    NotRegistered {
        /// The folder that was asked for.
        folder: PathBuf,
    },
    /// Another process has it open.
    #[error("the profile in {} is in use by another process: end that one first", folder.display())]
    InUse {
        /// The folder that was asked for.
        folder: PathBuf,
    },
    /// A newer release wrote it.
    #[error(
        "the profile has format {found}, this release knows up to {known}: use a newer release"
    )]
    Newer {
        /// The format that stood there.
        found: i64,
        /// The newest that this release reads.
        known: i64,
    },
    /// Somebody else has written to the database, or put another one in its place.
    #[error("the profile was changed from outside while it was open: close it and open it again")]
    ChangedOutside,
    /// A row is not what it must be.
    #[error("the profile is damaged ({what}): restore it from a backup or register anew")]
    Damaged {
        /// Which part.
        what: &'static str,
    },
    /// A file of the profile.
    #[error("cannot use the profile's folder {}: {source}", folder.display())]
    Io {
        /// The folder that was asked for.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite failed, as it does on a full disk.
    #[error("the profile's database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// The profile was closed while the call waited.
    #[error("the profile is closed: open it again")]
    Closed,
}

impl ProfileError {
    pub(crate) fn io(folder: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { folder: folder.into(), source }
    }
}
