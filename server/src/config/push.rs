//! What an operator sets for push (`push/`). Web Push needs nothing.

use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;

/// Settings of push; the names are those of the flags.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct PushSettings {
    /// Address for the owners of push services, as mailto:somebody@example.org; some ask for one
    #[arg(long, value_name = "URI", env = "TUCKSEAL_PUSH_CONTACT")]
    pub push_contact: Option<String>,
    /// Also wake devices through endpoints in private networks and without TLS; only where every client may reach those
    #[arg(long, env = "TUCKSEAL_PUSH_PRIVATE_ENDPOINTS")]
    pub push_private_endpoints: bool,
    /// Private key for Apple's service, the .p8 file that Apple gives out
    #[arg(long, value_name = "FILE", env = "TUCKSEAL_APNS_KEY_FILE")]
    pub apns_key_file: Option<PathBuf>,
    /// Id of that key
    #[arg(long, value_name = "ID", env = "TUCKSEAL_APNS_KEY_ID")]
    pub apns_key_id: Option<String>,
    /// Apple's id of the team
    #[arg(long, value_name = "ID", env = "TUCKSEAL_APNS_TEAM_ID")]
    pub apns_team_id: Option<String>,
    /// The app's bundle id
    #[arg(long, value_name = "ID", env = "TUCKSEAL_APNS_TOPIC")]
    pub apns_topic: Option<String>,
    /// Apple's server [default: `https://api.push.apple.com`]
    #[arg(long, value_name = "URL", env = "TUCKSEAL_APNS_SERVER")]
    pub apns_server: Option<String>,
    /// Service account for Google's service, the JSON file that Google gives out
    #[arg(long, value_name = "FILE", env = "TUCKSEAL_FCM_ACCOUNT_FILE")]
    pub fcm_account_file: Option<PathBuf>,
    /// Google's server [default: `https://fcm.googleapis.com`]
    #[arg(long, value_name = "URL", env = "TUCKSEAL_FCM_SERVER")]
    pub fcm_server: Option<String>,
}

impl PushSettings {
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            push_contact: self.push_contact.or(other.push_contact),
            push_private_endpoints: self.push_private_endpoints || other.push_private_endpoints,
            apns_key_file: self.apns_key_file.or(other.apns_key_file),
            apns_key_id: self.apns_key_id.or(other.apns_key_id),
            apns_team_id: self.apns_team_id.or(other.apns_team_id),
            apns_topic: self.apns_topic.or(other.apns_topic),
            apns_server: self.apns_server.or(other.apns_server),
            fcm_account_file: self.fcm_account_file.or(other.fcm_account_file),
            fcm_server: self.fcm_server.or(other.fcm_server),
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let apns = [&self.apns_key_id, &self.apns_team_id, &self.apns_topic];
        if self.apns_key_file.is_some() && apns.into_iter().any(Option::is_none) {
            return Err(ConfigError::HalfApns);
        }
        Ok(())
    }

    pub(crate) fn apns_server(&self) -> &str {
        self.apns_server.as_deref().unwrap_or("https://api.push.apple.com")
    }

    pub(crate) fn fcm_server(&self) -> &str {
        self.fcm_server.as_deref().unwrap_or("https://fcm.googleapis.com")
    }

    /// As lines of the table `[push]`.
    pub(super) fn lines(&self) -> [(&'static str, Option<String>); 9] {
        let quoted = |text: &dyn std::fmt::Display| format!("{:?}", text.to_string());
        let text = |setting: &Option<String>| setting.as_ref().map(|text| quoted(text));
        let path = |setting: &Option<PathBuf>| setting.as_ref().map(|path| quoted(&path.display()));
        [
            ("push_contact", text(&self.push_contact)),
            ("push_private_endpoints", Some(self.push_private_endpoints.to_string())),
            ("apns_key_file", path(&self.apns_key_file)),
            ("apns_key_id", text(&self.apns_key_id)),
            ("apns_team_id", text(&self.apns_team_id)),
            ("apns_topic", text(&self.apns_topic)),
            ("apns_server", Some(quoted(&self.apns_server()))),
            ("fcm_account_file", path(&self.fcm_account_file)),
            ("fcm_server", Some(quoted(&self.fcm_server()))),
        ]
    }
}
