//! One side of the demo, in a process of its own: the real client with its profile, driven by lines of
//! JSON. Every message is printed before it is acknowledged, as an app would store it.

use crate::commands::group::find;
use crate::commands::{Connection, Error, name_of, open};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, BufReader};
use tuckseal::content::{Data, ReceiptKind};
use tuckseal::{ServiceId, SessionVersion};
use tuckseal_client::{Client, Event, Failure};

/// What a person is told.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Send {
        to: String,
        text: String,
    },
    CreateGroup {
        group: String,
        names: Vec<String>,
    },
    AddToGroup {
        group: String,
        name: String,
    },
    RemoveFromGroup {
        group: String,
        name: String,
    },
    SendToGroup {
        group: String,
        text: String,
    },
    /// How many are in it?
    Members {
        group: String,
    },
    SendFile {
        to: String,
        path: PathBuf,
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
    /// As many are in the group; none when we are not.
    Members(usize),
    /// A file has come, and is here.
    File(PathBuf),
    Status(Status),
    Message {
        id: u64,
        from: String,
        text: String,
        in_group: bool,
        missing_before: u64,
    },
    /// Something that does not belong in the story.
    Trouble(String),
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) session: String,
    pub(crate) sent: String,
    pub(crate) told: Told,
    /// The most memory that this process has had, in KiB, where the system says it.
    pub(crate) peak_kib: Option<u64>,
}

/// What this process was told so far.
#[derive(Default, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Messages of ours that arrived, and that were read.
    pub(crate) delivered: usize,
    pub(crate) read: usize,
    /// How often we have asked for something again, and begun a session anew for who has asked.
    pub(crate) asked_again: usize,
    pub(crate) sessions_reset: usize,
}

pub(crate) async fn run(folder: &Path) -> Result<(), Error> {
    let client = open(folder).await?;
    let mut connection = Connection::start(client.clone());
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let mut accounts = HashMap::new();
    let mut flush_wanted = false;
    let mut told = Told::default();
    say(&Said::Ready)?;
    show_inbox(&client, folder).await?;
    loop {
        tokio::select! {
            line = orders.next_line() => {
                let Some(line) = line.map_err(Error::Terminal)? else { break };
                match serde_json::from_str(&line) {
                    Ok(Order::Flush) => flush_wanted = true,
                    Ok(Order::Status) => {
                        say(&Said::Status(status(&client, &accounts, told).await?))?;
                    }
                    Ok(order) => say(&carry_out(&client, &mut accounts, order).await?)?,
                    Err(error) => say(&Said::Trouble(format!("an order that is none: {error}")))?,
                }
            }
            event = connection.event() => match event? {
                Event::Message(_) | Event::Missed { .. } => show_inbox(&client, folder).await?,
                Event::Receipt { kind: ReceiptKind::Delivered, messages, .. } => {
                    told.delivered += messages.len();
                }
                Event::Receipt { messages, .. } => told.read += messages.len(),
                Event::AskedAgain { .. } => told.asked_again += 1,
                Event::SessionReset { .. } => told.sessions_reset += 1,
                // What it asks for again is counted above.
                Event::Failure { reason: Failure::Undecryptable, .. } => {}
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

/// Does what was told, except what needs the whole person.
async fn carry_out(
    client: &Client,
    accounts: &mut HashMap<String, ServiceId>,
    order: Order,
) -> Result<Said, Error> {
    match order {
        Order::Send { to, text } => {
            let account = account(client, accounts, to).await?;
            client.send(account, &text).await?;
        }
        Order::SendFile { to, path } => {
            let account = account(client, accounts, to).await?;
            let file = client.upload(&path, "application/octet-stream", |_, _| {}).await?;
            client.send_data(account, Data { attachments: vec![file], ..Data::default() }).await?;
        }
        Order::CreateGroup { group, names } => {
            let mut members = Vec::new();
            for name in names {
                members.push(account(client, accounts, name).await?);
            }
            client.create_group(&group, &members).await?;
        }
        Order::AddToGroup { group, name } => {
            let account = account(client, accounts, name).await?;
            client.add_to_group(find(client, &group).await?, &[account]).await?;
        }
        Order::RemoveFromGroup { group, name } => {
            let account = account(client, accounts, name).await?;
            client.remove_from_group(find(client, &group).await?, &[account]).await?;
        }
        Order::SendToGroup { group, text } => {
            client.send_to_group(find(client, &group).await?, &text).await?;
        }
        Order::Members { group } => {
            let groups = client.groups().await?;
            let known = groups.iter().find(|it| it.name == group && it.is_member);
            return Ok(Said::Members(known.map_or(0, |group| group.members.len())));
        }
        Order::Flush | Order::Status => {}
    }
    Ok(Said::Kept)
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

async fn show_inbox(client: &Client, folder: &Path) -> Result<(), Error> {
    for message in client.inbox().await? {
        for file in &message.attachments {
            let path = folder.join(format!("file-{}", message.id.0));
            client.download(file, &path, |_, _| {}).await?;
            say(&Said::File(path))?;
        }
        client.mark_read(&[message.id]).await?;
        if !message.attachments.is_empty() {
            client.acknowledge(message.id).await?;
            continue;
        }
        say(&Said::Message {
            id: message.id.0,
            from: name_of(client, message.from).await?,
            text: message.text,
            in_group: message.group.is_some(),
            missing_before: message.missing_before,
        })?;
        client.acknowledge(message.id).await?;
    }
    Ok(())
}

async fn status(
    client: &Client,
    accounts: &HashMap<String, ServiceId>,
    told: Told,
) -> Result<Status, Error> {
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
        told,
        peak_kib: peak_kib("self"),
        sent: format!(
            "{} messages sent without saying who, {} before the other's access key was known",
            sent.sent_anonymously, sent.sent_with_token
        ),
    })
}

/// The most memory that a process has had.
pub(crate) fn peak_kib(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn trouble(what: &str) -> Result<(), Error> {
    say(&Said::Trouble(what.to_owned()))
}

pub(crate) fn say(said: &impl Serialize) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, said).map_err(|error| Error::Terminal(error.into()))?;
    out.write_all(b"\n").and_then(|()| out.flush()).map_err(Error::Terminal)
}
