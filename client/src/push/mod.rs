//! Where the server wakes this device while it is away: what the app names, and what the profile remembers of it.
//! The keys of a subscription are `keys.rs`, telling the server `tell.rs`; what follows from a wake-up is `wake.rs`.

mod keys;
mod tell;

use std::fmt;

use bytes::Bytes;
use prost::Message;
use tuckseal::service;
use tuckseal::service::push_registration::Target;

use crate::client::Client;
use crate::error::PushError;
use crate::store::{ProfileError, Push};
use crate::transport::ServerError;
use keys::WebPushKeys;
pub(crate) use tell::Teller;

/// The longest address that a server takes.
const ENDPOINT_MAX: usize = 1024;
/// The longest token that a server takes.
const TOKEN_MAX: usize = 1024;
/// All that a wake-up says.
const WAKE: &[u8] = b"wake";

/// How a device is woken.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushTarget {
    /// Web Push or UnifiedPush.
    Web(WebSubscription),
    /// Apple's service: the device token, in hex.
    Apns(String),
    /// Google's service: the registration token.
    Fcm(String),
}

/// A subscription of Web Push or UnifiedPush, made with [`PushOffer::vapid_key`].
#[derive(Clone, PartialEq, Eq)]
pub struct WebSubscription {
    /// Where a wake-up is sent.
    pub endpoint: String,
    /// The public key that it is encrypted to: a point of P-256, not compressed.
    pub p256dh: [u8; 65],
    /// The secret that is shared with who may write.
    pub auth: [u8; 16],
}

/// What a server can wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushOffer {
    /// What to subscribe with at a Web Push service, so that nobody else can wake the device.
    pub vapid_key: [u8; 65],
    /// Whether it has a key for Apple's service.
    pub apns: bool,
    /// Whether it has a key for Google's service.
    pub fcm: bool,
}

/// An outside service that wakes devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushService {
    /// Web Push or UnifiedPush.
    Web,
    /// Apple's.
    Apns,
    /// Google's.
    Fcm,
}

impl Client {
    /// What the server can wake.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn push_offer(&self) -> Result<PushOffer, ServerError> {
        let offer = self.http.server_info().await?.push.ok_or(ServerError::Answer)?;
        let vapid_key = offer.vapid_key[..].try_into().map_err(|_| ServerError::Answer)?;
        Ok(PushOffer { vapid_key, apns: offer.apns, fcm: offer.fcm })
    }

    /// From now on this device is woken there, and nowhere else, when something waits for it and it is not
    /// connected. The profile remembers it; the server is told now, and again after every start.
    ///
    /// # Errors
    /// [`PushError`]; only after [`PushError::NotYet`] is it remembered.
    pub async fn register_push(&self, target: PushTarget) -> Result<(), PushError> {
        let registration = target.checked()?.encode_to_vec();
        self.teller().register(target.service(), registration, None).await
    }

    /// As [`Client::register_push`], for an endpoint of Web Push or UnifiedPush whose keys are up to us: they are
    /// made here and stay in the profile, for [`Client::is_wake_up`]. The same endpoint keeps its keys.
    ///
    /// # Errors
    /// [`PushError`]; only after [`PushError::NotYet`] is it remembered.
    pub async fn register_web_push(&self, endpoint: &str) -> Result<(), PushError> {
        let known = self.push_row().await?.and_then(|push| WebPushKeys::of(&push));
        let keys = match known {
            Some((keys, of)) if of == endpoint => keys,
            _ => WebPushKeys::generate(&mut rand::rng()),
        };
        let target = PushTarget::Web(keys.subscription(endpoint));
        let registration = target.checked()?.encode_to_vec();
        self.teller().register(PushService::Web, registration, Some(keys.secret())).await
    }

    /// From now on this device is woken nowhere.
    ///
    /// # Errors
    /// [`PushError`]; only after [`PushError::NotYet`] is it remembered.
    pub async fn unregister_push(&self) -> Result<(), PushError> {
        self.teller().unregister().await
    }

    /// Where this device is woken.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn push_target(&self) -> Result<Option<PushTarget>, ProfileError> {
        let registration = self.push_row().await?.and_then(|push| push.registration);
        let target = |registration: Vec<u8>| {
            PushTarget::of(&registration).ok_or(ProfileError::Damaged { what: "push registration" })
        };
        registration.map(target).transpose()
    }

    /// Whether a message of the push service (its body, as it came) was encrypted by the server, and is a wake-up:
    /// who knows the endpoint alone cannot make one. Only after [`Client::register_web_push`].
    ///
    /// # Errors
    /// [`PushError::NoKeys`], [`PushError::Profile`].
    pub async fn is_wake_up(&self, body: &[u8]) -> Result<bool, PushError> {
        let keys = self.push_row().await?.and_then(|push| WebPushKeys::of(&push));
        let (keys, _) = keys.ok_or(PushError::NoKeys)?;
        Ok(keys.open(body).is_some_and(|clear| clear == WAKE))
    }

    async fn push_row(&self) -> Result<Option<Push>, ProfileError> {
        self.shell.call(|engine, _| engine.store.rows().push()).await
    }

    fn teller(&self) -> Teller<'_> {
        Teller { shell: &self.shell, http: &self.http, account: &self.account }
    }
}

impl PushTarget {
    /// The service that it is woken by.
    #[must_use]
    pub fn service(&self) -> PushService {
        match self {
            Self::Web(_) => PushService::Web,
            Self::Apns(_) => PushService::Apns,
            Self::Fcm(_) => PushService::Fcm,
        }
    }

    /// What the server is told, if it makes sense.
    fn checked(&self) -> Result<service::PushRegistration, PushError> {
        let target = match self {
            Self::Web(web) => {
                check_endpoint(&web.endpoint)?;
                if !keys::is_point(&web.p256dh) {
                    return Err(PushError::Keys);
                }
                Target::Web(service::WebPush {
                    endpoint: web.endpoint.clone(),
                    p256dh: Bytes::copy_from_slice(&web.p256dh),
                    auth: Bytes::copy_from_slice(&web.auth),
                })
            }
            Self::Apns(token) => {
                check_token(PushService::Apns, token, |byte| byte.is_ascii_hexdigit())?;
                Target::Apns(token.clone())
            }
            Self::Fcm(token) => {
                check_token(PushService::Fcm, token, |byte| byte.is_ascii_graphic())?;
                Target::Fcm(token.clone())
            }
        };
        Ok(service::PushRegistration { target: Some(target) })
    }

    fn of(registration: &[u8]) -> Option<Self> {
        Some(match service::PushRegistration::decode(registration).ok()?.target? {
            Target::Web(web) => Self::Web(WebSubscription {
                p256dh: web.p256dh[..].try_into().ok()?,
                auth: web.auth[..].try_into().ok()?,
                endpoint: web.endpoint,
            }),
            Target::Apns(token) => Self::Apns(token),
            Target::Fcm(token) => Self::Fcm(token),
        })
    }
}

/// http is for servers that allow it: they refuse it else.
fn check_endpoint(endpoint: &str) -> Result<(), PushError> {
    let plain = |url: &reqwest::Url| {
        matches!(url.scheme(), "https" | "http")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    };
    let is_good = endpoint.len() <= ENDPOINT_MAX
        && reqwest::Url::parse(endpoint).is_ok_and(|url| plain(&url));
    if is_good { Ok(()) } else { Err(PushError::Endpoint) }
}

fn check_token(
    service: PushService,
    token: &str,
    of: impl Fn(u8) -> bool,
) -> Result<(), PushError> {
    let is_good = (1..=TOKEN_MAX).contains(&token.len()) && token.bytes().all(of);
    if is_good { Ok(()) } else { Err(PushError::Token { service }) }
}

impl fmt::Display for PushService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Web => "Web Push",
            Self::Apns => "APNs",
            Self::Fcm => "FCM",
        })
    }
}

impl fmt::Debug for PushTarget {
    /// Neither endpoint nor token: who has them can disturb somebody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PushTarget").field(&self.service()).finish()
    }
}

impl fmt::Debug for WebSubscription {
    /// Nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSubscription").finish_non_exhaustive()
    }
}
