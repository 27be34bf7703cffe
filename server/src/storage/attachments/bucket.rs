//! Attachments as objects of a bucket that speaks S3.
//!
//! ```text
//! PREFIX/tuckseal-DAY/ID/open    an upload was begun; 0 bytes
//! PREFIX/tuckseal-DAY/ID/OFFSET  a piece: the bytes from OFFSET (16 digits, hex) on
//! ```
//! A piece is put as a whole, and only if there is none at its offset. So the list of the pieces is all there is to
//! know: bytes up to the end of the last piece are durable, every node sees the same ones, and of two writers at one
//! offset the bucket lets one through. The attachment is whole when the pieces are as long as its name says; nothing
//! is put together afterwards. Multipart uploads are not used: they keep no bytes below 5 MiB, and their parts cannot
//! be read.

mod client;
mod upload;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode};
use tokio::sync::Semaphore;
use tokio_rustls::rustls;

pub use upload::BucketUpload;

use super::{AttachmentName, Content, Uploaded, day, is_over};
use crate::config::{BucketPlace, S3Settings};

/// Largest piece: what an upload holds in memory, and loses when the node is killed.
const PIECE: usize = 4 * 1024 * 1024;
/// Pieces beyond those that a large attachment needs: so often an upload may be broken off.
const SPARE_PIECES: u64 = 1_000;
/// Memory is given out in units of this.
const UNIT: usize = 16 * 1024;
const OPEN: &str = "open";
/// Digits of a piece's key.
const KEY_LEN: usize = 16;

/// Why a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BucketError {
    /// The file of the secret key cannot be read.
    #[error("cannot read s3_secret_key_file {path}: {source}")]
    SecretKey {
        /// As set.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The prefix has parts that no key may have.
    #[error("the prefix of attachments is no path of a bucket ({0})")]
    Prefix(#[from] object_store::path::Error),
    /// The settings, or those in AWS_… of the environment, do not make a client.
    #[error("attachments in a bucket: {0}")]
    Settings(#[source] object_store::Error),
    /// The roots of the operating system cannot be used.
    #[error("no client of HTTPS for the bucket: {0}")]
    Tls(#[from] rustls::Error),
    /// As above.
    #[error("no client of HTTP for the bucket: {0}")]
    Http(#[from] reqwest::Error),
    /// The bucket does not do what is asked of it.
    #[error("the bucket cannot be used: {0}")]
    Refused(#[source] object_store::Error),
    /// The bucket let a second writer through.
    #[error(
        "the bucket does not know If-None-Match: two requests could write to one upload; use a server of S3 that does"
    )]
    NoConditions,
}

/// A bucket, from its prefix on. Clones share the memory that uploads have.
#[derive(Debug, Clone)]
pub struct AttachmentBucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    memory: Arc<Semaphore>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    offset: u64,
    length: u64,
}

impl Piece {
    fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

impl AttachmentBucket {
    /// A client of the bucket. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`BucketError`]
    pub fn new(
        place: &BucketPlace,
        settings: &S3Settings,
        memory_kib: u64,
    ) -> Result<Self, BucketError> {
        let store = client::builder(place, settings)?.build().map_err(BucketError::Settings)?;
        let units = memory_kib.saturating_mul(1024) / UNIT as u64;
        let units = usize::try_from(units).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        // One piece must find room.
        let units = units.max(PIECE / UNIT);
        Ok(Self {
            store: Arc::new(store),
            prefix: Path::parse(&place.prefix)?,
            memory: Arc::new(Semaphore::new(units)),
        })
    }

    /// Whether the bucket takes, lists, gives back and forgets an object, and refuses to put one twice.
    ///
    /// # Errors
    /// [`BucketError::Refused`], [`BucketError::NoConditions`]
    pub async fn probe(&self) -> Result<(), BucketError> {
        let folder = self.prefix.clone().join(format!("check-{:x}", rand::random::<u64>()));
        let key = folder.clone().join(OPEN);
        let put =
            || self.store.put_opts(&key, Bytes::from_static(b"x").into(), PutMode::Create.into());
        put().await.map_err(BucketError::Refused)?;
        let twice = put().await;
        let listed = self.store.list(Some(&folder)).try_next().await;
        let read = self.store.get_range(&key, 0..1).await;
        self.store.delete(&key).await.map_err(BucketError::Refused)?;
        listed.and(read.map(drop)).map_err(BucketError::Refused)?;
        match twice {
            Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(BucketError::Refused(error)),
            Ok(_) => Err(BucketError::NoConditions),
        }
    }

    pub(super) async fn create(&self, name: AttachmentName) -> io::Result<()> {
        self.put_new(&self.folder(name).join(OPEN), Bytes::new()).await
    }

    pub(super) async fn uploaded(&self, name: AttachmentName) -> io::Result<Uploaded> {
        let bytes = end(&self.pieces(name).await?);
        Ok(if bytes < name.size { Uploaded::Part(bytes) } else { Uploaded::Whole(bytes) })
    }

    pub(super) async fn resume(&self, name: AttachmentName) -> io::Result<(BucketUpload, u64)> {
        let pieces = self.pieces(name).await?;
        let offset = end(&pieces);
        if offset >= name.size {
            return Err(io::ErrorKind::NotFound.into());
        }
        let room = most_pieces(name).saturating_sub(pieces.len() as u64);
        if room == 0 {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let (bucket, folder) = (self.clone(), self.folder(name));
        Ok((BucketUpload::new(bucket, folder, (offset, room)), offset))
    }

    pub(super) async fn open(&self, name: AttachmentName) -> io::Result<Pieces> {
        let pieces = self.pieces(name).await?;
        if end(&pieces) < name.size {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Pieces { store: Arc::clone(&self.store), folder: self.folder(name), pieces })
    }

    pub(super) async fn remove(&self, name: AttachmentName) -> io::Result<()> {
        let folder = self.folder(name);
        let mut keys: Vec<Path> = self
            .store
            .list(Some(&folder))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .map_err(io_error)?;
        if keys.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        // The mark goes first: without it there is nothing to read and nothing to go on with, whatever comes between.
        let mark = folder.join(OPEN);
        if keys.contains(&mark) {
            self.store.delete(&mark).await.map_err(io_error)?;
            keys.retain(|key| *key != mark);
        }
        self.delete_all(stream::iter(keys.into_iter().map(Ok)).boxed()).await
    }

    pub(super) async fn purge(&self, now_ms: i64) -> io::Result<u64> {
        let days = self.store.list_with_delimiter(Some(&self.prefix)).await.map_err(io_error)?;
        let (mut dropped, mut failed) = (0, Ok(()));
        for day in days.common_prefixes {
            if day.filename().is_some_and(|name| is_over(name, now_ms)) {
                let keys = self.store.list(Some(&day)).map_ok(|object| object.location).boxed();
                match self.delete_all(keys).await {
                    Ok(()) => dropped += 1,
                    Err(error) => failed = Err(error),
                }
            }
        }
        failed.map(|()| dropped)
    }

    async fn delete_all(
        &self,
        keys: stream::BoxStream<'static, object_store::Result<Path>>,
    ) -> io::Result<()> {
        let mut deleted = self.store.delete_stream(keys);
        while let Some(one) = deleted.next().await {
            match one {
                // Another node was faster.
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(io_error(error)),
            }
        }
        Ok(())
    }

    /// The pieces from the first byte on, without a hole.
    async fn pieces(&self, name: AttachmentName) -> io::Result<Vec<Piece>> {
        let (mut pieces, mut begun) = (Vec::new(), false);
        let mut objects = self.store.list(Some(&self.folder(name)));
        while let Some(object) = objects.try_next().await.map_err(io_error)? {
            let key = object.location.filename().unwrap_or_default();
            begun |= key == OPEN;
            let offset = u64::from_str_radix(key, 16).ok().filter(|_| key.len() == KEY_LEN);
            pieces.extend(offset.map(|offset| Piece { offset, length: object.size }));
        }
        if !begun {
            return Err(io::ErrorKind::NotFound.into());
        }
        pieces.sort_unstable_by_key(|piece| piece.offset);
        let mut next = 0;
        let chained = pieces.iter().take_while(|piece| {
            let follows = piece.offset == next;
            next = piece.end();
            follows
        });
        let chained = chained.count();
        pieces.truncate(chained);
        Ok(pieces)
    }

    async fn put_new(&self, key: &Path, bytes: Bytes) -> io::Result<()> {
        let put = self.store.put_opts(key, bytes.into(), PutMode::Create.into()).await;
        put.map(drop).map_err(io_error)
    }

    fn folder(&self, name: AttachmentName) -> Path {
        self.prefix.clone().join(day(name.expires_ms)).join(hex::encode(name.id))
    }
}

/// The pieces of an attachment that is whole.
pub struct Pieces {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    pieces: Vec<Piece>,
}

impl Pieces {
    pub(super) fn size(&self) -> u64 {
        end(&self.pieces)
    }

    pub(super) fn read(self, first: u64, length: u64) -> Content {
        let Self { store, folder, pieces } = self;
        let last = first.saturating_add(length);
        let wanted =
            pieces.into_iter().filter(move |piece| piece.end() > first && piece.offset < last);
        let parts = wanted.map(move |piece| {
            let (store, key) =
                (Arc::clone(&store), folder.clone().join(format!("{:016x}", piece.offset)));
            let begins = first.saturating_sub(piece.offset);
            let ends = last.min(piece.end()).saturating_sub(piece.offset);
            async move {
                let range = Some(GetRange::Bounded(begins..ends));
                let got = store.get_opts(&key, GetOptions { range, ..GetOptions::default() }).await;
                got.map(|got| got.into_stream().map_err(io_error)).map_err(io_error)
            }
        });
        // The next piece is asked for while this one is read.
        stream::iter(parts).buffered(2).try_flatten().boxed()
    }
}

fn end(pieces: &[Piece]) -> u64 {
    pieces.last().map_or(0, |piece| piece.end())
}

fn most_pieces(name: AttachmentName) -> u64 {
    SPARE_PIECES.saturating_add(name.size.div_ceil(PIECE as u64))
}

fn io_error(error: object_store::Error) -> io::Error {
    match error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound.into(),
        object_store::Error::AlreadyExists { .. } => io::ErrorKind::WouldBlock.into(),
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    const NAME: AttachmentName = AttachmentName { id: [1; 16], expires_ms: 0, size: 10_000 };

    fn bucket() -> AttachmentBucket {
        let (store, memory) = (Arc::new(InMemory::new()), Arc::new(Semaphore::new(1_000)));
        AttachmentBucket { store, prefix: Path::default(), memory }
    }

    async fn put(bucket: &AttachmentBucket, offset: u64) {
        let key = bucket.folder(NAME).join(format!("{offset:016x}"));
        bucket.put_new(&key, Bytes::from_static(b"x")).await.unwrap();
    }

    #[tokio::test]
    async fn upload_in_too_many_pieces_is_refused_and_stays_readable() {
        let bucket = bucket();
        bucket.create(NAME).await.unwrap();
        for offset in 0..most_pieces(NAME) {
            put(&bucket, offset).await;
        }
        let refused = bucket.resume(NAME).await.map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
        let there = bucket.uploaded(NAME).await.unwrap();
        assert_eq!(there, Uploaded::Part(most_pieces(NAME)));
    }

    #[tokio::test]
    async fn what_is_not_the_relays_own_stays() {
        let bucket = bucket();
        let photo = Path::from("2024/photo");
        bucket.put_new(&photo, Bytes::from_static(b"x")).await.unwrap();
        bucket.create(NAME).await.unwrap();
        assert_eq!(bucket.purge(i64::MAX / 2).await.unwrap(), 1);
        let left: Vec<_> = bucket.store.list(None).try_collect().await.unwrap();
        assert_eq!(left.into_iter().map(|object| object.location).collect::<Vec<_>>(), [photo]);
    }

    #[tokio::test]
    async fn what_lies_behind_a_hole_does_not_count() {
        let bucket = bucket();
        bucket.create(NAME).await.unwrap();
        for offset in [0, 1, 3] {
            put(&bucket, offset).await;
        }
        assert_eq!(bucket.uploaded(NAME).await.unwrap(), Uploaded::Part(2));
    }
}
