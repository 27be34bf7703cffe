//! `tuckseal accept NAME` and `tuckseal reject NAME`: what a person says about a changed identity key.

use super::{Error, open, short};
use std::path::Path;
use tuckseal::IdentityKey;
use tuckseal_client::{Client, Contact};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Whose key has changed
    name: String,
}

pub(crate) async fn accept(folder: &Path, options: Options) -> Result<(), Error> {
    let (client, contact, offered) = offered(folder, options).await?;
    client.accept_identity(contact.account, offered).await?;
    print_line!("accepted {}: what was held back is in the inbox", short(&offered));
    Ok(())
}

pub(crate) async fn reject(folder: &Path, options: Options) -> Result<(), Error> {
    let (client, contact, offered) = offered(folder, options).await?;
    client.reject_identity(contact.account, offered).await?;
    print_line!("rejected {}: nothing under that key is taken", short(&offered));
    Ok(())
}

async fn offered(folder: &Path, options: Options) -> Result<(Client, Contact, IdentityKey), Error> {
    let client = open(folder).await?;
    let contacts = client.contacts().await?;
    let named = contacts.into_iter().find(|contact| contact.name() == Some(&options.name));
    match named.and_then(|contact| contact.offered.map(|offered| (contact, offered))) {
        Some((contact, offered)) => Ok((client, contact, offered)),
        None => Err(Error::NothingToDecide { name: options.name }),
    }
}
