//! What is wrong with the settings, and what to set instead.

use std::path::PathBuf;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}: {source}")]
    Read {
        /// As given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be; the text names line and key.
    #[error("settings file {path}: {source}")]
    Parse {
        /// As given.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// There is a bus without a store that several nodes can share.
    #[error("a bus is for several nodes on one PostgreSQL; set database, or leave bus out")]
    BusAlone,
    /// A certificate without its key, or the other way round.
    #[error("tls_certificate_file and tls_key_file go together; set both or none")]
    HalfTls,
    /// Certificates from two places.
    #[error("the certificate comes from tls_certificate_file or by acme_domains; set one of them")]
    TwoCertificates,
    /// ACME at a node of several.
    #[error(
        "with a bus there are several nodes, and the authority may ask any of them; get the certificate at the balancer instead of acme_domains"
    )]
    AcmeNodes,
    /// A setting of ACME has no sense.
    #[error("{setting} must be {rule}")]
    Acme {
        /// Of the setting.
        setting: &'static str,
        /// What it has to be.
        rule: &'static str,
    },
    /// An access key without its secret, or the other way round.
    #[error(
        "s3_access_key_id and s3_secret_key_file go together; set both, or none and use the environment"
    )]
    HalfS3,
    /// A key for Apple's service without what belongs to it.
    #[error("apns_key_file needs apns_key_id, apns_team_id and apns_topic; set all four or none")]
    HalfApns,
    /// The hook's address is none, or holds a password.
    #[error(
        "hook_url must be http:// or https:// with a host and without a password; a secret goes into hook_token_file"
    )]
    HookUrl,
    /// A limit has no sense.
    #[error("limit {name} must be {rule}")]
    Limit {
        /// Of the limit.
        name: &'static str,
        /// What it has to be.
        rule: &'static str,
    },
}
