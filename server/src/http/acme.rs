//! Certificates by ACME (RFC 8555), each name proven by tls-alpn-01 (RFC 8737) on the port that is listened on. The
//! protocol is `rustls-acme`'s; kept files and what an operator reads of it are here.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use rustls_acme::{AccountCache, AcmeConfig, AcmeState, CertCache, EventOk};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::tls::{self, TlsError};
use crate::config::Config;
use crate::https;

/// Gets certificates and renews them when two thirds of their time are over, as long as [`Renewal::run`] runs.
pub(crate) struct Renewal(AcmeState<io::Error>);

/// Accepts TLS connections with what ACME brings; none before the first certificate.
pub(crate) fn acceptor(config: &Config) -> Result<(TlsAcceptor, Renewal), TlsError> {
    let acme = &config.acme;
    let client = Arc::new(https::client_config()?);
    let state = AcmeConfig::new_with_client_config(&acme.acme_domains, client)
        .directory(acme.directory())
        .contact(&acme.acme_contact)
        .cache(Cache { folder: folder(config) })
        .state();
    Ok((tls::acme_acceptor(state.resolver())?, Renewal(state)))
}

/// Where account key and certificate are kept.
pub(crate) fn folder(config: &Config) -> PathBuf {
    config.acme.acme_cache.clone().unwrap_or_else(|| config.data_dir.join("acme"))
}

impl Renewal {
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        loop {
            let event = tokio::select! {
                () = stopping.cancelled() => return,
                event = self.0.next() => event,
            };
            match event {
                Some(Ok(EventOk::DeployedCachedCert)) => {
                    tracing::info!("ACME: kept certificate in use")
                }
                Some(Ok(EventOk::DeployedNewCert)) => {
                    tracing::info!("ACME: new certificate in use")
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "ACME: will be tried again; tuckseal-server check tells more");
                }
                None => return,
            }
        }
    }
}

/// One file for each account and each list of names, at each authority. Only this user reads them.
struct Cache {
    folder: PathBuf,
}

impl Cache {
    async fn load(&self, path: PathBuf) -> io::Result<Option<Vec<u8>>> {
        match tokio::fs::read(path).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn store(&self, path: PathBuf, bytes: Vec<u8>) -> io::Result<()> {
        let folder = self.folder.clone();
        let stored = tokio::task::spawn_blocking(move || write(&folder, &path, &bytes)).await;
        stored.map_err(io::Error::other)?
    }

    fn path(&self, kind: &str, names: &[String], directory: &str) -> PathBuf {
        let mut digest = Sha256::new();
        for name in names.iter().map(String::as_str).chain([directory]) {
            digest.update((name.len() as u64).to_be_bytes());
            digest.update(name);
        }
        let id = digest.finalize();
        self.folder.join(format!("{kind}-{}", hex::encode(id.get(..8).unwrap_or_default())))
    }
}

#[async_trait]
impl CertCache for Cache {
    type EC = io::Error;

    async fn load_cert(&self, names: &[String], directory: &str) -> io::Result<Option<Vec<u8>>> {
        self.load(self.path("certificate", names, directory)).await
    }

    async fn store_cert(&self, names: &[String], directory: &str, pem: &[u8]) -> io::Result<()> {
        self.store(self.path("certificate", names, directory), pem.to_vec()).await
    }
}

#[async_trait]
impl AccountCache for Cache {
    type EA = io::Error;

    async fn load_account(
        &self,
        contact: &[String],
        directory: &str,
    ) -> io::Result<Option<Vec<u8>>> {
        self.load(self.path("account", contact, directory)).await
    }

    async fn store_account(
        &self,
        contact: &[String],
        directory: &str,
        key: &[u8],
    ) -> io::Result<()> {
        self.store(self.path("account", contact, directory), key.to_vec()).await
    }
}

/// Whole or not at all: a half certificate would be in the way of the next start.
fn write(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    builder.create(folder)?;
    let new = path.with_extension("new");
    let mut file = options.open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}
