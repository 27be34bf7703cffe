//! The least of HTTP and WebSocket that a generator needs: keep-alive requests with a length, binary frames.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tuckseal::service::{ClientFrame, ServerFrame, client_frame, server_frame};

use super::device::BenchError;
use super::tls::Tls;

/// A socket, plain or with TLS.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection for one request after another.
pub(super) struct Http(BufReader<Box<dyn Io>>);

impl Http {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self, BenchError> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self(BufReader::new(Box::new(socket))))
    }

    pub(super) async fn connect_by_tls(address: SocketAddr, tls: &Tls) -> Result<Self, BenchError> {
        let socket = TcpStream::connect(address).await?;
        Ok(Self(BufReader::new(Box::new(tls.connect(socket).await?))))
    }

    /// The body of a 200.
    pub(super) async fn ask(
        &mut self,
        request: &str,
        header: &str,
        body: &[u8],
    ) -> Result<Bytes, BenchError> {
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/x-protobuf\r\n\
             content-length: {length}\r\n{header}\r\n"
        );
        self.0.write_all(&[head.as_bytes(), body].concat()).await?;
        let (status, length) = self.head().await?;
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).await?;
        if status == 200 { Ok(answer.into()) } else { Err(BenchError::Status(status)) }
    }

    async fn head(&mut self) -> Result<(u16, usize), BenchError> {
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            self.0.read_line(&mut line).await?;
            match line.trim_end() {
                "" => return Ok((status, length)),
                text if text.starts_with("HTTP/") => {
                    status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
                }
                text => {
                    let value = text.split_once(": ");
                    if let Some(("content-length", value)) = value {
                        length = value.parse().unwrap_or(0);
                    }
                }
            }
        }
    }

    /// Turns into a stream.
    pub(super) async fn upgrade(mut self, header: &str) -> Result<Stream, BenchError> {
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let head = format!(
            "GET /v1/stream HTTP/1.1\r\nhost: bench\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n{header}\r\n"
        );
        self.0.write_all(head.as_bytes()).await?;
        let (status, _) = self.head().await?;
        if status != 101 {
            return Err(BenchError::Status(status));
        }
        let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(4096);
        let read = self.0.buffer().to_vec();
        let socket = self.0.into_inner();
        let inner =
            WebSocketStream::from_partially_read(socket, read, Role::Client, Some(config)).await;
        Ok(Stream(inner))
    }
}

/// A stream.
pub(super) struct Stream(WebSocketStream<Box<dyn Io>>);

impl Stream {
    pub(super) async fn send(&mut self, body: client_frame::Body) -> Result<(), BenchError> {
        let frame = ClientFrame { body: Some(body) };
        let sent = self.0.send(Message::Binary(frame.encode_to_vec().into())).await;
        sent.map_err(|_| BenchError::Closed)
    }

    pub(super) async fn next(&mut self) -> Result<server_frame::Body, BenchError> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    let frame = ServerFrame::decode(bytes).map_err(|_| BenchError::Answer)?;
                    return frame.body.ok_or(BenchError::Answer);
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(BenchError::Closed),
                Some(Ok(_)) => {}
            }
        }
    }
}
