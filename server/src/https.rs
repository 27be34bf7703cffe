//! TLS towards servers of others: rustls with the roots of the operating system.

use std::sync::Arc;

use tokio_rustls::rustls::{self, ClientConfig};

/// What a client of HTTPS trusts. `SSL_CERT_FILE` names other roots than those of the system.
///
/// # Errors
/// The roots cannot be read.
pub(crate) fn client_config() -> Result<ClientConfig, rustls::Error> {
    use rustls_platform_verifier::BuilderVerifierExt;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?;
    Ok(config.with_no_client_auth())
}
