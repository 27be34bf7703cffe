//! The log: on the error output, as text or JSON. What is logged holds no account, name, key or address.

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, LogFormat};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The filter cannot be read.
    #[error(
        "log filter {filter:?} cannot be read; write a level as in `info`, or `tuckseal_server=debug`"
    )]
    Filter {
        /// As given.
        filter: String,
    },
}

/// Sends the log of this process to the error output. If the process has a log already, that one stays.
///
/// # Errors
/// The filter of the settings cannot be read.
pub fn start(config: &Config) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|_| LogError::Filter { filter: config.log.clone() })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let lines = match config.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // Says that it lets everything through, so that the filter decides what is not even looked at: without it, each
    // frame of a stream would come here for nothing.
    let discreet = filter_fn(is_discreet).with_max_level_hint(LevelFilter::TRACE);
    // An error means that a log is there.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter.and(discreet))).try_init();
    Ok(())
}

/// Below `info`, other crates write the bytes of frames and headers: that is never logged, whatever the filter says.
fn is_discreet(line: &Metadata<'_>) -> bool {
    line.target().starts_with("tuckseal") || *line.level() <= Level::INFO
}
