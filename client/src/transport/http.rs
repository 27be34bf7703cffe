//! Requests. There are two clients that share no connection: one shows the device token, the other
//! never does, so that the server cannot tell who makes a request by access key.

use bytes::Bytes;
use prost::Message;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use std::time::Duration;
use tuckseal::ServiceId;
use tuckseal::service::{
    AccountAnswer, Bundles, Challenge, DeviceMismatch, KeyCounts, KeysUpload, MultiAccepted,
    Registered, SenderCertificateAnswer, ServerInfo, SignedRegistration,
};

use super::{ServerError, SubmitError, access_key, device_token};
use crate::engine::Authority;
use crate::store::{Account, SentBy};

const PROTOBUF: &str = "application/x-protobuf";
/// A whole request, answer included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Larger answers are not ours: bundles of 127 devices have 250 KiB.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    server: String,
    named: reqwest::Client,
    anonymous: reqwest::Client,
}

impl Http {
    /// # Errors
    /// [`ServerError::Address`] for an address that is not `http://…`.
    pub(crate) fn new(server: &str) -> Result<Self, ServerError> {
        let server = server.trim_end_matches('/').to_owned();
        let usable = reqwest::Url::parse(&server)
            .is_ok_and(|url| url.scheme() == "http" && url.has_host() && url.path() == "/");
        let address = || ServerError::Address { server: server.clone() };
        if !usable {
            return Err(address());
        }
        let client = || {
            reqwest::Client::builder()
                .timeout(REQUEST_TIMEOUT)
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .build()
                .map_err(|_| address())
        };
        Ok(Self { named: client()?, anonymous: client()?, server })
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
    ) -> Result<KeyCounts, ServerError> {
        self.ask(with_body(self.as_device(Method::PUT, "keys", own), keys.encode_to_vec())).await
    }

    pub(crate) async fn certificate(
        &self,
        own: &Account,
    ) -> Result<SenderCertificateAnswer, ServerError> {
        self.ask(self.as_device(Method::GET, "certificates/sender", own)).await
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
        if !response.status().is_success() {
            return Err(refusal(&response));
        }
        M::decode(self.body(response).await?).map_err(|_| ServerError::Answer)
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

fn with_body(request: RequestBuilder, body: impl Into<reqwest::Body>) -> RequestBuilder {
    request.header("content-type", PROTOBUF).body(body)
}

/// What a status that is no success means.
fn refusal(response: &Response) -> ServerError {
    let status = response.status().as_u16();
    match status {
        401 => ServerError::Unauthorised,
        404 => ServerError::NotFound,
        409 => ServerError::Conflict,
        429 | 500.. => {
            let header = response.headers().get("retry-after");
            let seconds = header.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(1);
            ServerError::Busy { status, retry_after: Duration::from_secs(seconds) }
        }
        400..500 => ServerError::Refused { status },
        _ => ServerError::Answer,
    }
}
