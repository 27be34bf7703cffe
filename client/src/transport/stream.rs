//! The stream: envelopes in, acknowledgements out, over one WebSocket.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use prost::Message;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message as Frame};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};
use tuckseal::service::{Ack, ClientFrame, ServerFrame, client_frame, server_frame};

use super::http::Http;
use super::{ServerError, device_token};
use crate::store::Account;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The server is heard at least each 30 s, by a ping if by nothing else.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(90);
/// A line that takes nothing for so long is dead; a shutdown waits for it.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest frame that the server sends has one envelope of the largest size.
const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// Close code: this device opened another stream.
const DISPLACED: u16 = 4409;
/// A server that restarts or is busy cannot keep us away for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// An open stream.
#[derive(Debug)]
pub(crate) struct Stream {
    server: String,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// When it was heard last. Here, because waits for a frame are often broken off for something else.
    heard: Instant,
}

/// Why the stream is no more.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Open another.
    Broken(ServerError),
    /// Another stream of this device took its place.
    Displaced,
}

impl Stream {
    /// # Errors
    /// [`ServerError::Unauthorised`] is for good; the others may pass.
    pub(crate) async fn open(http: &Http, own: &Account) -> Result<Self, ServerError> {
        let server = http.server();
        let unreachable = || ServerError::Unreachable { server: server.to_owned() };
        let address = server.replacen("http", "ws", 1);
        let mut request = format!("{address}/v1/stream")
            .into_client_request()
            .map_err(|_| ServerError::Address { server: server.to_owned() })?;
        let mut token =
            HeaderValue::from_str(&device_token(own)).map_err(|_| ServerError::Answer)?;
        token.set_sensitive(true);
        request.headers_mut().insert("authorization", token);
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES));
        let tls = Some(Connector::Rustls(http.tls()));
        let opening = connect_async_tls_with_config(request, Some(config), true, tls);
        match timeout(CONNECT_TIMEOUT, opening).await {
            Ok(Ok((socket, _))) => {
                Ok(Self { server: server.to_owned(), socket, heard: Instant::now() })
            }
            Ok(Err(Error::Http(response))) => {
                Err(super::refusal(response.status(), response.headers(), LONGEST_WAIT))
            }
            Ok(Err(_)) | Err(_) => Err(unreachable()),
        }
    }

    /// The next frame with something in it. Breaking the wait off loses nothing.
    pub(crate) async fn next(&mut self) -> Result<server_frame::Body, Ended> {
        loop {
            let frame = timeout_at(self.heard + SILENCE_TIMEOUT, self.socket.next()).await;
            self.heard = Instant::now();
            match frame {
                Ok(Some(Ok(Frame::Binary(bytes)))) => {
                    let frame = ServerFrame::decode(bytes);
                    let frame = frame.map_err(|_| Ended::Broken(ServerError::Answer))?;
                    if let Some(body) = frame.body {
                        return Ok(body);
                    }
                }
                Ok(Some(Ok(Frame::Close(Some(close))))) if u16::from(close.code) == DISPLACED => {
                    return Err(Ended::Displaced);
                }
                Ok(Some(Ok(Frame::Close(Some(close)))))
                    if close.code == CloseCode::Restart
                        && let Some(retry_after) = retry_after(&close.reason) =>
                {
                    return Err(Ended::Broken(ServerError::Restarts { retry_after }));
                }
                Ok(Some(Ok(Frame::Close(_)))) | Ok(Some(Err(_))) | Ok(None) | Err(_) => {
                    return Err(Ended::Broken(self.unreachable()));
                }
                Ok(Some(Ok(_))) => {}
            }
        }
    }

    /// Says that these envelopes may be deleted.
    pub(crate) async fn acknowledge(&mut self, ids: Vec<Bytes>) -> Result<(), Ended> {
        let frame = ClientFrame { body: Some(client_frame::Body::Ack(Ack { ids })) };
        let sending = self.socket.send(Frame::Binary(frame.encode_to_vec().into()));
        match timeout(SEND_TIMEOUT, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Ended::Broken(self.unreachable())),
        }
    }

    /// Says goodbye; the server need not answer.
    pub(crate) async fn close(mut self) {
        // It is closed either way.
        let _ = timeout(Duration::from_secs(1), self.socket.close(None)).await;
    }

    fn unreachable(&self) -> ServerError {
        ServerError::Unreachable { server: self.server.clone() }
    }
}

/// What a server that restarts says last, as in `the server restarts; retry-after: 3`.
fn retry_after(reason: &str) -> Option<Duration> {
    let (_, secs) = reason.split_once("retry-after: ")?;
    Some(Duration::from_secs(secs.parse().ok()?).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silent_stream_ends_however_often_the_wait_for_it_is_broken_off() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("ws://{}", listener.local_addr().unwrap());
        let silent = async {
            tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await.unwrap()
        };
        let (_silent, opened) = tokio::join!(silent, tokio_tungstenite::connect_async(address));
        let heard = Instant::now() - SILENCE_TIMEOUT + Duration::from_millis(200);
        let mut stream = Stream { server: String::new(), socket: opened.unwrap().0, heard };
        let mut waits = 0;
        let ended = loop {
            match timeout(Duration::from_millis(50), stream.next()).await {
                Ok(ended) => break ended.unwrap_err(),
                Err(_) => waits += 1,
            }
            assert!(waits < 100, "it does not end");
        };
        assert!(matches!(ended, Ended::Broken(_)));
    }

    #[test]
    fn time_to_come_back_is_read_and_never_long() {
        let secs = |reason| retry_after(reason).map(|after| after.as_secs());
        assert_eq!(secs("the server restarts; retry-after: 3"), Some(3));
        assert_eq!(secs("retry-after: 18446744073709551615"), Some(60));
        for none in
            ["", "the server restarts", "retry-after: ", "retry-after: -1", "retry-after: 3 s"]
        {
            assert_eq!(secs(none), None, "{none}");
        }
    }
}
