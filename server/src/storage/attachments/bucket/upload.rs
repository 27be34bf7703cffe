//! Bytes on their way into a bucket, a piece at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::{AttachmentBucket, PIECE, UNIT};

/// How long an upload waits for memory.
const MEMORY_PATIENCE: Duration = Duration::from_secs(10);

/// Gathers bytes for a piece. What it holds is not durable: `finish` makes it so.
pub struct BucketUpload {
    bucket: AttachmentBucket,
    folder: Path,
    /// Of the first byte in the buffer.
    offset: u64,
    /// Pieces that may still be put.
    room: u64,
    buffer: BytesMut,
    held: Option<OwnedSemaphorePermit>,
}

impl BucketUpload {
    /// Goes on at this offset, with room for so many pieces.
    pub(super) fn new(bucket: AttachmentBucket, folder: Path, (offset, room): (u64, u64)) -> Self {
        Self { bucket, folder, offset, room, buffer: BytesMut::new(), held: None }
    }

    pub(in super::super) async fn write(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = PIECE.saturating_sub(self.buffer.len());
            let next = bytes.split_to(room.min(bytes.len()));
            self.make_room(next.len()).await?;
            self.buffer.extend_from_slice(&next);
            if self.buffer.len() >= PIECE {
                self.put().await?;
            }
        }
        Ok(())
    }

    pub(in super::super) async fn finish(mut self) -> io::Result<()> {
        self.put().await
    }

    /// Takes memory for so many bytes more. If none is left, the piece is put early: who waits for memory holds none.
    async fn make_room(&mut self, more: usize) -> io::Result<()> {
        let Err(()) = self.take(more) else { return Ok(()) };
        self.put().await?;
        let units = u32::try_from(more.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.bucket.memory).acquire_many_owned(units);
        let taken = timeout(MEMORY_PATIENCE, taken).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "no memory is left for uploads")
        })?;
        // The semaphore is never closed.
        self.held = taken.ok();
        Ok(())
    }

    fn take(&mut self, more: usize) -> Result<(), ()> {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = (self.buffer.len() + more).div_ceil(UNIT).saturating_sub(held);
        let wanted = u32::try_from(wanted).map_err(drop)?;
        let taken = Arc::clone(&self.bucket.memory).try_acquire_many_owned(wanted).map_err(drop)?;
        match &mut self.held {
            Some(held) => held.merge(taken),
            None => self.held = Some(taken),
        }
        Ok(())
    }

    async fn put(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.room = self.room.checked_sub(1).ok_or(io::ErrorKind::QuotaExceeded)?;
        let bytes = std::mem::take(&mut self.buffer).freeze();
        let (key, length) =
            (self.folder.clone().join(format!("{:016x}", self.offset)), bytes.len());
        self.bucket.put_new(&key, bytes).await?;
        self.offset = self.offset.saturating_add(length as u64);
        self.held = None;
        Ok(())
    }
}
