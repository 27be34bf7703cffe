//! TLS 1.2 and 1.3 by rustls: a certificate chain and a key in PEM files, or what ACME brings (`acme.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ResolvesServerCert, WantsServerCert};
use tokio_rustls::rustls::{self, ConfigBuilder, ServerConfig};

const HTTP: &[u8] = b"http/1.1";
/// What an authority offers that looks whether a name leads here (RFC 8737).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or is not PEM.
    #[error("TLS file {path}: {source}; it must hold {expected} in PEM")]
    File {
        /// As set.
        path: PathBuf,
        /// Why.
        source: pem::Error,
        /// What it should hold.
        expected: &'static str,
    },
    /// Certificate and key do not go together, or are of a kind that rustls does not take; or, for ACME, the roots of
    /// the operating system cannot be read.
    #[error("TLS certificate and key cannot be used ({0}); check that they belong together")]
    Unusable(#[from] rustls::Error),
}

/// Accepts TLS connections with this chain (own certificate first) and key.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let failed = |path: &Path, expected| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source, expected }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed(certificate, "the certificate chain"))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(failed(key, "a private key"))?;
    let mut config = builder()?.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts TLS connections with the certificate that is there when one comes, and those that prove names by tls-alpn-01.
pub(crate) fn acme_acceptor(
    certificates: Arc<dyn ResolvesServerCert>,
) -> Result<TlsAcceptor, TlsError> {
    let mut config = builder()?.with_cert_resolver(certificates);
    config.alpn_protocols = vec![HTTP.to_vec(), ACME_TLS.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn builder() -> Result<ConfigBuilder<ServerConfig, WantsServerCert>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    Ok(builder.with_safe_default_protocol_versions()?.with_no_client_auth())
}
