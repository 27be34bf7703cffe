//! What an operator sets for certificates by ACME.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;

/// Settings of ACME; the names are those of the flags. It is on when there is a name.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct AcmeSettings {
    /// Names of this server, with commas; with them the server gets its certificate itself and speaks https. The
    /// authority connects to port 443 of each name, which must lead to the address that is listened on. Setting them
    /// agrees to the terms of the authority
    #[arg(long, value_name = "NAME,…", env = "TUCKSEAL_ACME_DOMAINS", value_delimiter = ',')]
    pub acme_domains: Vec<String>,
    /// Address that the authority may write to, as mailto:somebody@example.org
    #[arg(long, value_name = "URI", env = "TUCKSEAL_ACME_CONTACT")]
    pub acme_contact: Option<String>,
    /// Directory of the authority [default: Let's Encrypt's]
    #[arg(long, value_name = "URL", env = "TUCKSEAL_ACME_DIRECTORY")]
    pub acme_directory: Option<String>,
    /// Folder of the account key and the certificate [default: acme in the data folder]
    #[arg(long, value_name = "FOLDER", env = "TUCKSEAL_ACME_CACHE")]
    pub acme_cache: Option<PathBuf>,
}

impl AcmeSettings {
    /// Whether certificates come by ACME.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.acme_domains.is_empty()
    }

    pub(crate) fn directory(&self) -> &str {
        use rustls_acme::acme::LETS_ENCRYPT_PRODUCTION_DIRECTORY;
        self.acme_directory.as_deref().unwrap_or(LETS_ENCRYPT_PRODUCTION_DIRECTORY)
    }

    pub(super) fn or(self, other: Self) -> Self {
        let own = !self.acme_domains.is_empty();
        Self {
            acme_domains: if own { self.acme_domains } else { other.acme_domains },
            acme_contact: self.acme_contact.or(other.acme_contact),
            acme_directory: self.acme_directory.or(other.acme_directory),
            acme_cache: self.acme_cache.or(other.acme_cache),
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bad = |setting, rule| Err(ConfigError::Acme { setting, rule });
        if !self.acme_domains.iter().all(|name| is_name(name)) {
            return bad(
                "acme_domains",
                "names of this server: no address, no *, no scheme, no port",
            );
        }
        if self.acme_contact.as_ref().is_some_and(|contact| !contact.starts_with("mailto:")) {
            return bad("acme_contact", "an address as mailto:somebody@example.org");
        }
        if !self.directory().starts_with("https://") {
            return bad("acme_directory", "an https URL");
        }
        Ok(())
    }

    /// As lines of the table `[acme]`.
    pub(super) fn lines(&self) -> [(&'static str, Option<String>); 4] {
        let text = |text: &str| format!("{text:?}");
        let cache = self.acme_cache.as_ref().map(|path| text(&path.display().to_string()));
        [
            ("acme_domains", self.is_on().then(|| format!("{:?}", self.acme_domains))),
            ("acme_contact", self.acme_contact.as_deref().map(text)),
            ("acme_directory", Some(text(self.directory()))),
            ("acme_cache", cache),
        ]
    }
}

/// tls-alpn-01 proves no wildcard, and an authority for everybody certifies no address.
fn is_name(name: &str) -> bool {
    let labels = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.split('.').all(labels) && name.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_authority_would_certify_is_refused() {
        let with = |domains: &[&str]| AcmeSettings {
            acme_domains: domains.iter().map(|&name| name.into()).collect(),
            ..AcmeSettings::default()
        };
        assert!(with(&["relay.example.org", "xn--bcher-kva.example"]).check().is_ok());
        for bad in
            ["", "*.example.org", "192.0.2.1", "https://example.org", "example.org:443", "a..b"]
        {
            assert!(with(&["example.org", bad]).check().is_err(), "{bad}");
        }
        let plain = AcmeSettings { acme_directory: Some("http://ca".into()), ..with(&["a"]) };
        assert!(matches!(plain.check(), Err(ConfigError::Acme { setting: "acme_directory", .. })));
    }
}
