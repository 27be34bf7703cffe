//! The WebSocket of a stream: frames out within a time, and the closing handshake.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes};
use prost::Message as _;
use tokio::time::timeout;
use tuckseal::service::{ServerFrame, server_frame};

use super::End;

/// How long the other side has to answer a close.
const CLOSING: Duration = Duration::from_secs(2);

#[cfg(test)]
type Inner = super::interleavings::Wire;
#[cfg(not(test))]
type Inner = axum::extract::ws::WebSocket;

pub(super) struct Socket {
    inner: Inner,
    write_limit: Duration,
}

impl Socket {
    pub(super) fn new(inner: impl Into<Inner>, write_secs: u64) -> Self {
        Self { inner: inner.into(), write_limit: Duration::from_secs(write_secs) }
    }

    pub(super) async fn recv(&mut self) -> Option<Result<Message, axum::Error>> {
        self.inner.recv().await
    }

    pub(super) async fn send(&mut self, body: server_frame::Body) -> Result<(), End> {
        let frame = ServerFrame { body: Some(body) };
        self.write(Message::Binary(frame.encode_to_vec().into())).await
    }

    pub(super) async fn write(&mut self, message: Message) -> Result<(), End> {
        match timeout(self.write_limit, self.inner.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    pub(super) async fn close(mut self, code: u16, reason: impl Into<Utf8Bytes>) {
        let frame = CloseFrame { code, reason: reason.into() };
        if let Ok(Ok(())) = timeout(CLOSING, self.inner.send(Message::Close(Some(frame)))).await {
            self.drain().await;
        }
    }

    /// Lets the closing handshake end. Without an answer the socket is dropped.
    pub(super) async fn drain(mut self) {
        let closing = async { while let Some(Ok(_)) = self.inner.recv().await {} };
        let _ = timeout(CLOSING, closing).await;
    }
}
