//! A server on a free port and the parties that talk to it over real sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use prost::Message;
use rand::Rng;
use reqwest::{Method, Response, StatusCode};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tuckseal::service::{
    Ack, Bundles, Challenge, ClientFrame, DeviceMessage, DeviceMismatch, Envelope, KeyCounts,
    KeysUpload, PublicPreKey, Registered, Registration, ServerFrame, SignedRegistration,
    StreamSubmission, Submission, Submissions, client_frame, server_frame, submission_answer,
};
use tuckseal::{KemKeyPair, PrivateKey, pad_envelope, unpad_envelope};
use tuckseal_server::config::Limits;
use tuckseal_server::{Config, Server};

/// Longer than anything here takes; only a hanging test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl Fn(&mut Limits)) -> Self {
        Self::on(tempfile::tempdir().unwrap(), change).await
    }

    pub(crate) async fn on(folder: TempDir, change: impl Fn(&mut Limits)) -> Self {
        Self::set(folder, |config| change(&mut config.limits)).await
    }

    pub(crate) async fn set(folder: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(folder.path());
        config.listen = ([127, 0, 0, 1], 0).into();
        // A busy machine has slow disks.
        config.limits.store_wait_ms = 60_000;
        change(&mut config);
        let server = Server::bind(config).await.unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            server.run(async { stopped.await.unwrap_or(()) }).await.unwrap();
        });
        Self { folder, address, stop: Some(stop), running }
    }

    /// Stops the server in good order and keeps its folder.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.signal_stop();
        self.ended().await
    }

    pub(crate) fn signal_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// After the signal: waits for the end.
    pub(crate) async fn ended(self) -> TempDir {
        tokio::time::timeout(PATIENCE, self.running).await.expect("it does not end").unwrap();
        self.folder
    }

    pub(crate) async fn party(&self, name: &str) -> Party {
        Party::register(self.address, name).await
    }

    pub(crate) fn database(&self) -> rusqlite::Connection {
        database(self.folder.path())
    }
}

/// Requests without TLS.
pub(crate) fn http() -> reqwest::Client {
    // Without a provider of cryptography, reqwest makes no client, although nothing here needs one.
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let _ = provider.install_default();
    reqwest::Client::new()
}

pub(crate) fn database(folder: &Path) -> rusqlite::Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    rusqlite::Connection::open_with_flags(folder.join("tuckseal.db"), flags).unwrap()
}

pub(crate) fn rows(db: &rusqlite::Connection, table: &str) -> i64 {
    db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// Somebody with an identity key, and an account after registration.
#[derive(Clone)]
pub(crate) struct Party {
    pub(crate) http: reqwest::Client,
    pub(crate) address: SocketAddr,
    pub(crate) name: String,
    pub(crate) identity: PrivateKey,
    pub(crate) registration_id: u32,
    pub(crate) access_key: [u8; 16],
    pub(crate) keys: KeysUpload,
    pub(crate) account: [u8; 16],
    pub(crate) device: u8,
    pub(crate) token: [u8; 32],
}

impl Party {
    pub(crate) fn new(address: SocketAddr, name: &str) -> Self {
        let identity = PrivateKey::generate(&mut rand::rng());
        let keys = fixed_keys(&identity, 1);
        Self {
            http: http(),
            address,
            name: name.into(),
            identity,
            registration_id: 1 + rand::rng().next_u32() % 0x3FFC,
            access_key: random(),
            keys,
            account: [0; 16],
            device: 1,
            token: [0; 32],
        }
    }

    pub(crate) async fn register(address: SocketAddr, name: &str) -> Self {
        let mut party = Self::new(address, name);
        party.register_again().await;
        party
    }

    /// Registers as it stands: the same name, keys and identity.
    pub(crate) async fn register_again(&mut self) {
        let registration = self.registration().await;
        let registered: Registered = message(self.send_registration(&registration).await).await;
        self.account = registered.account[..].try_into().unwrap();
        self.token = registered.token[..].try_into().unwrap();
        assert_eq!(registered.device_id, 1);
    }

    pub(crate) async fn registration(&self) -> Registration {
        let challenge: Challenge = message(self.post("/v1/challenges", Vec::new()).await).await;
        Registration {
            challenge: challenge.challenge,
            identity_key: Bytes::copy_from_slice(&self.identity.public_key().serialize()),
            registration_id: self.registration_id,
            username: self.name.clone(),
            access_key: Bytes::copy_from_slice(&self.access_key),
            keys: Some(self.keys.clone()),
        }
    }

    pub(crate) fn signed(&self, registration: &Registration) -> SignedRegistration {
        let registration = Bytes::from(registration.encode_to_vec());
        let message = [b"tuckseal-registration-v1", &registration[..]].concat();
        let signature = self.identity.sign(&message, &mut rand::rng());
        let signature = Bytes::copy_from_slice(&signature);
        SignedRegistration { registration, signature, work: Bytes::new() }
    }

    pub(crate) async fn send_registration(&self, registration: &Registration) -> Response {
        self.post("/v1/accounts", self.signed(registration).encode_to_vec()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Vec<u8>) -> Response {
        self.request(Method::POST, path).body(body).send().await.unwrap()
    }

    /// A request without credential.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.http.request(method, url).header("content-type", "application/x-protobuf")
    }

    /// A request with this party's device token.
    pub(crate) fn own(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request(method, path).header("authorization", self.bearer())
    }

    pub(crate) fn bearer(&self) -> String {
        let bytes = [&self.account[..], &[self.device], &self.token[..]].concat();
        format!("Bearer {}", URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(crate) fn access_header(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.access_key)
    }

    pub(crate) fn account_text(&self) -> String {
        uuid::Uuid::from_bytes(self.account).hyphenated().to_string()
    }

    pub(crate) async fn upload(&self, keys: &KeysUpload) -> Response {
        self.own(Method::PUT, "/v1/keys").body(keys.encode_to_vec()).send().await.unwrap()
    }

    pub(crate) async fn counts(&self) -> KeyCounts {
        message(self.own(Method::GET, "/v1/keys").send().await.unwrap()).await
    }

    pub(crate) fn fetch(&self, of: &Party) -> reqwest::RequestBuilder {
        self.own(Method::GET, &format!("/v1/keys/{}/*", of.account_text()))
    }

    pub(crate) async fn bundles(&self, of: &Party) -> Bundles {
        message(self.fetch(of).send().await.unwrap()).await
    }

    /// What a sealed message to this party looks like to the server, padded as a client does it.
    pub(crate) fn submission(&self, content: &[u8]) -> Submission {
        let mut content = content.to_vec();
        pad_envelope(&mut content).unwrap();
        self.unpadded(content)
    }

    /// The same without padding.
    pub(crate) fn unpadded(&self, content: Vec<u8>) -> Submission {
        let content = content.into();
        let (device_id, registration_id) = (self.device.into(), self.registration_id);
        let message = DeviceMessage { device_id, registration_id, content };
        Submission {
            submission_id: Bytes::copy_from_slice(&random::<16>()),
            messages: vec![message],
            ..Submission::default()
        }
    }

    /// Submits to this party by its access key.
    pub(crate) async fn receive(&self, submission: &Submission) -> Response {
        self.to_receive(submission).send().await.unwrap()
    }

    /// The same, where the server may be gone.
    pub(crate) async fn try_receive(
        &self,
        submission: &Submission,
    ) -> Result<StatusCode, reqwest::Error> {
        self.to_receive(submission).send().await.map(|response| response.status())
    }

    fn to_receive(&self, submission: &Submission) -> reqwest::RequestBuilder {
        let path = format!("/v1/messages/{}", self.account_text());
        let request = self.request(Method::PUT, &path).header("access-key", self.access_header());
        request.body(submission.encode_to_vec())
    }

    pub(crate) async fn receive_text(&self, text: &str) {
        let response = self.receive(&self.submission(text.as_bytes())).await;
        assert_eq!(response.status(), StatusCode::OK, "{text}");
    }

    pub(crate) async fn stream(&self) -> Stream {
        self.try_stream().await.unwrap()
    }

    /// A stream without a token.
    pub(crate) async fn bare_stream(&self) -> Stream {
        let request = format!("ws://{}/v1/stream", self.address);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        Stream { socket, waiting: Vec::new() }
    }

    /// What is handed in over a stream for this party.
    pub(crate) fn stream_submission(&self, content: &[u8]) -> StreamSubmission {
        StreamSubmission {
            account: Bytes::copy_from_slice(&self.account),
            access_key: Bytes::copy_from_slice(&self.access_key),
            submission: Some(self.submission(content)),
        }
    }

    pub(crate) async fn try_stream(&self) -> Result<Stream, tungstenite::Error> {
        let mut request = format!("ws://{}/v1/stream", self.address).into_client_request()?;
        request.headers_mut().insert("authorization", self.bearer().parse().unwrap());
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        Ok(Stream { socket, waiting: Vec::new() })
    }
}

/// The device's end of a stream.
pub(crate) struct Stream {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    waiting: Vec<Envelope>,
}

impl Stream {
    pub(crate) async fn raw(&mut self) -> Option<Result<Frame, tungstenite::Error>> {
        tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("nothing came")
    }

    pub(crate) async fn body(&mut self) -> server_frame::Body {
        loop {
            match self.raw().await.expect("the stream ended").unwrap() {
                Frame::Binary(bytes) => return read(bytes).unwrap(),
                Frame::Ping(_) | Frame::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next body that is no notice of prekeys.
    pub(crate) async fn next(&mut self) -> server_frame::Body {
        loop {
            match self.body().await {
                server_frame::Body::KeyCounts(_) => {}
                body => return body,
            }
        }
    }

    pub(crate) async fn key_counts(&mut self) -> KeyCounts {
        loop {
            if let server_frame::Body::KeyCounts(counts) = self.body().await {
                return counts;
            }
        }
    }

    pub(crate) async fn envelope(&mut self) -> Envelope {
        while self.waiting.is_empty() {
            if let server_frame::Body::Delivery(delivery) = self.next().await {
                self.waiting.extend(delivery.envelopes);
            }
        }
        self.waiting.remove(0)
    }

    pub(crate) async fn text(&mut self) -> String {
        String::from_utf8(self.envelope().await.content.to_vec()).unwrap()
    }

    /// All that waits, up to the mark that says so.
    pub(crate) async fn backlog(&mut self) -> Vec<Envelope> {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                server_frame::Body::Delivery(delivery) => all.extend(delivery.envelopes),
                server_frame::Body::QueueEmpty(_) => return all,
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next body; none when the stream is at its end, however that came.
    pub(crate) async fn try_body(&mut self) -> Option<server_frame::Body> {
        loop {
            match self.socket.next().await?.ok()? {
                Frame::Binary(bytes) => return read(bytes),
                Frame::Ping(_) | Frame::Pong(_) => {}
                _ => return None,
            }
        }
    }

    pub(crate) async fn ack(&mut self, envelopes: &[Envelope]) {
        self.try_ack(envelopes).await.unwrap();
    }

    pub(crate) async fn try_ack(
        &mut self,
        envelopes: &[Envelope],
    ) -> Result<(), tungstenite::Error> {
        let ids = envelopes.iter().map(|envelope| envelope.id.clone()).collect();
        let frame = ClientFrame { body: Some(client_frame::Body::Ack(Ack { ids })) };
        self.socket.send(Frame::Binary(frame.encode_to_vec().into())).await
    }

    pub(crate) async fn hand_in(&mut self, submissions: Vec<StreamSubmission>) {
        let body = client_frame::Body::Submissions(Submissions { submissions });
        let frame = ClientFrame { body: Some(body) };
        self.socket.send(Frame::Binary(frame.encode_to_vec().into())).await.unwrap();
    }

    /// So many answers, by submission id.
    pub(crate) async fn answers(
        &mut self,
        count: usize,
    ) -> std::collections::HashMap<Bytes, submission_answer::Result> {
        let mut answers = std::collections::HashMap::new();
        while answers.len() < count {
            match self.next().await {
                server_frame::Body::SubmissionAnswers(more) => {
                    let more = more.answers.into_iter();
                    answers.extend(more.map(|a| (a.submission_id, a.result.unwrap())));
                }
                server_frame::Body::Delivery(delivery) => self.waiting.extend(delivery.envelopes),
                server_frame::Body::QueueEmpty(_) => {}
                other => panic!("{other:?}"),
            }
        }
        answers
    }

    pub(crate) async fn leave(mut self) {
        self.socket.close(None).await.unwrap();
        while let Some(Ok(_)) = self.raw().await {}
    }

    /// The code with which the server closes.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.raw().await {
                Some(Ok(Frame::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

/// What the server says; of envelopes the padding is off, which has to be there.
fn read(frame: Bytes) -> Option<server_frame::Body> {
    let mut body = ServerFrame::decode(frame).unwrap().body?;
    let contents: Vec<&mut Bytes> = match &mut body {
        server_frame::Body::Delivery(delivery) => {
            delivery.envelopes.iter_mut().map(|envelope| &mut envelope.content).collect()
        }
        server_frame::Body::Ephemeral(ephemeral) => vec![&mut ephemeral.content],
        _ => Vec::new(),
    };
    for content in contents {
        content.truncate(unpad_envelope(content).unwrap().len());
    }
    Some(body)
}

pub(crate) fn texts(envelopes: &[Envelope]) -> Vec<String> {
    envelopes.iter().map(|envelope| String::from_utf8(envelope.content.to_vec()).unwrap()).collect()
}

pub(crate) async fn message<M: Message + Default>(response: Response) -> M {
    let status = response.status();
    let body = response.bytes().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    M::decode(body).unwrap()
}

pub(crate) async fn mismatch(response: Response) -> (StatusCode, DeviceMismatch) {
    let status = response.status();
    (status, DeviceMismatch::decode(response.bytes().await.unwrap()).unwrap())
}

/// Status and type of a refusal.
pub(crate) async fn problem(response: Response) -> (u16, String) {
    let problem: serde_json::Value =
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let status = problem["status"].as_u64().unwrap().try_into().unwrap();
    (status, problem["type"].as_str().unwrap().into())
}

/// The status of a refusal, after checking that it is a problem document that says so.
pub(crate) async fn refusal(response: Response) -> StatusCode {
    let status = response.status();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let problem: serde_json::Value =
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(kind, "application/problem+json");
    assert_eq!(problem["status"], status.as_u16());
    for field in ["type", "title", "detail"] {
        assert!(!problem[field].as_str().unwrap().is_empty(), "{field}");
    }
    status
}

/// A signed and a last-resort prekey.
pub(crate) fn fixed_keys(identity: &PrivateKey, id: u32) -> KeysUpload {
    KeysUpload {
        signed_prekey: Some(signed_key(identity, id)),
        last_resort_kem: Some(kem_key(identity, id)),
        ..KeysUpload::default()
    }
}

pub(crate) fn signed_key(identity: &PrivateKey, id: u32) -> PublicPreKey {
    let key = PrivateKey::generate(&mut rand::rng()).public_key().serialize();
    with_signature(identity, id, &key)
}

pub(crate) fn kem_key(identity: &PrivateKey, id: u32) -> PublicPreKey {
    with_signature(identity, id, &KemKeyPair::generate(&mut rand::rng()).public().serialize())
}

fn with_signature(identity: &PrivateKey, id: u32, key: &[u8]) -> PublicPreKey {
    let signature = identity.sign(key, &mut rand::rng());
    PublicPreKey {
        id,
        key: Bytes::copy_from_slice(key),
        signature: Bytes::copy_from_slice(&signature),
    }
}

/// One-time prekeys of both kinds with these ids. The KEM keys differ by id alone: that is what the server sees.
pub(crate) fn one_time_keys(
    identity: &PrivateKey,
    ids: std::ops::RangeInclusive<u32>,
) -> KeysUpload {
    let kem = kem_key(identity, 1);
    KeysUpload {
        one_time: ids.clone().map(one_time_key).collect(),
        one_time_kem: ids.map(|id| PublicPreKey { id, ..kem.clone() }).collect(),
        ..KeysUpload::default()
    }
}

pub(crate) fn one_time_key(id: u32) -> PublicPreKey {
    let key = PrivateKey::generate(&mut rand::rng()).public_key().serialize();
    PublicPreKey { id, key: Bytes::copy_from_slice(&key), signature: Bytes::new() }
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}
