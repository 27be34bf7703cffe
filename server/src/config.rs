//! What an operator can set: by flag, by environment, by file, in that order of precedence.
//!
//! What a source can say stands in `config/settings.rs`, the limits and their defaults in `config/limits.rs`.

mod acme;
mod address;
mod attachments;
mod error;
mod hook;
mod limits;
mod push;
mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use acme::AcmeSettings;
pub use address::Address;
pub use attachments::{AttachmentPlace, BucketPlace, NoPlace, S3Settings};
pub use error::ConfigError;
pub use hook::{HookSettings, OnFailure};
pub use limits::{LimitSettings, Limits};
pub use push::PushSettings;
pub use settings::{Arguments, LogFormat, Settings};

/// More than this the client refuses to do: it would take minutes on a phone.
const MAX_WORK_BITS: u8 = 24;

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
    /// Nothing is taken in.
    pub read_only: bool,
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
        let file =
            arguments.config.as_deref().map_or_else(|| Ok(Settings::default()), Settings::read)?;
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
            ("read_only", Some(self.read_only.to_string())),
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
