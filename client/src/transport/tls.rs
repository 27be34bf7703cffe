//! TLS for https servers: rustls, with the authorities that the profile names, or else with the certificates that the operating
//! system trusts. On Unix the environment variable `SSL_CERT_FILE` names others than those of the system.

use std::sync::Arc;

use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, Error, RootCertStore, WantsVerifier};

use super::ServerError;

/// The authorities of a server with a private one. A profile that names them trusts no others.
#[derive(Clone, PartialEq, Eq)]
pub struct Ca(Vec<CertificateDer<'static>>);

/// The authorities cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// There is nothing to trust.
    #[error("there is no certificate in it: a CA file has the authority's certificate in PEM")]
    Empty,
    /// Something in it is no certificate.
    #[error("a certificate in it cannot be read: a CA file has the authority's certificate in PEM")]
    Certificate,
}

impl Ca {
    /// One or several certificates in PEM; what else stands there, such as a key, is left.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, CaError> {
        let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|_| CaError::Certificate)?;
        Self::new(certificates.into_iter().map(|der| der.to_vec()))
    }

    fn new(certificates: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, CaError> {
        let ca = Self(certificates.into_iter().map(Into::into).collect());
        if ca.0.is_empty() {
            return Err(CaError::Empty);
        }
        ca.roots().map_err(|_| CaError::Certificate)?;
        Ok(ca)
    }

    /// Of those that a profile has; `None` if it has none.
    pub(crate) fn of_profile(certificates: Vec<Vec<u8>>) -> Result<Option<Self>, CaError> {
        if certificates.is_empty() { Ok(None) } else { Self::new(certificates).map(Some) }
    }

    /// For the profile: in DER, none for none.
    pub(crate) fn certificates(ca: Option<&Self>) -> Vec<&[u8]> {
        let certificates = ca.into_iter().flat_map(|ca| &ca.0);
        certificates.map(|certificate| &**certificate).collect()
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        self.0.iter().try_for_each(|certificate| roots.add(certificate.clone()))?;
        Ok(roots)
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("certificates", &self.0.len()).finish()
    }
}

/// # Errors
/// [`ServerError::Tls`] if the system's certificates cannot be used; never for a server without TLS.
pub(crate) fn config(server: &str, ca: Option<&Ca>) -> Result<ClientConfig, ServerError> {
    let made = match ca {
        Some(ca) => ca.roots().and_then(trusting),
        None if server.starts_with("https:") => trusting_the_system(),
        // http needs no TLS; one has to be named all the same, because reqwest would look for one of the process.
        None => trusting(RootCertStore::empty()),
    };
    made.map_err(|_| ServerError::Tls)
}

fn trusting_the_system() -> Result<ClientConfig, Error> {
    Ok(builder()?.with_platform_verifier()?.with_no_client_auth())
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, Error> {
    Ok(builder()?.with_root_certificates(roots).with_no_client_auth())
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
}
