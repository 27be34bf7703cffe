//! The settings of one source: command line and environment, or file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    AcmeSettings, Address, AttachmentPlace, Config, ConfigError, HookSettings, LimitSettings,
    PushSettings, S3Settings,
};

/// Settings as given on the command line or in the environment.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Arguments {
    /// Settings file (TOML); flags and environment go before it
    #[arg(long, value_name = "FILE", env = "TUCKSEAL_CONFIG")]
    pub config: Option<PathBuf>,
    #[allow(missing_docs, reason = "its fields carry the help")]
    #[command(flatten)]
    pub settings: Settings,
}

/// Settings of one source; what is absent is left to the next source.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address to listen on; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT", env = "TUCKSEAL_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Folder of the database and the keys, made if it is not there [default: tuckseal-data]
    #[arg(long, value_name = "FOLDER", env = "TUCKSEAL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// PostgreSQL, as postgresql://user:password@host:port/name; without it SQLite in the data folder
    #[arg(long, value_name = "URL", env = "TUCKSEAL_DATABASE", hide_env_values = true)]
    pub database: Option<Address>,
    /// NATS or Redis, as nats:// or redis://user:password@host:port, for several nodes on one PostgreSQL; none for a single node
    #[arg(long, value_name = "URL", env = "TUCKSEAL_BUS", hide_env_values = true)]
    pub bus: Option<Address>,
    /// Folder of the attachments, or s3://bucket/prefix; nodes share it [default: attachments in the data folder]
    #[arg(long, value_name = "FOLDER|URL", env = "TUCKSEAL_ATTACHMENTS")]
    pub attachments: Option<AttachmentPlace>,
    /// Address of the counters for Prometheus, at /metrics; nowhere without it
    #[arg(long, value_name = "ADDRESS:PORT", env = "TUCKSEAL_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// Certificate chain in PEM, own certificate first; with it the server speaks https
    #[arg(
        long,
        value_name = "FILE",
        env = "TUCKSEAL_TLS_CERTIFICATE_FILE",
        requires = "tls_key_file"
    )]
    pub tls_certificate_file: Option<PathBuf>,
    /// Private key of that certificate in PEM
    #[arg(long, value_name = "FILE", env = "TUCKSEAL_TLS_KEY_FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// Public trust root, one line of hex [default: trust-root.public in the data folder]
    #[arg(long, value_name = "FILE", env = "TUCKSEAL_TRUST_ROOT_FILE")]
    pub trust_root_file: Option<PathBuf>,
    /// The server's private key, one line of hex [default: server.private in the data folder]
    #[arg(long, value_name = "FILE", env = "TUCKSEAL_SERVER_KEY_FILE")]
    pub server_key_file: Option<PathBuf>,
    /// The server's certificate, one line of hex [default: server.certificate in the data folder]
    #[arg(long, value_name = "FILE", env = "TUCKSEAL_SERVER_CERTIFICATE_FILE")]
    pub server_certificate_file: Option<PathBuf>,
    /// Secret of challenges, envelope ids and attachments, one line of hex [default: relay.secret in the data folder]
    #[arg(long, value_name = "FILE", env = "TUCKSEAL_RELAY_SECRET_FILE")]
    pub relay_secret_file: Option<PathBuf>,
    /// Zero bits that the proof of work of a registration has, from 0 (none) to 24: 2^N hashes in the mean [default: 0]
    #[arg(long, value_name = "N", env = "TUCKSEAL_REGISTRATION_WORK_BITS")]
    pub registration_work_bits: Option<u8>,
    /// What waits is delivered, and nothing is taken in, given out or taken away: while you move or mend what is below [default: false]
    #[arg(long, value_name = "true|false", env = "TUCKSEAL_READ_ONLY", num_args = 0..=1, default_missing_value = "true")]
    pub read_only: Option<bool>,
    /// Form of the log on the error output [default: text]
    #[arg(long, value_enum, env = "TUCKSEAL_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged, as in `info` or `tuckseal_server=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "TUCKSEAL_LOG")]
    pub log: Option<String>,
    #[allow(missing_docs, reason = "its fields carry the help")]
    #[command(flatten, next_help_heading = "Certificates by ACME (table [acme] of the file)")]
    pub acme: AcmeSettings,
    #[allow(missing_docs, reason = "its fields carry the help")]
    #[command(flatten, next_help_heading = "Attachments in a bucket (table [s3] of the file)")]
    pub s3: S3Settings,
    #[allow(missing_docs, reason = "its fields carry the help")]
    #[command(flatten, next_help_heading = "Push (table [push] of the file)")]
    pub push: PushSettings,
    #[allow(missing_docs, reason = "its fields carry the help")]
    #[command(flatten, next_help_heading = "The operator's own check (table [hook] of the file)")]
    pub hook: HookSettings,
    #[allow(missing_docs, reason = "its fields carry the help")]
    #[command(flatten, next_help_heading = "Limits (table [limits] of the file)")]
    pub limits: LimitSettings,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

impl Settings {
    /// Of a file.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })
    }

    /// What is absent is taken from the other source.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            data_dir: self.data_dir.or(other.data_dir),
            database: self.database.or(other.database),
            bus: self.bus.or(other.bus),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            tls_certificate_file: self.tls_certificate_file.or(other.tls_certificate_file),
            tls_key_file: self.tls_key_file.or(other.tls_key_file),
            attachments: self.attachments.or(other.attachments),
            trust_root_file: self.trust_root_file.or(other.trust_root_file),
            server_key_file: self.server_key_file.or(other.server_key_file),
            server_certificate_file: self.server_certificate_file.or(other.server_certificate_file),
            relay_secret_file: self.relay_secret_file.or(other.relay_secret_file),
            registration_work_bits: self.registration_work_bits.or(other.registration_work_bits),
            read_only: self.read_only.or(other.read_only),
            log_format: self.log_format.or(other.log_format),
            log: self.log.or(other.log),
            acme: self.acme.or(other.acme),
            s3: self.s3.or(other.s3),
            push: self.push.or(other.push),
            hook: self.hook.or(other.hook),
            limits: self.limits.or(other.limits),
        }
    }

    /// What is absent gets its default.
    pub(super) fn complete(self) -> Config {
        let data_dir = self.data_dir.unwrap_or_else(|| "tuckseal-data".into());
        let attachments = self.attachments;
        let attachments =
            attachments.unwrap_or_else(|| AttachmentPlace::Folder(data_dir.join("attachments")));
        Config {
            listen: self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080))),
            data_dir,
            database: self.database,
            bus: self.bus,
            metrics_listen: self.metrics_listen,
            tls_certificate_file: self.tls_certificate_file,
            tls_key_file: self.tls_key_file,
            attachments,
            trust_root_file: self.trust_root_file,
            server_key_file: self.server_key_file,
            server_certificate_file: self.server_certificate_file,
            relay_secret_file: self.relay_secret_file,
            registration_work_bits: self.registration_work_bits.unwrap_or(0),
            read_only: self.read_only.unwrap_or(false),
            log_format: self.log_format.unwrap_or(LogFormat::Text),
            log: self.log.unwrap_or_else(|| "info".into()),
            acme: self.acme,
            s3: self.s3,
            push: self.push,
            hook: self.hook,
            limits: self.limits.complete(),
        }
    }
}
