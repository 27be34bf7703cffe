//! A hook over HTTP: one POST of JSON for each question, docs/operating.md has the fields.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_rustls::rustls;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Asking, HookAnswer, HookEvent, HookFailure, HookKind, OperatorHook, ReasonCode};
use crate::config::HookSettings;
use crate::https;
use crate::names::Names;
use crate::storage::AccountId;

/// An answer has a few words.
const ANSWER_MAX: usize = 4096;

/// Why a hook cannot be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookOpenError {
    /// The token.
    #[error("hook_token_file {path}: {source}")]
    Token {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token cannot stand in a header.
    #[error("hook_token_file {0} must hold one line of visible ASCII")]
    TokenContent(PathBuf),
    /// The address is none.
    #[error("hook_url {0} is no address; write it as https://host/path")]
    Url(String),
    /// The roots of the operating system cannot be used.
    #[error("TLS to the hook cannot be set up ({0}); install the package of CA certificates")]
    Tls(#[from] rustls::Error),
    /// The client of HTTP cannot be set up.
    #[error("requests to the hook cannot be set up ({0})")]
    Http(#[from] reqwest::Error),
}

/// Asks over HTTP or HTTPS; follows no redirection.
pub struct HttpHook {
    url: Url,
    authorization: Option<HeaderValue>,
    client: Client,
    events: Vec<HookKind>,
}

impl HttpHook {
    /// None if the settings name no hook.
    ///
    /// # Errors
    /// [`HookOpenError`]: the token cannot be read, or there is no TLS.
    pub fn open(settings: &HookSettings) -> Result<Option<Self>, HookOpenError> {
        let Some(address) = &settings.hook_url else { return Ok(None) };
        let url = Url::parse(address).map_err(|_| HookOpenError::Url(address.clone()))?;
        let mut tls = https::client_config()?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Names::default())
            .tls_backend_preconfigured(tls)
            .build()?;
        let authorization = settings.hook_token_file.as_ref().map(authorization).transpose()?;
        Ok(Some(Self { url, authorization, client, events: settings.events() }))
    }

    /// Sends `check`, which is about nobody: whether it answers as it should.
    ///
    /// # Errors
    /// [`HookFailure`].
    pub async fn probe(&self) -> Result<HookAnswer, HookFailure> {
        self.post(json!({ "event": "check" })).await
    }

    async fn post(&self, question: Value) -> Result<HookAnswer, HookFailure> {
        let mut request = self.client.post(self.url.clone());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(question.to_string());
        let response = request.send().await.map_err(unreachable)?;
        match response.status().as_u16() {
            200 => read(response).await,
            status => Err(HookFailure::Status(status)),
        }
    }
}

impl OperatorHook for HttpHook {
    fn wants(&self, kind: HookKind) -> bool {
        self.events.contains(&kind)
    }

    fn ask(&self, event: HookEvent) -> Asking<'_> {
        Box::pin(self.post(told(&event)))
    }
}

/// All that leaves the relay.
fn told(event: &HookEvent) -> Value {
    let name = event.kind().name();
    match event {
        HookEvent::Registration { username } => json!({ "event": name, "name": username }),
        HookEvent::Submission { account, devices, bytes } => {
            json!({ "event": name, "account": text(account), "devices": devices, "bytes": bytes })
        }
        HookEvent::Sealed { size_class_kib } => {
            json!({ "event": name, "size_class_kib": size_class_kib })
        }
        HookEvent::Upload { account, bytes } => {
            json!({ "event": name, "account": text(account), "bytes": bytes })
        }
        HookEvent::Reported { account, reports } => {
            json!({ "event": name, "account": text(account), "reports": reports })
        }
    }
}

fn text(account: &AccountId) -> String {
    Uuid::from_bytes(account.0).hyphenated().to_string()
}

#[derive(Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
enum Said {
    Allow {},
    Refuse { reason: String },
    Later { retry_after_secs: u64 },
}

async fn read(mut response: Response) -> Result<HookAnswer, HookFailure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_MAX {
            return Err(HookFailure::Answer);
        }
    }
    match serde_json::from_slice(&body).map_err(|_| HookFailure::Answer)? {
        Said::Allow {} => Ok(HookAnswer::Allow),
        Said::Refuse { reason } => {
            ReasonCode::new(&reason).map(HookAnswer::Refuse).ok_or(HookFailure::Answer)
        }
        Said::Later { retry_after_secs } => {
            Ok(HookAnswer::Later(Duration::from_secs(retry_after_secs)))
        }
    }
}

/// Without the address, which may hold a secret.
fn unreachable(error: reqwest::Error) -> HookFailure {
    HookFailure::Unreachable(Box::new(error.without_url()))
}

fn authorization(path: &PathBuf) -> Result<HeaderValue, HookOpenError> {
    let token = std::fs::read_to_string(path).map(Zeroizing::new);
    let token = token.map_err(|source| HookOpenError::Token { path: path.clone(), source })?;
    let header = Zeroizing::new(format!("Bearer {}", token.trim()));
    let value = HeaderValue::from_str(&header).ok().filter(|_| !token.trim().is_empty());
    let mut value = value.ok_or_else(|| HookOpenError::TokenContent(path.clone()))?;
    value.set_sensitive(true);
    Ok(value)
}
