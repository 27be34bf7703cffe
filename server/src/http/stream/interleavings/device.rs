//! The device's side: a WebSocket in memory, and what comes out of it.

use std::sync::{Arc, Mutex};

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use prost::Message as _;
use tuckseal::service::{Ack, ClientFrame, ServerFrame, client_frame, server_frame};

use super::Number;

/// What a socket writes to.
pub(in crate::http::stream) enum Wire {
    /// Nothing in these tests does.
    Web(Box<WebSocket>),
    Device(Pipe),
}

impl From<WebSocket> for Wire {
    fn from(socket: WebSocket) -> Self {
        Self::Web(Box::new(socket))
    }
}

impl From<Pipe> for Wire {
    fn from(pipe: Pipe) -> Self {
        Self::Device(pipe)
    }
}

impl Wire {
    /// What a device sends does not come by here: the search hands it to the stream.
    pub(in crate::http::stream) async fn recv(&mut self) -> Option<Result<Message, axum::Error>> {
        match self {
            Self::Web(socket) => socket.recv().await,
            Self::Device(_) => None,
        }
    }

    pub(in crate::http::stream) async fn send(
        &mut self,
        message: Message,
    ) -> Result<(), axum::Error> {
        match self {
            Self::Web(socket) => socket.send(message).await,
            Self::Device(pipe) => {
                pipe.write(message);
                Ok(())
            }
        }
    }
}

/// From a stream to a device. Clones are of one.
#[derive(Clone, Default)]
pub(in crate::http::stream) struct Pipe(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    envelopes: Vec<(Bytes, Number)>,
    ephemeral: Vec<Number>,
    closed: Option<u16>,
}

impl Pipe {
    fn write(&self, message: Message) {
        let mut written = self.0.lock().unwrap();
        match message {
            Message::Binary(bytes) => match ServerFrame::decode(bytes).unwrap().body {
                Some(server_frame::Body::Delivery(delivery)) => {
                    let envelopes = delivery.envelopes.into_iter();
                    let envelopes = envelopes.map(|envelope| (envelope.id, envelope.content[0]));
                    written.envelopes.extend(envelopes);
                }
                Some(server_frame::Body::Ephemeral(passing)) => {
                    written.ephemeral.push(passing.content[0]);
                }
                _ => {}
            },
            Message::Close(close) => written.closed = close.map(|close| close.code),
            _ => {}
        }
    }

    pub(super) fn closed(&self) -> Option<u16> {
        self.0.lock().unwrap().closed
    }

    /// Envelopes and others that the device has not read.
    pub(super) fn unread(&self) -> (Vec<Number>, Vec<Number>) {
        let written = self.0.lock().unwrap();
        let numbers = written.envelopes.iter().map(|(_, number)| *number).collect();
        (numbers, written.ephemeral.clone())
    }

    pub(super) fn has_something(&self) -> bool {
        self.unread() != (Vec::new(), Vec::new())
    }

    /// The device reads all that is there. Gives the envelopes.
    pub(super) fn read(&self) -> Vec<(Bytes, Number)> {
        let mut written = self.0.lock().unwrap();
        written.ephemeral.clear();
        std::mem::take(&mut written.envelopes)
    }
}

pub(super) fn acknowledgement(ids: Vec<Bytes>) -> Message {
    let body = Some(client_frame::Body::Ack(Ack { ids }));
    Message::Binary(ClientFrame { body }.encode_to_vec().into())
}
