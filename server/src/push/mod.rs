//! Waking a device that is not connected, through a push service. A wake-up says nothing: not from whom, not what,
//! not how many. Which devices are woken and when is `service/push/`.

mod apns;
mod fcm;
mod guard;
mod jwt;
mod web;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Url;
use tokio_rustls::rustls;
use tuckseal::service::PushOffer;

pub use apns::Apns;
pub use fcm::Fcm;
pub use web::{WebPush, WebTarget};

use crate::config::Config;
use crate::https;
use crate::identity::ServerIdentity;
use crate::names::Names;

/// A push service that does not answer within this time is behind.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where a device is woken.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// Web Push, UnifiedPush.
    Web(WebTarget),
    /// Apple's service, by device token in hex.
    Apns(String),
    /// Google's service, by registration token.
    Fcm(String),
}

impl Target {
    pub(crate) fn service(&self) -> PushService {
        match self {
            Self::Web(target) => PushService::Web(target.host().into()),
            Self::Apns(_) => PushService::Apns,
            Self::Fcm(_) => PushService::Fcm,
        }
    }
}

/// Who is asked to wake a device.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum PushService {
    Apns,
    Fcm,
    /// The host of an endpoint, which a client has named.
    Web(String),
}

/// Whether somebody is to be disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Receipts and the like.
    Background,
    /// Something for a person.
    Urgent,
}

/// What became of a wake-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The push service has it.
    Sent,
    /// There is no such subscription any more: forget it.
    Gone,
    /// The push service is behind or cannot be reached: try again, not before this time if it said one.
    Later(Option<Duration>),
    /// The push service refuses, with this status; trying again does not help.
    Refused(u16),
}

/// A wake-up that is on its way.
pub type Waking<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// One kind of push service.
pub trait PushSender: Send + Sync + 'static {
    /// Whether this sender can wake that target.
    fn takes(&self, target: &Target) -> bool;

    /// Wakes a target that it takes. The push service may keep the wake-up for `ttl_secs` seconds.
    fn wake<'a>(&'a self, target: &'a Target, urgency: Urgency, ttl_secs: u64) -> Waking<'a>;
}

/// Why push cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// A key file cannot be read.
    #[error("push key file {path}: {source}")]
    File {
        /// As set.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key file does not hold what it should.
    #[error("push key file {path} does not hold {expected}")]
    Content {
        /// As set.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The roots of the operating system cannot be used.
    #[error("TLS to push services cannot be set up ({0}); install the package of CA certificates")]
    Tls(#[from] rustls::Error),
    /// The client of HTTP cannot be set up.
    #[error("requests to push services cannot be set up ({0})")]
    Http(#[from] reqwest::Error),
    /// The address of a push service is none.
    #[error("{0} is not an address of a push service; write it as https://host")]
    Server(String),
    /// The key for Web Push cannot be derived.
    #[error("the Web Push key cannot be derived; make a new relay.secret")]
    Vapid,
}

/// All senders of a server.
#[derive(Clone)]
pub struct Senders {
    senders: Arc<[Box<dyn PushSender>]>,
    vapid_key: [u8; 65],
}

impl Senders {
    /// Those that the settings name; Web Push is always there.
    ///
    /// # Errors
    /// [`PushError`]: a key file is not good, or there is no TLS.
    pub fn open(config: &Config, identity: &ServerIdentity) -> Result<Self, PushError> {
        let push = &config.push;
        let web = WebPush::new(&identity.vapid_secret(), push)?;
        let vapid_key = web.public_key();
        let mut senders: Vec<Box<dyn PushSender>> = vec![Box::new(web)];
        if let Some(apns) = Apns::open(push)? {
            senders.push(Box::new(apns));
        }
        if let Some(fcm) = Fcm::open(push)? {
            senders.push(Box::new(fcm));
        }
        Ok(Self { senders: senders.into(), vapid_key })
    }

    /// What a client is told.
    #[must_use]
    pub fn offer(&self) -> PushOffer {
        PushOffer {
            vapid_key: Bytes::copy_from_slice(&self.vapid_key),
            apns: self.take(&Target::Apns(String::new())),
            fcm: self.take(&Target::Fcm(String::new())),
        }
    }

    /// Whether one of them can wake this target.
    #[must_use]
    pub fn take(&self, target: &Target) -> bool {
        self.senders.iter().any(|sender| sender.takes(target))
    }

    /// Wakes, through the first sender that can.
    pub async fn wake(&self, target: &Target, urgency: Urgency, ttl_secs: u64) -> Outcome {
        match self.senders.iter().find(|sender| sender.takes(target)) {
            Some(sender) => sender.wake(target, urgency, ttl_secs).await,
            // Its key was taken out of the settings, and may come back.
            None => Outcome::Refused(0),
        }
    }
}

/// A client of HTTPS with the roots of the operating system, that follows no redirection.
fn client(http2: Http2) -> Result<reqwest::ClientBuilder, rustls::Error> {
    let mut tls = https::client_config()?;
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .dns_resolver(Names::default())
        .timeout(PATIENCE);
    Ok(match http2 {
        Http2::Must => {
            tls.alpn_protocols = vec![b"h2".to_vec()];
            client.tls_backend_preconfigured(tls).http2_prior_knowledge()
        }
        Http2::May => {
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            client.tls_backend_preconfigured(tls)
        }
    })
}

#[derive(Clone, Copy)]
enum Http2 {
    Must,
    May,
}

/// What the statuses mean that all push services share. 2xx is not asked here.
fn refused(response: &reqwest::Response) -> Outcome {
    let status = response.status().as_u16();
    match status {
        404 | 410 => Outcome::Gone,
        408 | 429 | 500..=599 => {
            let wait = response.headers().get(reqwest::header::RETRY_AFTER);
            let secs = wait.and_then(|wait| wait.to_str().ok()?.parse().ok());
            Outcome::Later(secs.map(Duration::from_secs))
        }
        _ => Outcome::Refused(status),
    }
}

/// The address is not logged: it would tell which device.
fn unreachable_now(error: reqwest::Error) -> Outcome {
    let error = error.without_url();
    tracing::debug!(%error, "a push service was not reached");
    Outcome::Later(None)
}

fn server(address: &str) -> Result<Url, PushError> {
    Url::parse(address).map_err(|_| PushError::Server(address.into()))
}

fn at(server: &Url, path: &[&str]) -> Option<Url> {
    let mut url = server.clone();
    url.path_segments_mut().ok()?.clear().extend(path);
    Some(url)
}
