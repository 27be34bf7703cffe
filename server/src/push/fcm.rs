//! Google's push service by its HTTP v1 interface: a token of a service account, then one data message a wake-up.
//!
//! The message has no notification and no content; `collapse_key` lets the newest take the place of the others.

use std::time::{Duration, Instant};

use reqwest::{Client, Url};
use ring::signature::RsaKeyPair;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::jwt::rs256;
use super::{
    Http2, Outcome, PushError, PushSender, Target, Urgency, Waking, at, client, refused, server,
    unreachable_now,
};
use crate::config::PushSettings;
use crate::service::now_ms;

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// An access token is renewed so many seconds before its end.
const EARLY_SECS: i64 = 60;
/// After a failure nobody asks for one for so long.
const PAUSE: Duration = Duration::from_secs(2);
/// Google keeps no message longer than 28 days.
const TTL_MAX_SECS: u64 = 28 * 24 * 60 * 60;

/// What is used of the file that Google gives out for a service account.
#[derive(Deserialize)]
struct AccountFile {
    project_id: String,
    client_email: String,
    private_key: Zeroizing<String>,
    private_key_id: String,
    token_uri: String,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: i64,
}

/// Sends to Google's service.
pub struct Fcm {
    client: Client,
    server: Url,
    account: AccountFile,
    key: RsaKeyPair,
    /// Held while one is asked for: the others wait for what comes of it.
    token: Mutex<Token>,
}

#[derive(Default)]
struct Token {
    text: String,
    /// In seconds.
    ends: i64,
    /// None was given out then, and why.
    refused: Option<(Instant, Outcome)>,
}

impl Fcm {
    /// None if the settings name no service account.
    ///
    /// # Errors
    /// The file is not what Google gives out, or there is no TLS.
    pub fn open(settings: &PushSettings) -> Result<Option<Self>, PushError> {
        let Some(path) = &settings.fcm_account_file else { return Ok(None) };
        let file = |source| PushError::File { path: path.clone(), source };
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(file)?);
        let expected = "a service account in JSON with an RSA key, as Google gives it out";
        let content = || PushError::Content { path: path.clone(), expected };
        let account: AccountFile = serde_json::from_str(&text).map_err(|_| content())?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(account.private_key.as_bytes())
            .map_err(|_| content())?;
        let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| content())?;
        let (client, server) = (client(Http2::May)?.build()?, server(settings.fcm_server())?);
        Ok(Some(Self { client, server, account, key, token: Mutex::default() }))
    }

    /// An access token, asked for if the one that is there is at its end.
    async fn token(&self) -> Result<String, Outcome> {
        let mut token = self.token.lock().await;
        let now = now_ms() / 1000;
        if token.ends.saturating_sub(EARLY_SECS) > now {
            return Ok(token.text.clone());
        }
        if let Some((at, outcome)) = token.refused
            && at.elapsed() < PAUSE
        {
            return Err(outcome);
        }
        match self.granted(now).await {
            Ok(granted) => {
                let ends = now.saturating_add(granted.expires_in);
                *token = Token { text: granted.access_token, ends, refused: None };
                Ok(token.text.clone())
            }
            Err(outcome) => {
                token.refused = Some((Instant::now(), outcome));
                Err(outcome)
            }
        }
    }

    /// It is worth nothing any more. One that took its place is.
    async fn forget(&self, token: &str) {
        let mut current = self.token.lock().await;
        if current.text == token {
            current.ends = 0;
        }
    }

    async fn granted(&self, now: i64) -> Result<Granted, Outcome> {
        let account = &self.account;
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": account.private_key_id });
        let claims = json!({
            "iss": account.client_email, "scope": SCOPE, "aud": account.token_uri,
            "iat": now, "exp": now + 3600,
        });
        let assertion = rs256(&header, &claims, &self.key).ok_or(Outcome::Later(None))?;
        // Neither needs escaping but for the colons.
        let body = format!("grant_type={}&assertion={assertion}", GRANT.replace(':', "%3A"));
        let request = self.client.post(&account.token_uri).body(body);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response = request.send().await.map_err(unreachable_now)?;
        if !response.status().is_success() {
            tracing::error!(status = response.status().as_u16(), "no access token for FCM");
            return Err(match refused(&response) {
                Outcome::Gone => Outcome::Refused(response.status().as_u16()),
                outcome => outcome,
            });
        }
        let body = response.bytes().await.map_err(unreachable_now)?;
        serde_json::from_slice(&body).map_err(|_| Outcome::Refused(200))
    }

    async fn send(
        &self,
        device: &str,
        urgency: Urgency,
        ttl_secs: u64,
    ) -> Result<Outcome, Outcome> {
        let path = ["v1", "projects", &self.account.project_id, "messages:send"];
        let url = at(&self.server, &path).ok_or(Outcome::Refused(0))?;
        let priority = match urgency {
            Urgency::Urgent => "HIGH",
            Urgency::Background => "NORMAL",
        };
        let ttl = format!("{}s", ttl_secs.min(TTL_MAX_SECS));
        let message = json!({ "message": {
            "token": device,
            "data": { "wake": "" },
            "android": { "priority": priority, "ttl": ttl, "collapse_key": "wake" },
        }});
        let token = self.token().await?;
        let request = self.client.post(url).bearer_auth(&token);
        let request = request.header("content-type", "application/json").body(message.to_string());
        let response = request.send().await.map_err(unreachable_now)?;
        if response.status() == 401 {
            self.forget(&token).await;
            return Ok(Outcome::Later(None));
        }
        Ok(if response.status().is_success() { Outcome::Sent } else { refused(&response) })
    }
}

impl PushSender for Fcm {
    fn takes(&self, target: &Target) -> bool {
        matches!(target, Target::Fcm(_))
    }

    fn wake<'a>(&'a self, target: &'a Target, urgency: Urgency, ttl_secs: u64) -> Waking<'a> {
        Box::pin(async move {
            match target {
                Target::Fcm(device) => {
                    self.send(device, urgency, ttl_secs).await.unwrap_or_else(|outcome| outcome)
                }
                _ => Outcome::Refused(0),
            }
        })
    }
}
