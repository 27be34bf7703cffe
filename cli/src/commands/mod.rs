//! What a person types, one file a command, and what they share: the profile, the connection and the
//! one line that tells what went wrong.

pub(crate) mod chat;
pub(crate) mod contacts;
pub(crate) mod identity;
pub(crate) mod listen;
pub(crate) mod register;
pub(crate) mod send;
pub(crate) mod serve;

use std::path::{Path, PathBuf};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tuckseal::{IdentityKey, ServiceId};
use tuckseal_client::{
    Client, Event, Events, IdentityError, LookupError, Message, ProfileError, RegisterError,
    RunError, SendError, Settings,
};

/// Anything that ends a command: one clear line, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no home folder: name one with --profile FOLDER")]
    NoHome,
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{name} has shown no other identity key than the trusted one: nothing to decide")]
    NothingToDecide { name: String },
    #[error("--trust-root is 33 bytes in hex, as the server's operator publishes it")]
    TrustRoot,
    #[error("the client has ended by itself: start the command again")]
    Ended,
    #[error(transparent)]
    Config(#[from] tuckseal_server::ConfigError),
    #[error(transparent)]
    Log(#[from] tuckseal_server::LogError),
    #[error(transparent)]
    Server(#[from] tuckseal_server::ServerError),
    #[error("cannot read or write the terminal: {0}")]
    Terminal(#[source] std::io::Error),
    #[error(transparent)]
    Demo(crate::demo::Deviation),
}

/// The folder that was named, or the default one.
pub(crate) fn profile(named: Option<PathBuf>) -> Result<PathBuf, Error> {
    named.or_else(|| std::env::home_dir().map(|home| home.join(".tuckseal"))).ok_or(Error::NoHome)
}

pub(crate) async fn open(folder: &Path) -> Result<Client, Error> {
    Ok(Client::open(folder, Settings::default()).await?)
}

/// A client that is connected in the background until [`Connection::close`].
pub(crate) struct Connection {
    events: Events,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Connection {
    pub(crate) fn start(client: Client) -> Self {
        let events = client.events();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let shutdown = async {
                // An error says that the sender is gone, which is a wish to stop as well.
                let _ = stopped.await;
            };
            client.run(shutdown).await
        });
        Self { events, stop, task }
    }

    /// The next event; an error when the connection has ended for good.
    pub(crate) async fn event(&mut self) -> Result<Event, Error> {
        tokio::select! {
            event = self.events.recv() => event.ok_or(Error::Ended),
            ended = &mut self.task => {
                ended.map_err(|_| Error::Ended)??;
                Err(Error::Ended)
            }
        }
    }

    pub(crate) async fn close(self) -> Result<(), Error> {
        // It may have ended by itself.
        let _ = self.stop.send(());
        Ok(self.task.await.map_err(|_| Error::Ended)??)
    }
}

/// What to call an account: the name it was looked up by, or claims, or its id.
pub(crate) async fn name_of(client: &Client, account: ServiceId) -> Result<String, Error> {
    let contacts = client.contacts().await?;
    let contact = contacts.iter().find(|contact| contact.account == account);
    Ok(match contact.and_then(|contact| contact.name()) {
        Some(name) => name.to_owned(),
        None => account.to_string(),
    })
}

/// Prints all unread messages, and acknowledges each once it is out.
pub(crate) async fn print_inbox(client: &Client) -> Result<usize, Error> {
    let messages = client.inbox().await?;
    for message in &messages {
        print_message(client, message).await?;
        client.acknowledge(message.id).await?;
    }
    Ok(messages.len())
}

async fn print_message(client: &Client, message: &Message) -> Result<(), Error> {
    use std::io::Write;
    let name = name_of(client, message.from).await?;
    let mut out = std::io::stdout().lock();
    if message.missing_before > 0 {
        writeln!(out, "  ({} messages of {name} are missing here)", message.missing_before)
            .map_err(Error::Terminal)?;
    }
    writeln!(out, "{name}: {}", printable(&message.text)).map_err(Error::Terminal)?;
    out.flush().map_err(Error::Terminal)
}

/// Text of a stranger must not steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{FFFD}' } else { c })
        .collect()
}

/// The first bytes of an identity key, to tell two apart at a glance; a comparison needs all of it.
pub(crate) fn short(key: &IdentityKey) -> String {
    key.serialize().iter().skip(1).take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Tells on the error output what is not a message. Messages are printed from the inbox.
pub(crate) async fn report(client: &Client, event: &Event) -> Result<(), Error> {
    match event {
        Event::Connected => eprintln!("  (connected to {})", client.server()),
        Event::Disconnected { retry_in, cause } => {
            eprintln!("  (not connected: {cause}; next try in {:.1} s)", retry_in.as_secs_f32());
        }
        Event::IdentityChanged { account, offered, .. } => {
            let name = name_of(client, *account).await?;
            eprintln!(
                "  ({name} shows a new identity key, {}…: a new phone, or somebody else. Ask them, then \
                 `tuckseal accept {name}` or `tuckseal reject {name}`; until then nothing goes to or from them)",
                short(offered)
            );
        }
        Event::Refused { reason, .. } => eprintln!("  (a message was given up: {reason:?})"),
        Event::Failure { account, reason, count } => {
            let name = match account {
                Some(account) => name_of(client, *account).await?,
                None => "somebody unknown".to_owned(),
            };
            eprintln!("  (a message of {name} could not be used: {reason:?}, {count} so far)");
        }
        Event::Dropped { count } => {
            eprintln!("  ({count} messages were dropped at the relay: too many or too old)");
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_strangers_text_cannot_steer_the_terminal() {
        assert_eq!(printable("\u{1b}[2Jhi\r\u{7}"), "\u{FFFD}[2Jhi\u{FFFD}\u{FFFD}");
        assert_eq!(printable("two\nlines 🦆"), "two\nlines 🦆");
    }
}
