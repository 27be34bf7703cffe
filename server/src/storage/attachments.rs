//! Attachments as files, one folder for each day on which they expire: the old go by the folder, and no table knows
//! of any. A file is a `.part` until its last byte is on disk.

use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

const DAY_MS: i64 = 86_400_000;

/// Where an attachment lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachmentName {
    /// 16 random bytes.
    pub id: [u8; 16],
    /// When it expires, in milliseconds.
    pub expires_ms: i64,
}

/// How far an upload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// So many bytes are there; more are missing.
    Part(u64),
    /// All bytes are there and durable.
    Whole(u64),
}

/// A folder of attachments, made with the first of them. Several nodes may share it.
#[derive(Debug, Clone)]
pub struct AttachmentFiles {
    root: PathBuf,
}

/// An upload that is being written. Nobody else writes to it.
pub struct Upload {
    file: File,
    part: PathBuf,
    whole: PathBuf,
}

impl AttachmentFiles {
    /// Files under this folder.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// An upload without bytes.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub async fn create(&self, name: AttachmentName) -> io::Result<()> {
        let part = self.part(name);
        blocking(move || {
            part.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::File::create_new(&part).map(drop)
        })
        .await
    }

    /// How far it has come.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no such attachment.
    pub async fn uploaded(&self, name: AttachmentName) -> io::Result<Uploaded> {
        match tokio::fs::metadata(self.whole(name)).await {
            Ok(found) => Ok(Uploaded::Whole(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tokio::fs::metadata(self.part(name)).await.map(|found| Uploaded::Part(found.len()))
            }
            Err(error) => Err(error),
        }
    }

    /// Goes on with an upload, behind the bytes that are there; also says how many these are.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no upload to go on with, [`io::ErrorKind::WouldBlock`] if
    /// somebody else is writing to it.
    pub async fn resume(&self, name: AttachmentName) -> io::Result<(Upload, u64)> {
        let (part, whole) = (self.part(name), self.whole(name));
        blocking(move || {
            let file = fs::OpenOptions::new().append(true).open(&part)?;
            file.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
                TryLockError::Error(error) => error,
            })?;
            let offset = file.metadata()?.len();
            Ok((Upload { file: File::from_std(file), part, whole }, offset))
        })
        .await
    }

    /// An attachment that is there as a whole, and its size in bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not.
    pub async fn open(&self, name: AttachmentName) -> io::Result<(File, u64)> {
        let file = File::open(self.whole(name)).await?;
        let size = file.metadata().await?.len();
        Ok((file, size))
    }

    /// Forgets an attachment, whole or not.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none.
    pub async fn remove(&self, name: AttachmentName) -> io::Result<()> {
        match tokio::fs::remove_file(self.part(name)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tokio::fs::remove_file(self.whole(name)).await
            }
            done => done,
        }
    }

    /// Drops the folders of days that are over at `now_ms`. Says how many.
    ///
    /// # Errors
    /// A folder cannot be read or removed.
    pub async fn purge(&self, now_ms: i64) -> io::Result<u64> {
        let root = self.root.clone();
        blocking(move || {
            let today = now_ms.div_euclid(DAY_MS);
            let folders = match fs::read_dir(&root) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
                folders => folders?,
            };
            let mut dropped = 0;
            for folder in folders {
                let folder = folder?;
                let day = folder.file_name().to_str().and_then(|name| name.parse::<i64>().ok());
                if day.is_some_and(|day| day < today) {
                    fs::remove_dir_all(folder.path())?;
                    dropped += 1;
                }
            }
            Ok(dropped)
        })
        .await
    }

    fn whole(&self, name: AttachmentName) -> PathBuf {
        let day = name.expires_ms.div_euclid(DAY_MS);
        self.root.join(day.to_string()).join(hex::encode(name.id))
    }

    fn part(&self, name: AttachmentName) -> PathBuf {
        self.whole(name).with_extension("part")
    }
}

impl Upload {
    /// Adds bytes at the end.
    ///
    /// # Errors
    /// The disk does not take them.
    pub async fn write(&mut self, bytes: &Bytes) -> io::Result<()> {
        self.file.write_all(bytes).await
    }

    /// Makes durable what is there; more will follow.
    ///
    /// # Errors
    /// The disk does not take it.
    pub async fn pause(mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_data().await
    }

    /// Makes durable what is there: it is all.
    ///
    /// # Errors
    /// The disk does not take it.
    pub async fn finish(mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        let Self { part, whole, .. } = self;
        blocking(move || {
            fs::rename(part, &whole)?;
            whole.parent().map_or(Ok(()), sync_folder)
        })
        .await
    }
}

/// The file's new name must survive a power cut too.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
