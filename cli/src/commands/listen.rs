//! `tuckseal listen`: prints messages as they come.

use super::{Connection, Error, open, print_inbox, report};
use std::path::Path;
use tuckseal_client::Event;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// End when all that was waiting at the relay has been printed
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(folder: &Path, options: Options) -> Result<(), Error> {
    let client = open(folder).await?;
    print_inbox(&client, folder).await?;
    let mut connection = Connection::start(client.clone());
    loop {
        let event = tokio::select! {
            event = connection.event() => event?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(Error::Terminal)?;
                break;
            }
        };
        match event {
            Event::Message(_) | Event::Missed { .. } => {
                print_inbox(&client, folder).await?;
            }
            Event::QueueEmpty if options.once => {
                print_inbox(&client, folder).await?;
                break;
            }
            other => report(&client, &other).await?,
        }
    }
    connection.close().await
}
