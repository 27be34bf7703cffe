//! One side of the demo, in a process of its own: the real client with its profile, driven by lines of
//! JSON. Every message is printed before it is acknowledged, as an app would store it.

use crate::commands::{Connection, Error, name_of, open};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, BufReader};
use tuckseal::{ServiceId, SessionVersion};
use tuckseal_client::{Client, Event};

/// What a person is told.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Send {
        to: String,
        text: String,
    },
    /// Say when everything has left.
    Flush,
    Status,
}

/// What a person says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    Ready,
    /// The message is on our disk: it will arrive.
    Kept,
    Flushed,
    Status(Status),
    Message {
        id: u64,
        from: String,
        text: String,
        missing_before: u64,
    },
    /// Something that does not belong in the story.
    Trouble(String),
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) session: String,
    pub(crate) sent: String,
}

pub(crate) async fn run(folder: &Path) -> Result<(), Error> {
    let client = open(folder).await?;
    let mut connection = Connection::start(client.clone());
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let mut accounts = HashMap::new();
    let mut flush_wanted = false;
    say(&Said::Ready)?;
    show_inbox(&client).await?;
    loop {
        tokio::select! {
            line = orders.next_line() => {
                let Some(line) = line.map_err(Error::Terminal)? else { break };
                match serde_json::from_str(&line) {
                    Ok(Order::Send { to, text }) => {
                        let account = account(&client, &mut accounts, to).await?;
                        client.send(account, &text).await?;
                        say(&Said::Kept)?;
                    }
                    Ok(Order::Flush) => flush_wanted = true,
                    Ok(Order::Status) => say(&Said::Status(status(&client, &accounts).await?))?,
                    Err(error) => say(&Said::Trouble(format!("an order that is none: {error}")))?,
                }
            }
            event = connection.event() => match event? {
                Event::Message(_) | Event::Missed { .. } => show_inbox(&client).await?,
                Event::IdentityChanged { .. } => trouble("an identity key changed")?,
                Event::Refused { reason, .. } => trouble(&format!("refused: {reason:?}"))?,
                Event::Failure { reason, .. } => trouble(&format!("failure: {reason:?}"))?,
                Event::Dropped { count } => trouble(&format!("{count} messages were dropped"))?,
                _ => {}
            },
        }
        if flush_wanted && client.outbox_len().await? == 0 {
            flush_wanted = false;
            say(&Said::Flushed)?;
        }
    }
    connection.close().await
}

async fn account(
    client: &Client,
    known: &mut HashMap<String, ServiceId>,
    name: String,
) -> Result<ServiceId, Error> {
    if let Some(account) = known.get(&name) {
        return Ok(*account);
    }
    let account = client.lookup(&name).await?;
    known.insert(name, account);
    Ok(account)
}

async fn show_inbox(client: &Client) -> Result<(), Error> {
    for message in client.inbox().await? {
        say(&Said::Message {
            id: message.id.0,
            from: name_of(client, message.from).await?,
            text: message.text,
            missing_before: message.missing_before,
        })?;
        client.acknowledge(message.id).await?;
    }
    Ok(())
}

async fn status(client: &Client, accounts: &HashMap<String, ServiceId>) -> Result<Status, Error> {
    let mut sessions = Vec::new();
    for account in accounts.values() {
        for info in client.session_info(*account).await? {
            let begun = match info.version {
                SessionVersion::V3 => "X3DH",
                SessionVersion::V4 => "PQXDH",
            };
            let ratchet = if info.post_quantum_ratchet { " + SPQR" } else { "" };
            sessions.push(format!("{begun}{ratchet}"));
        }
    }
    let sent = client.statistics().await?;
    Ok(Status {
        session: sessions.join(", "),
        sent: format!(
            "{} messages sent without saying who, {} before the other's access key was known",
            sent.sent_anonymously, sent.sent_with_token
        ),
    })
}

fn trouble(what: &str) -> Result<(), Error> {
    say(&Said::Trouble(what.to_owned()))
}

fn say(said: &Said) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, said).map_err(|error| Error::Terminal(error.into()))?;
    out.write_all(b"\n").and_then(|()| out.flush()).map_err(Error::Terminal)
}
