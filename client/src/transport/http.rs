//! Requests. There are two clients that share no connection: one shows the device token, the other
//! never does, so that the server cannot tell who makes a request by access key.

use bytes::Bytes;
use prost::Message;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::ClientConfig;
use tuckseal::service::{
    AccountAnswer, AttachmentSlot, Bundles, Challenge, DeviceLink, DeviceMismatch, DeviceName,
    Devices, KeyCounts, KeysUpload, LinkedDevice, MultiAccepted, Registered, Report, ReportTokens,
    SenderCertificateAnswer, ServerInfo, SignedDevice, SignedRegistration,
};
use tuckseal::{DeviceId, ServiceId};

use super::{Ca, ServerError, SubmitError, UploadError, access_key, device_token, high_water, tls};
use crate::engine::Authority;
use crate::store::{Account, SentBy};

const PROTOBUF: &str = "application/x-protobuf";
/// A whole request, answer included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The server keeps who waits for a new device for up to as long as its operator has set, 30 s as a rule.
const LINK_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The whole of a download.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Until a request is made again; a server may ask for as long as its limits by the hour need.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);
const TUS: (&str, &str) = ("tus-resumable", "1.0.0");
/// Larger answers are not ours: bundles of 127 devices have 250 KiB.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    server: String,
    tls: Arc<ClientConfig>,
    named: reqwest::Client,
    anonymous: reqwest::Client,
}

impl Http {
    /// # Errors
    /// [`ServerError::Address`] for an address that is not `https://…` or `http://…`, [`ServerError::Tls`].
    pub(crate) fn new(server: &str, ca: Option<&Ca>) -> Result<Self, ServerError> {
        let server = server.trim_end_matches('/').to_owned();
        let usable = reqwest::Url::parse(&server).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.path() == "/"
        });
        let address = || ServerError::Address { server: server.clone() };
        if !usable {
            return Err(address());
        }
        let tls = tls::config(&server, ca)?;
        let client = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .timeout(REQUEST_TIMEOUT)
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .build()
                .map_err(|_| address())
        };
        Ok(Self { named: client()?, anonymous: client()?, server, tls: Arc::new(tls) })
    }

    /// For the stream.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// For the stream: whom to trust.
    pub(super) fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.tls)
    }

    pub(crate) async fn server_info(&self) -> Result<ServerInfo, ServerError> {
        self.ask(self.open(Method::GET, "server")).await
    }

    pub(crate) async fn challenge(&self) -> Result<Challenge, ServerError> {
        self.ask(self.open(Method::POST, "challenges")).await
    }

    pub(crate) async fn register(
        &self,
        registration: &SignedRegistration,
    ) -> Result<Registered, ServerError> {
        self.ask(with_body(self.open(Method::POST, "accounts"), registration.encode_to_vec())).await
    }

    pub(crate) async fn key_counts(&self, own: &Account) -> Result<KeyCounts, ServerError> {
        self.ask(self.as_device(Method::GET, "keys", own)).await
    }

    pub(crate) async fn upload_keys(
        &self,
        own: &Account,
        keys: &KeysUpload,
    ) -> Result<KeyCounts, UploadError> {
        let request = with_body(self.as_device(Method::PUT, "keys", own), keys.encode_to_vec());
        let response = self.send(request).await.map_err(UploadError::Server)?;
        if response.status() == StatusCode::CONFLICT {
            let problem = self.body(response).await.map_err(UploadError::Server)?;
            let marks = high_water(&problem);
            return Err(marks.map_or(UploadError::Server(ServerError::Conflict), UploadError::Used));
        }
        self.answer(response).await.map_err(UploadError::Server)
    }

    pub(crate) async fn certificate(
        &self,
        own: &Account,
    ) -> Result<SenderCertificateAnswer, ServerError> {
        self.ask(self.as_device(Method::GET, "certificates/sender", own)).await
    }

    pub(crate) async fn open_link(&self, own: &Account) -> Result<DeviceLink, ServerError> {
        self.ask(self.as_device(Method::POST, "devices/links", own)).await
    }

    /// The device that a link has made; `None`: not yet, ask again. The server waits a while before it says so.
    pub(crate) async fn linked(
        &self,
        own: &Account,
        link: [u8; 16],
    ) -> Result<Option<LinkedDevice>, ServerError> {
        let link = u128::from_be_bytes(link);
        let request = self.as_device(Method::GET, &format!("devices/links/{link:032x}"), own);
        let response = self.send(request.timeout(LINK_TIMEOUT)).await?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(None),
            _ => self.answer(response).await.map(Some),
        }
    }

    pub(crate) async fn register_device(
        &self,
        registration: &SignedDevice,
    ) -> Result<Registered, ServerError> {
        self.ask(with_body(self.open(Method::POST, "devices"), registration.encode_to_vec())).await
    }

    pub(crate) async fn devices(&self, own: &Account) -> Result<Devices, ServerError> {
        self.ask(self.as_device(Method::GET, "devices", own)).await
    }

    pub(crate) async fn name_device(
        &self,
        own: &Account,
        device: DeviceId,
        name: Bytes,
    ) -> Result<(), ServerError> {
        let request = self.as_device(Method::PUT, &format!("devices/{}/name", device.get()), own);
        self.done(with_body(request, DeviceName { name }.encode_to_vec())).await
    }

    pub(crate) async fn remove_device(
        &self,
        own: &Account,
        device: DeviceId,
    ) -> Result<(), ServerError> {
        self.done(self.as_device(Method::DELETE, &format!("devices/{}", device.get()), own)).await
    }

    /// `registration` is an encoded `PushRegistration`.
    pub(crate) async fn register_push(
        &self,
        own: &Account,
        registration: Bytes,
    ) -> Result<(), ServerError> {
        self.done(with_body(self.as_device(Method::PUT, "push", own), registration)).await
    }

    pub(crate) async fn unregister_push(&self, own: &Account) -> Result<(), ServerError> {
        self.done(self.as_device(Method::DELETE, "push", own)).await
    }

    pub(crate) async fn report_tokens(&self, own: &Account) -> Result<ReportTokens, ServerError> {
        self.ask(self.as_device(Method::POST, "report-tokens", own)).await
    }

    pub(crate) async fn report(&self, own: &Account, report: &Report) -> Result<(), ServerError> {
        let request = self.as_device(Method::POST, "reports", own);
        self.done(with_body(request, report.encode_to_vec())).await
    }

    pub(crate) async fn account_of(
        &self,
        own: &Account,
        name: &str,
    ) -> Result<ServiceId, ServerError> {
        // A name that would need escaping is none that a server gives.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || !name.chars().all(plain) || name.starts_with('.') {
            return Err(ServerError::NotFound);
        }
        let request = self.as_device(Method::GET, &format!("usernames/{name}"), own);
        let answer: AccountAnswer = match self.ask(request).await {
            // The server may call a name impossible rather than unknown.
            Err(ServerError::Refused { status: 400 }) => return Err(ServerError::NotFound),
            answer => answer?,
        };
        let account = answer.account[..].try_into().map_err(|_| ServerError::Answer)?;
        Ok(ServiceId::aci(account))
    }

    pub(crate) async fn bundles(
        &self,
        own: &Account,
        account: ServiceId,
        request_id: [u8; 16],
        authority: Authority,
    ) -> Result<Bundles, ServerError> {
        let request_id = u128::from_be_bytes(request_id);
        let request = self.as_authority(Method::GET, &format!("keys/{account}/*"), own, authority);
        self.ask(request.header("request-id", format!("{request_id:032x}"))).await
    }

    pub(crate) async fn submit(
        &self,
        own: &Account,
        account: ServiceId,
        body: Bytes,
        authority: Authority,
    ) -> Result<(), SubmitError> {
        let request =
            self.as_authority(Method::PUT, &format!("messages/{account}"), own, authority);
        let response = self.send(with_body(request, body)).await.map_err(SubmitError::Server)?;
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::CONFLICT | StatusCode::GONE => {
                let body = self.body(response).await.map_err(SubmitError::Server)?;
                let mismatch = DeviceMismatch::decode(body);
                Err(mismatch.map_or(SubmitError::Server(ServerError::Answer), SubmitError::Devices))
            }
            _ => Err(SubmitError::Server(refusal(&response))),
        }
    }

    pub(crate) async fn submit_multi(
        &self,
        own: &Account,
        body: Bytes,
        by: SentBy,
    ) -> Result<MultiAccepted, ServerError> {
        let request = match by {
            SentBy::Token => self.as_device(Method::PUT, "messages/multi", own),
            SentBy::AccessKey => self.open(Method::PUT, "messages/multi"),
        };
        self.ask(with_body(request, body)).await
    }

    /// Asks for room for an encrypted file of so many bytes.
    pub(crate) async fn make_room(
        &self,
        own: &Account,
        bytes: u64,
    ) -> Result<AttachmentSlot, ServerError> {
        let request = self.as_device(Method::POST, "attachments", own);
        self.ask(request.header(TUS.0, TUS.1).header("upload-length", bytes)).await
    }

    /// How many bytes of an upload the server has.
    pub(crate) async fn upload_offset(&self, path: &str) -> Result<u64, ServerError> {
        let request = self.at_attachment(Method::HEAD, path)?.header(TUS.0, TUS.1);
        offset(self.send(request).await?)
    }

    /// Sends the bytes from an offset on; how many the server has then.
    pub(crate) async fn upload_piece(
        &self,
        path: &str,
        from: u64,
        piece: Bytes,
    ) -> Result<u64, ServerError> {
        let request = self
            .at_attachment(Method::PATCH, path)?
            .header(TUS.0, TUS.1)
            .header("content-type", "application/offset+octet-stream")
            .header("upload-offset", from)
            .body(piece);
        offset(self.send(request).await?)
    }

    /// The bytes of an attachment from an offset on; `None` when there are no more.
    pub(crate) async fn download(
        &self,
        path: &str,
        from: u64,
    ) -> Result<Option<Download<'_>>, ServerError> {
        let request = self.at_attachment(Method::GET, path)?.timeout(DOWNLOAD_TIMEOUT);
        let request = match from {
            0 => request,
            from => request.header("range", format!("bytes={from}-")),
        };
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(None),
            StatusCode::PARTIAL_CONTENT => Ok(Some(Download { http: self, response })),
            StatusCode::OK if from == 0 => Ok(Some(Download { http: self, response })),
            status if status.is_success() => Err(ServerError::Answer),
            _ => Err(refusal(&response)),
        }
    }

    /// A request for what somebody says is an attachment: its path must not lead anywhere else.
    fn at_attachment(&self, method: Method, path: &str) -> Result<RequestBuilder, ServerError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        match path.strip_prefix("/v1/attachments/") {
            Some(name) if !name.is_empty() && name.chars().all(plain) => {
                Ok(self.anonymous.request(method, format!("{}{path}", self.server)))
            }
            _ => Err(ServerError::NotFound),
        }
    }

    /// A request that shows nobody.
    fn open(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous.request(method, format!("{}/v1/{path}", self.server))
    }

    fn as_device(&self, method: Method, path: &str, own: &Account) -> RequestBuilder {
        let request = self.named.request(method, format!("{}/v1/{path}", self.server));
        request.header("authorization", device_token(own).as_str())
    }

    fn as_authority(
        &self,
        method: Method,
        path: &str,
        own: &Account,
        authority: Authority,
    ) -> RequestBuilder {
        match authority {
            Authority::Token => self.as_device(method, path, own),
            Authority::AccessKey(key) => {
                self.open(method, path).header("access-key", access_key(&key))
            }
        }
    }

    async fn ask<M: Message + Default>(&self, request: RequestBuilder) -> Result<M, ServerError> {
        let response = self.send(request).await?;
        self.answer(response).await
    }

    async fn answer<M: Message + Default>(&self, response: Response) -> Result<M, ServerError> {
        if !response.status().is_success() {
            return Err(refusal(&response));
        }
        M::decode(self.body(response).await?).map_err(|_| ServerError::Answer)
    }

    /// For an answer that says nothing but that it is done.
    async fn done(&self, request: RequestBuilder) -> Result<(), ServerError> {
        let response = self.send(request).await?;
        if response.status().is_success() { Ok(()) } else { Err(refusal(&response)) }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ServerError> {
        request.send().await.map_err(|_| self.unreachable())
    }

    async fn body(&self, mut response: Response) -> Result<Bytes, ServerError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| self.unreachable())? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(ServerError::Answer);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    fn unreachable(&self) -> ServerError {
        ServerError::Unreachable { server: self.server.clone() }
    }
}

/// An attachment that is on its way.
pub(crate) struct Download<'a> {
    http: &'a Http,
    response: Response,
}

impl Download<'_> {
    /// How many bytes are to come, as the server says.
    pub(crate) fn len(&self) -> u64 {
        self.response.content_length().unwrap_or(0)
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ServerError> {
        self.response.chunk().await.map_err(|_| self.http.unreachable())
    }
}

fn offset(response: Response) -> Result<u64, ServerError> {
    if !response.status().is_success() {
        return Err(refusal(&response));
    }
    let offset = response.headers().get("upload-offset");
    offset.and_then(|offset| offset.to_str().ok()?.parse().ok()).ok_or(ServerError::Answer)
}

fn with_body(request: RequestBuilder, body: impl Into<reqwest::Body>) -> RequestBuilder {
    request.header("content-type", PROTOBUF).body(body)
}

/// What a status that is no success means.
fn refusal(response: &Response) -> ServerError {
    super::refusal(response.status(), response.headers(), LONGEST_WAIT)
}
