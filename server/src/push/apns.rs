//! Apple's push service by its provider API over HTTP/2, with a signed token instead of a certificate.
//!
//! Urgent wake-ups are alerts that the app's own extension fills in (`mutable-content`); others are background ones,
//! which Apple throttles as it sees fit. Neither says anything.

use std::sync::Mutex;

use reqwest::{Client, Url};
use serde_json::json;
use web_push_native::p256::SecretKey;
use web_push_native::p256::ecdsa::SigningKey;
use web_push_native::p256::pkcs8::DecodePrivateKey;

use super::jwt::es256;
use super::{
    Http2, Outcome, PushError, PushSender, Target, Urgency, Waking, at, client, refused, server,
    unreachable_now,
};
use crate::config::PushSettings;
use crate::service::now_ms;

/// Apple takes a token for an hour, and wants no new one within 20 minutes.
const TOKEN_SECS: i64 = 45 * 60;
/// Longest answer that is read.
const REASON_MAX: usize = 4096;

/// Sends to Apple's service.
pub struct Apns {
    client: Client,
    server: Url,
    key: SigningKey,
    key_id: String,
    team: String,
    topic: String,
    /// When it was made, in seconds, and the token.
    token: Mutex<(i64, String)>,
}

impl Apns {
    /// None if the settings name no key.
    ///
    /// # Errors
    /// The file is not the key that Apple gives out, or there is no TLS.
    pub fn open(settings: &PushSettings) -> Result<Option<Self>, PushError> {
        let Some(path) = &settings.apns_key_file else { return Ok(None) };
        let file = |source| PushError::File { path: path.clone(), source };
        let pem = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(file)?);
        let expected = "a private key of P-256 in PEM (PKCS #8), as Apple gives it out";
        let content = || PushError::Content { path: path.clone(), expected };
        let key = SecretKey::from_pkcs8_pem(&pem).map_err(|_| content())?;
        let text = |setting: &Option<String>| setting.clone().unwrap_or_default();
        Ok(Some(Self {
            client: client(Http2::Must)?.build()?,
            server: server(settings.apns_server())?,
            key: SigningKey::from(key),
            key_id: text(&settings.apns_key_id),
            team: text(&settings.apns_team_id),
            topic: text(&settings.apns_topic),
            token: Mutex::default(),
        }))
    }

    fn token(&self) -> String {
        let now = now_ms() / 1000;
        let mut token = self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now.saturating_sub(token.0) >= TOKEN_SECS {
            let header = json!({ "alg": "ES256", "kid": self.key_id });
            let claims = json!({ "iss": self.team, "iat": now });
            *token = (now, es256(&header, &claims, &self.key));
        }
        token.1.clone()
    }

    async fn send(&self, device: &str, urgency: Urgency, ttl_secs: u64) -> Outcome {
        let Some(url) = at(&self.server, &["3", "device", device]) else {
            return Outcome::Refused(0);
        };
        let expires = now_ms().unsigned_abs() / 1000 + ttl_secs;
        let (kind, priority, body) = match urgency {
            Urgency::Urgent => {
                let alert = json!({ "loc-key": "TUCKSEAL_WAKE" });
                ("alert", "10", json!({ "aps": { "alert": alert, "mutable-content": 1 } }))
            }
            Urgency::Background => {
                ("background", "5", json!({ "aps": { "content-available": 1 } }))
            }
        };
        let request = self
            .client
            .post(url)
            .header("authorization", format!("bearer {}", self.token()))
            .header("apns-topic", &self.topic)
            .header("apns-push-type", kind)
            .header("apns-priority", priority)
            .header("apns-expiration", expires)
            .header("apns-collapse-id", "wake");
        match request.body(body.to_string()).send().await {
            Ok(response) if response.status().is_success() => Outcome::Sent,
            Ok(response) => self.reason(response).await,
            Err(error) => unreachable_now(error),
        }
    }

    async fn reason(&self, response: reqwest::Response) -> Outcome {
        let outcome = refused(&response);
        // Apple says 400 of a device that it does not know, and 404 of a path.
        let outcome = if outcome == Outcome::Gone && response.status() == 404 {
            Outcome::Refused(404)
        } else {
            outcome
        };
        if !matches!(response.status().as_u16(), 400 | 403) {
            return outcome;
        }
        let length = response.content_length().unwrap_or(0);
        let short = usize::try_from(length).is_ok_and(|length| length <= REASON_MAX);
        let body =
            if short { response.bytes().await.unwrap_or_default() } else { Default::default() };
        let reason: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        match reason.get("reason").and_then(|reason| reason.as_str()) {
            Some("BadDeviceToken" | "DeviceTokenNotForTopic") => Outcome::Gone,
            Some("ExpiredProviderToken") => {
                let mut token =
                    self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *token = Default::default();
                Outcome::Later(None)
            }
            _ => outcome,
        }
    }
}

impl PushSender for Apns {
    fn takes(&self, target: &Target) -> bool {
        matches!(target, Target::Apns(_))
    }

    fn wake<'a>(&'a self, target: &'a Target, urgency: Urgency, ttl_secs: u64) -> Waking<'a> {
        Box::pin(async move {
            match target {
                Target::Apns(device) => self.send(device, urgency, ttl_secs).await,
                _ => Outcome::Refused(0),
            }
        })
    }
}
