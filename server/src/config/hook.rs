//! What an operator sets for his own check (`hook/`).

use std::path::PathBuf;

use reqwest::Url;
use serde::Deserialize;

use super::ConfigError;
use crate::hook::HookKind;

/// Asked about unless the settings say which.
const EVENTS: [HookKind; 4] =
    [HookKind::Registration, HookKind::Submission, HookKind::Upload, HookKind::Reported];

/// Settings of the hook; the names are those of the flags. It is on when there is an address.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct HookSettings {
    /// Address that is asked before somebody registers, sends or uploads, by a POST of JSON; nobody without it
    #[arg(long, value_name = "URL", env = "TUCKSEAL_HOOK_URL")]
    pub hook_url: Option<String>,
    /// One line that is shown to it as `authorization: Bearer LINE`
    #[arg(long, value_name = "FILE", env = "TUCKSEAL_HOOK_TOKEN_FILE")]
    pub hook_token_file: Option<PathBuf>,
    /// What it is asked about, with commas [default: registration,submission,upload,reported]
    #[arg(
        long,
        value_name = "EVENT,…",
        value_enum,
        env = "TUCKSEAL_HOOK_EVENTS",
        value_delimiter = ','
    )]
    pub hook_events: Vec<HookKind>,
    /// What happens when it does not answer [default: allow]
    #[arg(long, value_enum, env = "TUCKSEAL_HOOK_ON_FAILURE")]
    pub hook_on_failure: Option<OnFailure>,
}

/// What happens when the hook does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It goes on as if it had allowed
    Allow,
    /// It is refused with 503, and may be tried again
    Refuse,
}

impl HookSettings {
    /// What is asked about.
    #[must_use]
    pub fn events(&self) -> Vec<HookKind> {
        if self.hook_events.is_empty() { EVENTS.into() } else { self.hook_events.clone() }
    }

    /// What happens when it does not answer.
    #[must_use]
    pub fn on_failure(&self) -> OnFailure {
        self.hook_on_failure.unwrap_or(OnFailure::Allow)
    }

    pub(super) fn or(self, other: Self) -> Self {
        let own = !self.hook_events.is_empty();
        Self {
            hook_url: self.hook_url.or(other.hook_url),
            hook_token_file: self.hook_token_file.or(other.hook_token_file),
            hook_events: if own { self.hook_events } else { other.hook_events },
            hook_on_failure: self.hook_on_failure.or(other.hook_on_failure),
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Some(address) = &self.hook_url else { return Ok(()) };
        let url = Url::parse(address).ok();
        let plain = url.filter(|url| {
            let bare = url.username().is_empty() && url.password().is_none();
            matches!(url.scheme(), "http" | "https") && url.has_host() && bare
        });
        plain.map(drop).ok_or(ConfigError::HookUrl)
    }

    /// As lines of the table `[hook]`.
    pub(super) fn lines(&self) -> [(&'static str, Option<String>); 4] {
        let text = |text: &str| format!("{text:?}");
        let token = self.hook_token_file.as_ref().map(|path| text(&path.display().to_string()));
        let events: Vec<&str> = self.events().into_iter().map(HookKind::name).collect();
        let on_failure = match self.on_failure() {
            OnFailure::Allow => "allow",
            OnFailure::Refuse => "refuse",
        };
        [
            ("hook_url", self.hook_url.as_deref().map(text)),
            ("hook_token_file", token),
            ("hook_events", Some(format!("{events:?}"))),
            ("hook_on_failure", Some(text(on_failure))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_without_host_or_with_a_password_is_refused() {
        let with = |url: &str| HookSettings { hook_url: Some(url.into()), ..Default::default() };
        for good in ["http://127.0.0.1:9/x", "https://check.example.org"] {
            assert!(with(good).check().is_ok(), "{good}");
        }
        for bad in ["", "check.example.org", "ftp://h/", "https://", "http://u:p@h/"] {
            assert!(matches!(with(bad).check(), Err(ConfigError::HookUrl)), "{bad}");
        }
    }
}
