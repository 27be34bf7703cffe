//! What an operator can set: by flag, by environment, by file, in that order of precedence.
//!
//! The limits and their defaults stand in `config/limits.rs`.

mod acme;
mod address;
mod attachments;
mod hook;
mod limits;
mod push;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use acme::AcmeSettings;
pub use address::Address;
pub use attachments::{AttachmentPlace, BucketPlace, NoPlace, S3Settings};
pub use hook::{HookSettings, OnFailure};
pub use limits::{LimitSettings, Limits};
pub use push::PushSettings;

/// More than this the client refuses to do: it would take minutes on a phone.
const MAX_WORK_BITS: u8 = 24;

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

/// All settings, complete.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Holds `tuckseal.db` and, unless named elsewhere, the keys.
    pub data_dir: PathBuf,
    /// PostgreSQL; SQLite in the data folder without it.
    pub database: Option<Address>,
    /// NATS or Redis; none for a single node.
    pub bus: Option<Address>,
    /// Serves the counters; none: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Chain in PEM.
    pub tls_certificate_file: Option<PathBuf>,
    /// Its key in PEM.
    pub tls_key_file: Option<PathBuf>,
    /// Holds the attachments, by day.
    pub attachments: AttachmentPlace,
    /// 33 bytes in hex.
    pub trust_root_file: Option<PathBuf>,
    /// 32 bytes in hex.
    pub server_key_file: Option<PathBuf>,
    /// Hex.
    pub server_certificate_file: Option<PathBuf>,
    /// 32 bytes in hex, the same on all nodes.
    pub relay_secret_file: Option<PathBuf>,
    /// Of the proof of work of a registration; 0: none.
    pub registration_work_bits: u8,
    /// Of the log on the error output.
    pub log_format: LogFormat,
    /// Filter of the log.
    pub log: String,
    /// Certificates by ACME.
    pub acme: AcmeSettings,
    /// How the bucket is reached, if attachments are in one.
    pub s3: S3Settings,
    /// Waking devices.
    pub push: PushSettings,
    /// The operator's own check.
    pub hook: HookSettings,
    /// Sizes, rates and times.
    pub limits: Limits,
}

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

impl Config {
    /// Default settings for a data folder.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Settings { data_dir: Some(data_dir.into()), ..Settings::default() }.complete()
    }

    /// Flags and environment over the file over the defaults.
    ///
    /// # Errors
    /// The file cannot be read, has an unknown key or a wrong value (the text names the line), or a limit is
    /// out of range.
    pub fn load(arguments: Arguments) -> Result<Self, ConfigError> {
        let file = arguments.config.as_deref().map_or_else(|| Ok(Settings::default()), read)?;
        let config = arguments.settings.or(file).complete();
        config.limits.check()?;
        config.push.check()?;
        config.s3.check()?;
        config.acme.check()?;
        config.hook.check()?;
        if config.registration_work_bits > MAX_WORK_BITS {
            let (name, rule) = ("registration_work_bits", "from 0 to 24; clients refuse more");
            return Err(ConfigError::Limit { name, rule });
        }
        if config.bus.is_some() && config.database.is_none() {
            return Err(ConfigError::BusAlone);
        }
        if config.tls_certificate_file.is_some() != config.tls_key_file.is_some() {
            return Err(ConfigError::HalfTls);
        }
        if config.acme.is_on() && config.tls_key_file.is_some() {
            return Err(ConfigError::TwoCertificates);
        }
        if config.acme.is_on() && config.bus.is_some() {
            return Err(ConfigError::AcmeNodes);
        }
        Ok(config)
    }
}

impl Config {
    /// Certificate chain and key, if the server is to speak https.
    #[must_use]
    pub fn tls_files(&self) -> Option<(&Path, &Path)> {
        self.tls_certificate_file.as_deref().zip(self.tls_key_file.as_deref())
    }
}

/// As a settings file, without passwords; a line that begins with # is a setting that has no value.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &dyn fmt::Display| Some(format!("{:?}", value.to_string()));
        let path = |path: &Option<PathBuf>| path.as_ref().and_then(|path| text(&path.display()));
        let lines = [
            ("listen", text(&self.listen)),
            ("data_dir", text(&self.data_dir.display())),
            ("database", self.database.as_ref().and_then(|database| text(database))),
            ("bus", self.bus.as_ref().and_then(|bus| text(bus))),
            ("metrics_listen", self.metrics_listen.as_ref().and_then(|address| text(address))),
            ("tls_certificate_file", path(&self.tls_certificate_file)),
            ("tls_key_file", path(&self.tls_key_file)),
            ("attachments", text(&self.attachments)),
            ("trust_root_file", path(&self.trust_root_file)),
            ("server_key_file", path(&self.server_key_file)),
            ("server_certificate_file", path(&self.server_certificate_file)),
            ("relay_secret_file", path(&self.relay_secret_file)),
            ("registration_work_bits", Some(self.registration_work_bits.to_string())),
            ("log_format", text(&format!("{:?}", self.log_format).to_lowercase())),
            ("log", text(&self.log)),
        ];
        write_lines(f, lines)?;
        writeln!(f, "\n[acme]")?;
        write_lines(f, self.acme.lines())?;
        writeln!(f, "\n[s3]")?;
        write_lines(f, self.s3.lines())?;
        writeln!(f, "\n[push]")?;
        write_lines(f, self.push.lines())?;
        writeln!(f, "\n[hook]")?;
        write_lines(f, self.hook.lines())?;
        writeln!(f, "\n[limits]\n{}", self.limits)
    }
}

fn write_lines<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    lines: [(&'static str, Option<String>); N],
) -> fmt::Result {
    for (name, value) in lines {
        match value {
            Some(value) => writeln!(f, "{name} = {value}")?,
            None => writeln!(f, "# {name} =")?,
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.into(), source })?;
    toml::from_str(&text)
        .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })
}

impl Settings {
    fn or(self, other: Self) -> Self {
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
            log_format: self.log_format.or(other.log_format),
            log: self.log.or(other.log),
            acme: self.acme.or(other.acme),
            s3: self.s3.or(other.s3),
            push: self.push.or(other.push),
            hook: self.hook.or(other.hook),
            limits: self.limits.or(other.limits),
        }
    }

    fn complete(self) -> Config {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, settings: Settings) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Arguments { config: Some(path), settings })
    }

    #[test]
    fn flag_goes_before_file_and_file_before_default() {
        let text =
            "listen = \"127.0.0.1:1\"\nlog_format = \"json\"\n[limits]\nmailbox_messages = 5\n";
        let flag = Settings { listen: Some(([127, 0, 0, 1], 2).into()), ..Settings::default() };
        let config = load(text, flag).unwrap();
        assert_eq!((config.listen.port(), config.log_format), (2, LogFormat::Json));
        assert_eq!(
            (config.limits.mailbox_messages, config.limits.mailbox_bytes),
            (5, 64 * 1024 * 1024)
        );
    }

    #[test]
    fn unknown_key_is_refused_with_its_line() {
        for text in ["listen = \"127.0.0.1:1\"\nlissten = 1\n", "[limits]\nno_such_limit = 1\n"] {
            let error = load(text, Settings::default()).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{error}");
        }
    }

    #[test]
    fn printed_settings_are_read_back_and_say_no_password() {
        let settings = Settings {
            database: Some("postgresql://u:hunter2@h:5432/d".parse().unwrap()),
            metrics_listen: Some(([127, 0, 0, 1], 9).into()),
            ..Settings::default()
        };
        let printed = load("", settings).unwrap().to_string();
        assert!(!printed.contains("hunter2"));
        let read = load(&printed, Settings::default()).unwrap();
        assert_eq!(read.to_string(), printed);
        assert_eq!(read.limits.sweep_interval_secs, 30);
    }

    #[test]
    fn work_that_clients_refuse_is_refused() {
        assert_eq!(
            load("registration_work_bits = 24", Settings::default())
                .unwrap()
                .registration_work_bits,
            24
        );
        let error = load("registration_work_bits = 25", Settings::default()).unwrap_err();
        assert!(matches!(error, ConfigError::Limit { name: "registration_work_bits", .. }));
    }

    #[test]
    fn limit_of_zero_is_refused() {
        let error = load("[limits]\nwindow_messages = 0\n", Settings::default()).unwrap_err();
        assert!(matches!(error, ConfigError::Limit { name: "window_messages", .. }));
    }
}
