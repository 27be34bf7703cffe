//! `tuckseal push …`: where this device is woken when something waits for it and it is not connected.

use super::{Error, open};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::path::Path;
use tuckseal_client::{PushTarget, WebSubscription};

#[derive(clap::Subcommand)]
pub(crate) enum Options {
    /// At an endpoint of Web Push or UnifiedPush (ntfy and the like); what comes there is for `tuckseal wake`
    Web(Web),
    /// By Apple's service
    Apns(Token),
    /// By Google's service
    Fcm(Token),
    /// Nowhere
    Off,
    /// Tell where it is woken, and what the server can wake
    Show,
}

#[derive(clap::Args)]
pub(crate) struct Web {
    /// The endpoint
    #[arg(value_name = "URL")]
    endpoint: String,
    /// Public key of the subscription, in base64url; without, keys are made and kept in the profile
    #[arg(long, value_name = "KEY", requires = "auth", allow_hyphen_values = true)]
    p256dh: Option<String>,
    /// Secret of the subscription, in base64url
    #[arg(long, value_name = "SECRET", requires = "p256dh", allow_hyphen_values = true)]
    auth: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct Token {
    /// What the service has given the app
    #[arg(allow_hyphen_values = true)]
    token: String,
}

pub(crate) async fn run(folder: &Path, options: Options) -> Result<(), Error> {
    let client = open(folder).await?;
    let is_show = matches!(options, Options::Show);
    match options {
        Options::Web(Web { endpoint, p256dh: Some(p256dh), auth: Some(auth) }) => {
            let (p256dh, auth) = (bytes(&p256dh)?, bytes(&auth)?);
            let target = PushTarget::Web(WebSubscription { endpoint, p256dh, auth });
            client.register_push(target).await?;
        }
        Options::Web(Web { endpoint, .. }) => client.register_web_push(&endpoint).await?,
        Options::Apns(Token { token }) => client.register_push(PushTarget::Apns(token)).await?,
        Options::Fcm(Token { token }) => client.register_push(PushTarget::Fcm(token)).await?,
        Options::Off => client.unregister_push().await?,
        Options::Show => {}
    }
    match client.push_target().await? {
        Some(PushTarget::Web(web)) => print_line!("woken at {}", web.endpoint),
        Some(target) => print_line!("woken by {}", target.service()),
        None => print_line!("woken nowhere"),
    }
    if is_show {
        let offer = client.push_offer().await.map_err(Error::Relay)?;
        print_line!("vapid key {}", URL_SAFE_NO_PAD.encode(offer.vapid_key));
        print_line!("APNs      {}", if offer.apns { "yes" } else { "no" });
        print_line!("FCM       {}", if offer.fcm { "yes" } else { "no" });
    }
    Ok(())
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], Error> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('='));
    bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or(Error::Subscription)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(subcommand)]
        options: Options,
    }

    /// As one key in 64 in base64url.
    #[test]
    fn a_key_that_begins_with_a_hyphen_is_no_option() {
        let parsed = |line: &str| Command::try_parse_from(line.split(' ')).map(|it| it.options);
        let web = parsed("push web https://h/ --p256dh -BC --auth -dE");
        let Ok(Options::Web(Web { p256dh, auth, .. })) = web else { panic!() };
        assert_eq!((p256dh.as_deref(), auth.as_deref()), (Some("-BC"), Some("-dE")));
        assert!(
            matches!(parsed("push fcm -x"), Ok(Options::Fcm(Token { token })) if token == "-x")
        );
        let help = parsed("push fcm --help").err().unwrap();
        assert_eq!(help.kind(), clap::error::ErrorKind::DisplayHelp);
    }

    #[test]
    fn keys_of_a_subscription_are_read_with_and_without_padding() {
        assert_eq!(bytes("-_8").unwrap(), [0xFB, 0xFF]);
        assert_eq!(bytes(" -_8=\n").unwrap(), [0xFB, 0xFF]);
        for wrong in ["", "-_", "+/8", "-_8A", "ä"] {
            assert!(bytes::<2>(wrong).is_err(), "{wrong}");
        }
    }
}
