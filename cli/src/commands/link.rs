//! `tuckseal link`: makes this a further device of an account.

use super::{Error, printable};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, BufReader};
use tuckseal_client::{Client, LinkError, LinkRequest, ProfileError, Settings};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What this device is called in the list of your devices; only they can read it
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
    /// Certificate of the server's own authority in PEM; kept in the profile, which then trusts no other
    #[arg(long, value_name = "FILE", env = "TUCKSEAL_CA")]
    ca: Option<PathBuf>,
}

pub(crate) async fn run(folder: &Path, options: Options) -> Result<(), Error> {
    let ca = options.ca.as_deref().map(super::ca::read).transpose()?;
    match Client::open(folder, Settings::default()).await {
        Ok(client) => {
            let name = client.name().to_owned();
            return Err(LinkError::AlreadyRegistered { name }.into());
        }
        Err(ProfileError::NotRegistered { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let request = LinkRequest::new();
    print_line!("On a device that you have, run");
    print_line!("  tuckseal devices link {}", request.code());
    print_line!("and paste here what it prints, in one line:");
    let mut line = BufReader::new(tokio::io::stdin()).lines();
    let offer = loop {
        match line.next_line().await.map_err(Error::Terminal)? {
            Some(line) if line.trim().is_empty() => {}
            Some(line) => break line,
            None => return Err(Error::NoOffer),
        }
    };
    let client = Client::link(folder, &request, &offer, &options.name, ca).await?;
    print_line!("linked to     {} at {}", printable(client.name()), client.server());
    print_line!("account       {}", client.account());
    print_line!("profile       {}", folder.display());
    Ok(())
}
