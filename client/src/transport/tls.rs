//! TLS for https servers: rustls, with the certificates that the operating system trusts. On Unix the environment
//! variable `SSL_CERT_FILE` names others, for those who have an authority of their own.

use std::sync::Arc;

use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, Error, RootCertStore};

use super::ServerError;

/// # Errors
/// [`ServerError::Tls`] if the system's certificates cannot be used; never for a server without TLS.
pub(crate) fn config(server: &str) -> Result<ClientConfig, ServerError> {
    let made = if server.starts_with("https:") { trusting_the_system() } else { trusting_nobody() };
    made.map_err(|_| ServerError::Tls)
}

fn trusting_the_system() -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    Ok(builder.with_platform_verifier()?.with_no_client_auth())
}

/// http needs no TLS; one has to be named all the same, because reqwest would look for one of the process.
fn trusting_nobody() -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
