//! `tuckseal safety NAME` and `tuckseal verify NAME`: the number that two people compare, and what came of it.

use super::{Error, open};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use std::path::Path;
use tuckseal::{Comparison, Fingerprint, IdentityKey, ServiceId};
use tuckseal_client::{Client, Verification};

#[derive(clap::Args)]
pub(crate) struct Safety {
    /// With whom
    name: String,
}

#[derive(clap::Args)]
pub(crate) struct Verify {
    /// Whose safety number you have compared, and found the same
    name: String,
    /// What you scanned at their screen, in hex: it is compared here
    #[arg(long, value_name = "HEX")]
    scanned: Option<String>,
    /// Take it back
    #[arg(long, conflicts_with = "scanned")]
    undo: bool,
}

pub(crate) async fn show(folder: &Path, options: Safety) -> Result<(), Error> {
    let client = open(folder).await?;
    let (account, number, _) = number(&client, &options.name).await?;
    let code = QrCode::new(number.encode()).map_err(|_| Error::QrCode)?;
    print_line!("{}", code.render::<Dense1x2>().quiet_zone(true).build());
    print_line!("{number:#}");
    print_line!("scanned: {}", hex::encode(number.encode()));
    let contacts = client.contacts().await?;
    let verified = contacts.iter().any(|contact| contact.account == account && contact.verified);
    print_line!("{}", if verified { "verified" } else { "not verified yet" });
    Ok(())
}

pub(crate) async fn verify(folder: &Path, options: Verify) -> Result<(), Error> {
    let client = open(folder).await?;
    let (account, number, key) = number(&client, &options.name).await?;
    if let Some(scanned) = &options.scanned {
        let scanned = hex::decode(scanned.trim()).map_err(|_| Error::Scanned)?;
        match number.compare(&scanned)? {
            Comparison::Match => {}
            Comparison::Differ => return Err(Error::Differs { name: options.name }),
        }
    }
    let verification = if options.undo { Verification::Unverified } else { Verification::Verified };
    client.set_verified(account, key, verification).await?;
    print_line!("{}", if options.undo { "not verified" } else { "verified" });
    Ok(())
}

async fn number(
    client: &Client,
    name: &str,
) -> Result<(ServiceId, Fingerprint, IdentityKey), Error> {
    let account = client.lookup(name).await?;
    let number = client.safety_number(account).await?;
    let (number, key) = number.ok_or_else(|| Error::NoKeyYet { name: name.to_owned() })?;
    Ok((account, number, key))
}
