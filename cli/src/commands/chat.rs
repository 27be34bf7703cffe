//! `tuckseal chat NAME`: lines typed are sent, messages are printed as they come.

use super::{Connection, Error, FLUSH, emptied, open, print_inbox, report};
use std::path::Path;
use tokio::io::{AsyncBufReadExt, BufReader};
use tuckseal_client::Event;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// With whom
    name: String,
}

pub(crate) async fn run(folder: &Path, options: Options) -> Result<(), Error> {
    let client = open(folder).await?;
    let to = client.lookup(&options.name).await?;
    eprintln!("  (you are {}; a line is a message; end with Ctrl-D)", client.name());
    print_inbox(&client, folder).await?;
    let mut connection = Connection::start(client.clone());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line.map_err(Error::Terminal)? {
                Some(line) if line.trim().is_empty() => {}
                Some(line) => {
                    client.send(to, &line).await?;
                }
                None => break,
            },
            event = connection.event() => match event? {
                Event::Message(_) | Event::Missed { .. } => {
                    print_inbox(&client, folder).await?;
                }
                other => report(&client, &other).await?,
            },
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(Error::Terminal)?;
                break;
            }
        }
    }
    if tokio::time::timeout(FLUSH, emptied(&client, &mut connection)).await.is_err() {
        eprintln!("  (not everything has left: it goes out with the next send, listen or chat)");
    }
    connection.close().await
}
