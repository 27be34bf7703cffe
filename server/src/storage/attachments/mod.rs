//! Attachments in a folder or in a bucket of S3, by the day on which they expire: the old go by the day, and no table
//! knows of any.
//!
//! A day is called `tuckseal-DAY`, in days since 1970, as nothing else is: what somebody else keeps in the same folder or bucket,
//! by years for instance, is never dropped.
//!
//! What an upload has come to is what is durable, wherever it is asked: another node, or the same one after a crash,
//! finds the same offset. One writer goes on from an offset; a second one is refused.

mod bucket;
mod folder;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use bucket::{AttachmentBucket, BucketError, BucketUpload, Pieces};
pub use folder::{AttachmentFolder, FileUpload};

const DAY_MS: i64 = 86_400_000;
/// Before the number of the day in the name of a folder.
const DAY_PREFIX: &str = "tuckseal-";

/// Bytes of an attachment, as they come.
pub type Content = BoxStream<'static, io::Result<Bytes>>;

/// Where an attachment lies, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachmentName {
    /// 16 random bytes.
    pub id: [u8; 16],
    /// When it expires, in milliseconds.
    pub expires_ms: i64,
    /// Bytes that it has when it is whole.
    pub size: u64,
}

/// How far an upload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// So many bytes are there; more are missing.
    Part(u64),
    /// All bytes are there and durable.
    Whole(u64),
}

/// Where the attachments are.
#[derive(Debug, Clone)]
pub enum AttachmentStore {
    /// Files.
    Folder(AttachmentFolder),
    /// Objects.
    Bucket(AttachmentBucket),
}

/// An upload that is being written.
pub enum Upload {
    /// To a file.
    File(FileUpload),
    /// To objects.
    Bucket(BucketUpload),
}

/// An attachment that is there as a whole.
pub enum Stored {
    /// A file, and its size.
    File(tokio::fs::File, u64),
    /// Objects.
    Bucket(Pieces),
}

impl AttachmentStore {
    /// Files under this folder.
    #[must_use]
    pub fn folder(root: PathBuf) -> Self {
        Self::Folder(AttachmentFolder::new(root))
    }

    /// An upload without bytes.
    ///
    /// # Errors
    /// The folder or the bucket cannot be written.
    pub async fn create(&self, name: AttachmentName) -> io::Result<()> {
        match self {
            Self::Folder(folder) => folder.create(name).await,
            Self::Bucket(bucket) => bucket.create(name).await,
        }
    }

    /// How far it has come.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no such attachment.
    pub async fn uploaded(&self, name: AttachmentName) -> io::Result<Uploaded> {
        match self {
            Self::Folder(folder) => folder.uploaded(name).await,
            Self::Bucket(bucket) => bucket.uploaded(name).await,
        }
    }

    /// Goes on with an upload, behind the bytes that are there; also says how many these are.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no upload to go on with, [`io::ErrorKind::WouldBlock`] if
    /// somebody else is writing to it, [`io::ErrorKind::QuotaExceeded`] if it is in too many pieces.
    pub async fn resume(&self, name: AttachmentName) -> io::Result<(Upload, u64)> {
        Ok(match self {
            Self::Folder(folder) => {
                let (upload, offset) = folder.resume(name).await?;
                (Upload::File(upload), offset)
            }
            Self::Bucket(bucket) => {
                let (upload, offset) = bucket.resume(name).await?;
                (Upload::Bucket(upload), offset)
            }
        })
    }

    /// An attachment that is there as a whole.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not.
    pub async fn open(&self, name: AttachmentName) -> io::Result<Stored> {
        Ok(match self {
            Self::Folder(folder) => {
                let file = folder.open(name).await?;
                let size = file.metadata().await?.len();
                Stored::File(file, size)
            }
            Self::Bucket(bucket) => Stored::Bucket(bucket.open(name).await?),
        })
    }

    /// Forgets an attachment, whole or not.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none.
    pub async fn remove(&self, name: AttachmentName) -> io::Result<()> {
        match self {
            Self::Folder(folder) => folder.remove(name).await,
            Self::Bucket(bucket) => bucket.remove(name).await,
        }
    }

    /// Drops the days that are over at `now_ms`. Says how many.
    ///
    /// # Errors
    /// A day cannot be read or removed; the others are.
    pub async fn purge(&self, now_ms: i64) -> io::Result<u64> {
        match self {
            Self::Folder(folder) => folder.purge(now_ms).await,
            Self::Bucket(bucket) => bucket.purge(now_ms).await,
        }
    }
}

impl Upload {
    /// Adds bytes at the end. They are durable after [`Self::pause`] or [`Self::finish`].
    ///
    /// # Errors
    /// The disk or the bucket does not take them; [`io::ErrorKind::WouldBlock`] if somebody else was faster,
    /// [`io::ErrorKind::QuotaExceeded`] if the upload is in too many pieces.
    pub async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::File(upload) => upload.write(&bytes).await,
            Self::Bucket(upload) => upload.write(bytes).await,
        }
    }

    /// Makes durable what is there; more will follow.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn pause(self) -> io::Result<()> {
        match self {
            Self::File(upload) => upload.pause().await,
            Self::Bucket(upload) => upload.finish().await,
        }
    }

    /// Makes durable what is there: it is all.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn finish(self) -> io::Result<()> {
        match self {
            Self::File(upload) => upload.finish().await,
            Self::Bucket(upload) => upload.finish().await,
        }
    }
}

impl Stored {
    /// In bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::File(_, size) => *size,
            Self::Bucket(pieces) => pieces.size(),
        }
    }

    /// So many bytes from `first` on, within the size.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn read(self, first: u64, length: u64) -> io::Result<Content> {
        match self {
            Self::File(file, _) => folder::read(file, first, length).await,
            Self::Bucket(pieces) => Ok(pieces.read(first, length)),
        }
    }
}

/// The folder of the day of so many milliseconds.
fn day(ms: i64) -> String {
    format!("{DAY_PREFIX}{}", ms.div_euclid(DAY_MS))
}

/// Whether this is the folder of a day before that of `now_ms`, written as [`day`] does it.
fn is_over(folder: &str, now_ms: i64) -> bool {
    let number = folder.strip_prefix(DAY_PREFIX).and_then(|number| number.parse::<i64>().ok());
    let begins = number.and_then(|number| number.checked_mul(DAY_MS));
    begins.is_some_and(|ms| day(ms) == folder && ms.div_euclid(DAY_MS) < now_ms.div_euclid(DAY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_of_a_day_is_known_by_its_whole_name() {
        let now_ms = 20_800 * DAY_MS;
        assert!(is_over(&day(now_ms - 1), now_ms) && !is_over(&day(now_ms), now_ms));
        for foreign in [
            "2024",
            "20000",
            "-1",
            "tuckseal-",
            "tuckseal-020000",
            "tuckseal-+20000",
            "tuckseal-20000x",
            "xtuckseal-20000",
        ] {
            assert!(!is_over(foreign, now_ms), "{foreign}");
        }
    }
}
