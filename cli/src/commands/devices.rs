//! `tuckseal devices …`: the devices of the account.

use super::{Connection, Error, emptied, open, printable};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tuckseal::DeviceId;
use tuckseal_client::Client;

#[derive(clap::Subcommand)]
pub(crate) enum Options {
    /// List them
    List,
    /// Give your account to the device that shows this code. Only if you see it on that device now: whoever has made the code
    /// reads and writes as you from then on
    Link {
        /// What `tuckseal link` shows there
        code: String,
    },
    /// Call one something; only your devices can read it
    Name {
        /// Its number
        device: u8,
        /// The name; empty for none
        name: String,
    },
    /// Take one out: it gets nothing any more. It keeps your identity key: if a thief has it, make a new account
    Remove {
        /// Its number
        device: u8,
    },
}

pub(crate) async fn run(folder: &Path, options: Options) -> Result<(), Error> {
    let client = open(folder).await?;
    match options {
        Options::List => list(&client).await,
        Options::Link { code } => link(&client, &code).await,
        Options::Name { device, name } => Ok(client.name_device(number(device)?, &name).await?),
        Options::Remove { device } => Ok(client.remove_device(number(device)?).await?),
    }
}

fn number(device: u8) -> Result<DeviceId, Error> {
    DeviceId::new(device).ok_or(Error::DeviceNumber)
}

async fn list(client: &Client) -> Result<(), Error> {
    for device in client.devices().await? {
        let name = device.name.as_deref().map_or_else(|| "(no name)".to_owned(), printable);
        let this = if device.is_this { "  this one" } else { "" };
        print_line!("{:<4} {name:<20} {}{this}", device.device_id.get(), ago(device.linked_day));
    }
    Ok(())
}

async fn link(client: &Client, code: &str) -> Result<(), Error> {
    let offer = client.offer_link(code).await?;
    print_line!("{}", offer.code);
    eprintln!(
        "  (paste that line on the new device within {} minutes; waiting for it)",
        offer.expires_in.as_secs() / 60
    );
    let device = client.linked(&offer).await?;
    print_line!("linked as device {}", device.get());
    // What the new device cannot know goes out.
    let mut connection = Connection::start(client.clone());
    let told = emptied(client, &mut connection);
    match tokio::time::timeout(Duration::from_secs(30), told).await {
        Ok(told) => told?,
        Err(_) => eprintln!("  (contacts and groups go to it with the next send, listen or chat)"),
    }
    connection.close().await
}

/// When a device was linked, if the server knows the day.
fn ago(linked_day: u32) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let today = since.as_secs() / (24 * 60 * 60);
    match (linked_day, today.saturating_sub(linked_day.into())) {
        (0, _) => "(day unknown)".into(),
        (_, 0) => "since today".into(),
        (_, 1) => "for a day".into(),
        (_, days) => format!("for {days} days"),
    }
}
