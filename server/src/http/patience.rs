//! A socket whose other side takes nothing for too long is at its end: a reader that stalls would hold its place, and what
//! is read for it from a disk or a bucket, for as long as it likes. The place goes with the socket: a stream keeps it after
//! the connection was upgraded.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

/// Writes fail when none gets on for so long. Reads are as they were.
pub(super) struct Patient<S> {
    inner: S,
    patience: Duration,
    /// Since a write has not got on.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Among the connections that may be open.
    _place: Option<OwnedSemaphorePermit>,
}

impl<S: Unpin> Patient<S> {
    pub(super) fn new(inner: S, patience: Duration, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { inner, patience, waiting: None, _place: place }
    }

    fn inner(&mut self) -> Pin<&mut S> {
        Pin::new(&mut self.inner)
    }

    fn bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner().poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.inner().poll_write(context, bytes);
        self.bounded(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.inner().poll_write_vectored(context, slices);
        self.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.inner().poll_flush(context);
        self.bounded(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self.inner().poll_shutdown(context);
        self.bounded(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn write_fails_when_nothing_is_taken_and_not_while_a_little_is() {
        let (near, mut far) = duplex(1_000);
        let mut near = Patient::new(near, Duration::from_secs(2), None);
        // For longer than its patience, in all.
        let slow = async {
            let mut taken = [0; 1_000];
            for _ in 0..25 {
                sleep(Duration::from_millis(100)).await;
                far.read_exact(&mut taken).await.unwrap();
            }
        };
        let bytes = [7; 25_000];
        let (written, ()) = tokio::join!(near.write_all(&bytes), slow);
        written.unwrap();
        let refused = near.write_all(&bytes).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    }
}
