//! `tuckseal wake`: what a handler of pushes runs: fetches, prints, ends.

use super::{Error, open, print_inbox};
use std::path::Path;
use std::time::Duration;
use tuckseal_client::WakeEnd;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long it may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    within: u64,
}

pub(crate) async fn run(folder: &Path, options: Options) -> Result<(), Error> {
    let client = open(folder).await?;
    let woken = client.wake(Duration::from_secs(options.within)).await?;
    print_inbox(&client, folder).await?;
    match woken.end {
        WakeEnd::NotConnected { cause } => Err(Error::Relay(cause)),
        WakeEnd::Deadline => Err(Error::Late { seconds: options.within }),
        _ => Ok(()),
    }
}
