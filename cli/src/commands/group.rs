//! `tuckseal group …`: groups by their name, or by their id in hex where two have the same.

use super::{Connection, Error, emptied, name_of, open, printable, wait_sent};
use std::path::Path;
use tuckseal::ServiceId;
use tuckseal_client::{Client, Group, GroupId};

#[derive(clap::Subcommand)]
pub(crate) enum Options {
    /// Make a group
    Create {
        /// Its name
        group: String,
        /// Who is in it beside you
        names: Vec<String>,
    },
    /// Give it another name
    Rename {
        /// Name or id
        group: String,
        /// The new name
        name: String,
    },
    /// Take people in; they read what is written from then on
    Add {
        /// Name or id
        group: String,
        /// Whom
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Take people out; they read nothing of what is written from then on
    Remove {
        /// Name or id
        group: String,
        /// Whom
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Go
    Leave {
        /// Name or id
        group: String,
    },
    /// Send one message to all of them
    Send {
        /// Name or id
        group: String,
        /// What; several words need no quotes
        #[arg(required = true)]
        text: Vec<String>,
        /// How long to wait for the server, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        wait: u64,
    },
    /// List your groups
    List,
}

pub(crate) async fn run(folder: &Path, options: Options) -> Result<(), Error> {
    let client = open(folder).await?;
    match options {
        Options::Create { group, names } => {
            let members = accounts(&client, &names).await?;
            let id = client.create_group(&group, &members).await?;
            print_line!("{}", hex::encode(id.0));
        }
        Options::Rename { group, name } => {
            client.rename_group(find(&client, &group).await?, &name).await?;
        }
        Options::Add { group, names } => {
            let members = accounts(&client, &names).await?;
            client.add_to_group(find(&client, &group).await?, &members).await?;
        }
        Options::Remove { group, names } => {
            let members = accounts(&client, &names).await?;
            client.remove_from_group(find(&client, &group).await?, &members).await?;
        }
        Options::Leave { group } => client.leave_group(find(&client, &group).await?).await?,
        Options::Send { group, text, wait } => {
            let group = find(&client, &group).await?;
            let sent = client.send_to_group(group, &text.join(" ")).await?;
            return wait_sent(&client, sent, wait).await;
        }
        Options::List => return list(&client).await,
    }
    // What tells the others goes out.
    let mut connection = Connection::start(client.clone());
    let told = emptied(&client, &mut connection);
    match tokio::time::timeout(super::FLUSH, told).await {
        Ok(told) => told?,
        Err(_) => print_line!("kept: the others hear of it with the next send, listen or chat"),
    }
    connection.close().await
}

async fn list(client: &Client) -> Result<(), Error> {
    for group in client.groups().await? {
        let mut names = Vec::new();
        for member in &group.members {
            let is_us = *member == client.account();
            names.push(if is_us { "you".into() } else { name_of(client, *member).await? });
        }
        let standing = if group.is_member { "" } else { "  (you are not in it any more)" };
        let name = printable(&group.name);
        print_line!(
            "{}  {name:<20} {}{standing}",
            hex::encode(group.id.0),
            printable(&names.join(", "))
        );
    }
    Ok(())
}

async fn accounts(client: &Client, names: &[String]) -> Result<Vec<ServiceId>, Error> {
    let mut accounts = Vec::new();
    for name in names {
        accounts.push(client.lookup(name).await?);
    }
    Ok(accounts)
}

/// A group by its id or, if it is the only one, its name.
pub(crate) async fn find(client: &Client, named: &str) -> Result<GroupId, Error> {
    let groups = client.groups().await?;
    let is_it = |group: &&Group| group.name == named || hex::encode(group.id.0) == named;
    let mut found = groups.iter().filter(is_it);
    match (found.next(), found.next()) {
        (Some(group), None) => Ok(group.id),
        (None, _) => Err(Error::NoSuchGroup { name: named.to_owned() }),
        (Some(_), Some(_)) => Err(Error::ManyGroups { name: named.to_owned() }),
    }
}
