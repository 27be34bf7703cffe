//! `tuckseal contacts`: who is known, and whose key waits for a decision.

use super::{Error, open, printable, short};
use std::path::Path;

pub(crate) async fn run(folder: &Path) -> Result<(), Error> {
    let client = open(folder).await?;
    let contacts = client.contacts().await?;
    if contacts.is_empty() {
        print_line!("nobody yet: `tuckseal send NAME TEXT` finds people by name");
    }
    for contact in contacts {
        let name = contact.name().map_or_else(|| "(no name)".to_owned(), printable);
        let key = contact.identity.as_ref().map_or_else(|| "no key yet".to_owned(), short);
        let changed = match &contact.offered {
            Some(offered) => format!("  NEW KEY {}: accept or reject it", short(offered)),
            None => String::new(),
        };
        let verified = if contact.verified { "  verified" } else { "" };
        print_line!("{name:<20} {}  {key}{verified}{changed}", contact.account);
    }
    Ok(())
}
