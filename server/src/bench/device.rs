//! Devices of the generator: registered with real keys.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use prost::Message as _;
use tuckseal::service::{
    Challenge, KeysUpload, PublicPreKey, Registered, Registration, SignedRegistration,
};
use tuckseal::{KemKeyPair, PrivateKey};

use super::load::Places;
use super::wire::Http;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// Files or sockets.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The server said why.
    #[error("the server did not start; its error output says why")]
    NotStarted,
    /// It refuses.
    #[error("the server answered {0}")]
    Status(u16),
    /// It closed a stream.
    #[error("the server closed a stream")]
    Closed,
    /// It says something else.
    #[error("the server gave another answer than was asked for")]
    Answer,
    /// Not what was sent.
    #[error("{0}")]
    Delivery(#[from] super::work::WrongDelivery),
    /// Acknowledged, and still there.
    #[error("{0} messages were delivered again after they had been acknowledged")]
    NotDeleted(usize),
    /// A generator task ended.
    #[error("a task of the generator ended")]
    Task(#[from] tokio::task::JoinError),
}

/// A folder that goes when this is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Self, BenchError> {
        let name = format!("tuckseal-bench-{:x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// A registered device.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) account: [u8; 16],
    pub(super) access_key: [u8; 16],
    pub(super) registration_id: u32,
    token: Bytes,
}

impl Device {
    /// The header that shows its token.
    pub(super) fn bearer(&self) -> String {
        let bytes = [&self.account[..], &[1], &self.token].concat();
        format!("authorization: Bearer {}\r\n", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The header that shows its access key.
    pub(super) fn access_header(&self) -> String {
        format!("access-key: {}\r\n", URL_SAFE_NO_PAD.encode(self.access_key))
    }
}

/// So many new devices.
pub(super) async fn register(places: &Places<'_>, count: usize) -> Result<Vec<Device>, BenchError> {
    let tasks = (0..count).map(|n| tokio::spawn(register_one(places.at(n))));
    let mut devices = Vec::with_capacity(count);
    for task in tasks.collect::<Vec<_>>() {
        devices.push(task.await??);
    }
    Ok(devices)
}

async fn register_one(address: SocketAddr) -> Result<Device, BenchError> {
    let mut http = Http::connect(address).await?;
    let challenge = http.ask("POST /v1/challenges", "", &[]).await?;
    let challenge = Challenge::decode(challenge).map_err(|_| BenchError::Answer)?;
    let identity = PrivateKey::generate(&mut rand::rng());
    let access_key: [u8; 16] = rand::random();
    let registration = Registration {
        challenge: challenge.challenge,
        identity_key: Bytes::copy_from_slice(&identity.public_key().serialize()),
        registration_id: 1,
        username: format!("b{:031x}", rand::random::<u128>() >> 4),
        access_key: Bytes::copy_from_slice(&access_key),
        keys: Some(keys(&identity)),
    };
    let registration = Bytes::from(registration.encode_to_vec());
    let message = [b"tuckseal-registration-v1", &registration[..]].concat();
    let signature = Bytes::copy_from_slice(&identity.sign(&message, &mut rand::rng()));
    let signed = SignedRegistration { registration, signature, work: Bytes::new() }.encode_to_vec();
    let registered = http.ask("POST /v1/accounts", "", &signed).await?;
    let registered = Registered::decode(registered).map_err(|_| BenchError::Answer)?;
    let account = registered.account.as_ref().try_into().map_err(|_| BenchError::Answer)?;
    Ok(Device { account, access_key, registration_id: 1, token: registered.token })
}

fn keys(identity: &PrivateKey) -> KeysUpload {
    let signed = |key: &[u8]| PublicPreKey {
        id: 1,
        key: Bytes::copy_from_slice(key),
        signature: Bytes::copy_from_slice(&identity.sign(key, &mut rand::rng())),
    };
    let curve = PrivateKey::generate(&mut rand::rng()).public_key().serialize();
    let kem = KemKeyPair::generate(&mut rand::rng()).public().serialize();
    KeysUpload {
        signed_prekey: Some(signed(&curve)),
        last_resort_kem: Some(signed(&kem)),
        one_time: (1..=100).map(one_time).collect(),
        ..KeysUpload::default()
    }
}

fn one_time(id: u32) -> PublicPreKey {
    let key = PrivateKey::generate(&mut rand::rng()).public_key().serialize();
    PublicPreKey { id, key: Bytes::copy_from_slice(&key), signature: Bytes::new() }
}
