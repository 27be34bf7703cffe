//! Attachments as files, one folder for each day on which they expire. A file is a `.part` until its last byte is on
//! disk.

use std::fs::{self, TryLockError};
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::{AttachmentName, Content, Uploaded, day, is_over};

/// Bytes that a download reads at once.
const CHUNK: usize = 64 * 1024;

/// Made with the first attachment. Several nodes may share it.
#[derive(Debug, Clone)]
pub struct AttachmentFolder {
    root: PathBuf,
}

/// Holds a lock on the file.
pub struct FileUpload {
    file: File,
    part: PathBuf,
    whole: PathBuf,
}

impl AttachmentFolder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) async fn create(&self, name: AttachmentName) -> io::Result<()> {
        let part = self.part(name);
        blocking(move || {
            part.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::File::create_new(&part).map(drop)
        })
        .await
    }

    pub(super) async fn uploaded(&self, name: AttachmentName) -> io::Result<Uploaded> {
        match tokio::fs::metadata(self.whole(name)).await {
            Ok(found) => Ok(Uploaded::Whole(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tokio::fs::metadata(self.part(name)).await.map(|found| Uploaded::Part(found.len()))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn resume(&self, name: AttachmentName) -> io::Result<(FileUpload, u64)> {
        let (part, whole) = (self.part(name), self.whole(name));
        blocking(move || {
            let file = fs::OpenOptions::new().append(true).open(&part)?;
            file.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
                TryLockError::Error(error) => error,
            })?;
            let offset = file.metadata()?.len();
            Ok((FileUpload { file: File::from_std(file), part, whole }, offset))
        })
        .await
    }

    pub(super) async fn open(&self, name: AttachmentName) -> io::Result<File> {
        File::open(self.whole(name)).await
    }

    pub(super) async fn remove(&self, name: AttachmentName) -> io::Result<()> {
        match tokio::fs::remove_file(self.part(name)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tokio::fs::remove_file(self.whole(name)).await
            }
            done => done,
        }
    }

    pub(super) async fn purge(&self, now_ms: i64) -> io::Result<u64> {
        let root = self.root.clone();
        blocking(move || {
            let folders = match fs::read_dir(&root) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
                folders => folders?,
            };
            let (mut dropped, mut failed) = (0, Ok(()));
            for folder in folders {
                let folder = folder?;
                if folder.file_name().to_str().is_some_and(|name| is_over(name, now_ms)) {
                    match fs::remove_dir_all(folder.path()) {
                        Ok(()) => dropped += 1,
                        // Another node was faster.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => failed = Err(error),
                    }
                }
            }
            failed.map(|()| dropped)
        })
        .await
    }

    fn whole(&self, name: AttachmentName) -> PathBuf {
        self.root.join(day(name.expires_ms)).join(hex::encode(name.id))
    }

    fn part(&self, name: AttachmentName) -> PathBuf {
        self.whole(name).with_extension("part")
    }
}

impl FileUpload {
    pub(super) async fn write(&mut self, bytes: &Bytes) -> io::Result<()> {
        self.file.write_all(bytes).await
    }

    pub(super) async fn pause(mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_data().await
    }

    pub(super) async fn finish(mut self) -> io::Result<()> {
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

/// So many bytes of a file, from `first` on.
pub(super) async fn read(mut file: File, first: u64, length: u64) -> io::Result<Content> {
    file.seek(SeekFrom::Start(first)).await?;
    Ok(ReaderStream::with_capacity(file.take(length), CHUNK).boxed())
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
