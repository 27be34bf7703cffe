//! Web Push and UnifiedPush: RFC 8030 (request), RFC 8291 (encryption), RFC 8292 (VAPID).

use reqwest::{Client, Url};
use serde_json::json;
use tuckseal::service::WebPush as Registered;
use web_push_native::p256::PublicKey;
use web_push_native::p256::ecdsa::SigningKey;
use web_push_native::{Auth, encrypt};

use super::jwt::{base64url, es256};
use super::{
    Http2, Outcome, PushError, PushSender, Target, Urgency, Waking, client, guard, refused,
    unreachable_now,
};
use crate::config::PushSettings;
use crate::service::now_ms;

/// All that a wake-up says.
const BODY: &[u8] = b"wake";
/// A later wake-up takes the place of one that waits at the push service.
const TOPIC: &str = "wake";
/// A signature is good for so many seconds; RFC 8292 allows 24 h.
const SIGNED_SECS: i64 = 12 * 60 * 60;
const ENDPOINT_MAX: usize = 1024;

/// A subscription.
#[derive(Clone, PartialEq, Eq)]
pub struct WebTarget {
    endpoint: Url,
    p256dh: PublicKey,
    auth: [u8; 16],
}

impl WebTarget {
    /// None if it is no subscription: an https address, a point of P-256, 16 bytes.
    #[must_use]
    pub fn new(registered: &Registered) -> Option<Self> {
        let short = registered.endpoint.len() <= ENDPOINT_MAX;
        let endpoint =
            Url::parse(&registered.endpoint).ok().filter(|url| short && is_plain(url))?;
        let p256dh = PublicKey::from_sec1_bytes(&registered.p256dh).ok()?;
        let auth = registered.auth.as_ref().try_into().ok()?;
        (registered.p256dh.len() == 65).then_some(Self { endpoint, p256dh, auth })
    }

    pub(super) fn host(&self) -> &str {
        self.endpoint.host_str().unwrap_or_default()
    }
}

/// http is refused later, unless the settings allow it.
fn is_plain(url: &Url) -> bool {
    matches!(url.scheme(), "https" | "http")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
}

/// Sends to endpoints that clients name.
pub struct WebPush {
    key: SigningKey,
    client: Client,
    contact: Option<String>,
    /// Endpoints in the operator's own network, and without TLS, are good too.
    private: bool,
}

impl WebPush {
    /// # Errors
    /// There is no TLS.
    pub(super) fn new(secret: &[u8; 32], settings: &PushSettings) -> Result<Self, PushError> {
        let key = SigningKey::from_slice(secret).map_err(|_| PushError::Vapid)?;
        let (client, private) = (client(Http2::May)?, settings.push_private_endpoints);
        let client =
            if private { client } else { client.dns_resolver(guard::PublicOnly::default()) };
        Ok(Self { key, client: client.build()?, contact: settings.push_contact.clone(), private })
    }

    /// What clients subscribe with, not compressed.
    pub(super) fn public_key(&self) -> [u8; 65] {
        let point = self.key.verifying_key().to_encoded_point(false);
        point.as_bytes().try_into().unwrap_or([0; 65])
    }

    /// RFC 8292 3: the token, and the key that it is signed with.
    fn authorization(&self, endpoint: &Url) -> String {
        let expires = now_ms() / 1000 + SIGNED_SECS;
        let audience = endpoint.origin().ascii_serialization();
        let mut claims = json!({ "aud": audience, "exp": expires });
        if let (Some(contact), Some(claims)) = (&self.contact, claims.as_object_mut()) {
            claims.insert("sub".into(), contact.as_str().into());
        }
        let token = es256(&json!({ "typ": "JWT", "alg": "ES256" }), &claims, &self.key);
        // Some receivers take no space after the comma.
        format!("vapid t={token},k={}", base64url(self.public_key()))
    }

    async fn send(&self, target: &WebTarget, urgency: Urgency, ttl_secs: u64) -> Outcome {
        let auth = Auth::from(target.auth);
        let Ok(body) = encrypt(BODY.to_vec(), &target.p256dh, &auth) else {
            return Outcome::Refused(0);
        };
        let urgency = match urgency {
            Urgency::Urgent => "high",
            Urgency::Background => "low",
        };
        let request = self
            .client
            .post(target.endpoint.clone())
            .header("ttl", ttl_secs)
            .header("urgency", urgency)
            .header("topic", TOPIC)
            .header("content-encoding", "aes128gcm")
            .header("content-type", "application/octet-stream")
            .header("authorization", self.authorization(&target.endpoint));
        match request.body(body).send().await {
            Ok(response) if response.status().is_success() => Outcome::Sent,
            Ok(response) => refused(&response),
            Err(error) => unreachable_now(error),
        }
    }
}

impl PushSender for WebPush {
    fn takes(&self, target: &Target) -> bool {
        let Target::Web(target) = target else { return false };
        self.private
            || (target.endpoint.scheme() == "https" && guard::may_be_public(&target.endpoint))
    }

    fn wake<'a>(&'a self, target: &'a Target, urgency: Urgency, ttl_secs: u64) -> Waking<'a> {
        Box::pin(async move {
            match target {
                Target::Web(target) => self.send(target, urgency, ttl_secs).await,
                _ => Outcome::Refused(0),
            }
        })
    }
}
