//! `tuckseal send NAME TEXT…`: kept on disk first, then sent.

use super::{Connection, Error, open, report};
use std::path::Path;
use std::time::Duration;
use tuckseal_client::{Event, SentState};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Whom
    name: String,
    /// What; several words need no quotes
    #[arg(required = true)]
    text: Vec<String>,
    /// How long to wait for the server, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
}

pub(crate) async fn run(folder: &Path, options: Options) -> Result<(), Error> {
    let client = open(folder).await?;
    let to = client.lookup(&options.name).await?;
    let sent = client.send(to, &options.text.join(" ")).await?;
    let mut connection = Connection::start(client.clone());
    let accepted = async {
        while client.sent_state(sent).await? == SentState::Waiting {
            let event = connection.event().await?;
            if !matches!(event, Event::Connected) {
                report(&client, &event).await?;
            }
        }
        Ok::<_, Error>(client.sent_state(sent).await?)
    };
    let state = tokio::time::timeout(Duration::from_secs(options.wait), accepted).await;
    match state {
        Ok(Ok(SentState::Accepted)) => println!("sent"),
        Ok(Ok(_)) => println!("given up"),
        Ok(Err(error)) => return Err(error),
        Err(_) => println!("kept: it goes out with the next send, listen or chat"),
    }
    connection.close().await
}
