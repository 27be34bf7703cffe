//! `tuckseal report NAME`: tells the server that somebody sends spam.

use super::{Error, open};
use std::path::Path;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Who has sent spam
    name: String,
}

pub(crate) async fn run(folder: &Path, options: Options) -> Result<(), Error> {
    let client = open(folder).await?;
    let account = client.lookup(&options.name).await?;
    client.report_spam(account).await?;
    print_line!("reported; the server counts it and does not keep who reported");
    Ok(())
}
