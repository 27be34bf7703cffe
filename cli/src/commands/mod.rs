//! What a person types, one file a command, and what they share: the profile, the connection and the
//! one line that tells what went wrong.

/// As `println!`, but who does not read on, as `head` does, ends the command instead of breaking it.
macro_rules! print_line {
    ($($line:tt)*) => {{
        use std::io::Write;
        writeln!(std::io::stdout(), $($line)*).map_err($crate::commands::Error::Terminal)?;
    }};
}

pub(crate) mod ca;
pub(crate) mod chat;
pub(crate) mod contacts;
pub(crate) mod devices;
pub(crate) mod files;
pub(crate) mod group;
pub(crate) mod identity;
pub(crate) mod link;
pub(crate) mod listen;
pub(crate) mod push;
pub(crate) mod register;
pub(crate) mod report;
pub(crate) mod safety;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod wake;

use files::Fetched;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tuckseal::content::LocationError;
use tuckseal::{FingerprintError, IdentityKey, ServiceId};
use tuckseal_client::{
    Client, DeviceError, Event, Events, GroupError, IdentityError, LinkError, LookupError, Message,
    ProfileError, PushError, RegisterError, ReportError, RunError, SendError, SentId, SentState,
    Settings, TransferError,
};

/// How long what is left may take to leave.
pub(crate) const FLUSH: Duration = Duration::from_secs(5);

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
    Link(#[from] LinkError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("devices have numbers from 1 to 127: see `tuckseal devices list`")]
    DeviceNumber,
    #[error("nothing was pasted: begin again with `tuckseal link`")]
    NoOffer,
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
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Push(#[from] PushError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("--p256dh is 65 bytes and --auth 16, in base64url, as the subscription has them")]
    Subscription,
    #[error("not everything came within {seconds} s: try again, or give it longer with --within")]
    Late { seconds: u64 },
    #[error(transparent)]
    Relay(tuckseal_client::ServerError),
    #[error("no group is called {name}: see `tuckseal group list`")]
    NoSuchGroup { name: String },
    #[error("several groups are called {name}: name one by its id, see `tuckseal group list`")]
    ManyGroups { name: String },
    #[error("{name} has shown no key yet: write to them first")]
    NoKeyYet { name: String },
    #[error("the safety number does not fit a QR code")]
    QrCode,
    #[error("--scanned is what `tuckseal safety` prints behind \"scanned:\", in hex")]
    Scanned,
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
    #[error("the numbers differ: somebody may stand between you and {name}. Nothing was changed")]
    Differs { name: String },
    #[error("--location is LAT,LON in degrees, as in 52.52,13.405")]
    Place,
    #[error(transparent)]
    Location(#[from] LocationError),
    #[error("--trust-root is 33 bytes in hex, as the server's operator publishes it")]
    TrustRoot,
    #[error("cannot read the CA file {}: {source}", path.display())]
    CaFile { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Ca { path: PathBuf, source: tuckseal_client::CaError },
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
pub(crate) async fn print_inbox(client: &Client, folder: &Path) -> Result<usize, Error> {
    let messages = client.inbox().await?;
    for message in &messages {
        print_message(client, message).await?;
        if files::fetch(client, folder, message).await? == Fetched::Later {
            continue;
        }
        client.mark_read(&[message.id]).await?;
        client.acknowledge(message.id).await?;
    }
    Ok(messages.len())
}

async fn print_message(client: &Client, message: &Message) -> Result<(), Error> {
    use std::io::Write;
    let name = match message.from == client.account() {
        true => "you".to_owned(),
        false => name_of(client, message.from).await?,
    };
    let sent_to = match message.sent_to {
        Some(account) => Some(name_of(client, account).await?),
        None => None,
    };
    let groups = if message.group.is_some() { client.groups().await? } else { Vec::new() };
    let group = message.group.map(|id| {
        let known = groups.iter().find(|group| group.id == id);
        known.map_or_else(|| "(unknown group)".to_owned(), |group| group.name.clone())
    });
    let mut out = std::io::stdout().lock();
    if message.missing_before > 0 {
        writeln!(out, "  ({} messages of {name} are missing here)", message.missing_before)
            .map_err(Error::Terminal)?;
    }
    let to = group.or(sent_to).map_or_else(String::new, |to| format!(" to {}", printable(&to)));
    let name = printable(&name);
    if message.is_history {
        writeln!(
            out,
            "  (your device {} hands over what was said before)",
            message.device_id.get()
        )
        .map_err(Error::Terminal)?;
    }
    if !message.text.is_empty() {
        writeln!(out, "{name}{to}: {}", printable(&message.text)).map_err(Error::Terminal)?;
    }
    if let Some(place) = &message.location {
        let degrees = |units: i32| f64::from(units) / 1e7;
        let (latitude, longitude) = (degrees(place.latitude_e7()), degrees(place.longitude_e7()));
        let label = printable(place.label());
        writeln!(
            out,
            "{name}{to} is at {latitude:.5},{longitude:.5} within {} m {label}",
            place.precision_m()
        )
        .map_err(Error::Terminal)?;
    }
    out.flush().map_err(Error::Terminal)
}

/// Waits until a message has left, and says what became of it.
pub(crate) async fn wait_sent(client: &Client, sent: SentId, seconds: u64) -> Result<(), Error> {
    let mut connection = Connection::start(client.clone());
    let accepted = async {
        while client.sent_state(sent).await? == SentState::Waiting {
            let event = connection.event().await?;
            if !matches!(event, Event::Connected) {
                report(client, &event).await?;
            }
        }
        Ok::<_, Error>(client.sent_state(sent).await?)
    };
    match tokio::time::timeout(Duration::from_secs(seconds), accepted).await {
        Ok(Ok(SentState::Refused | SentState::Unknown)) => print_line!("given up"),
        Ok(Ok(_)) => print_line!("sent"),
        Ok(Err(error)) => return Err(error),
        Err(_) => print_line!("kept: it goes out with the next send, listen or chat"),
    }
    // What tells other devices of it goes along, if it can.
    let _ = tokio::time::timeout(Duration::from_secs(1), emptied(client, &mut connection)).await;
    connection.close().await
}

/// Waits until nothing is left to leave.
pub(crate) async fn emptied(client: &Client, connection: &mut Connection) -> Result<(), Error> {
    while client.outbox_len().await? > 0 {
        connection.event().await?;
    }
    Ok(())
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
        Event::IdentityChanged { account, offered, was_verified, .. } => {
            let name = name_of(client, *account).await?;
            let verified = if *was_verified { ", whom you had verified," } else { "" };
            eprintln!(
                "  ({name}{verified} shows a new identity key, {}…: a new phone, or somebody else. Ask them, then \
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
        Event::AskedAgain { account, .. } => {
            let name = name_of(client, *account).await?;
            eprintln!(
                "  (a message of {name} could not be read or is missing: asked to send it again)"
            );
        }
        Event::SessionReset { account, .. } => {
            let name = name_of(client, *account).await?;
            eprintln!("  ({name} could not read our messages: a new session is begun)");
        }
        Event::DeviceLinked { device_id } => eprintln!(
            "  (device {} of your account is new here: see `tuckseal devices list`; if it is not yours, remove it)",
            device_id.get()
        ),
        Event::DeviceRemoved { device_id } => {
            eprintln!("  (device {} of your account is no more)", device_id.get());
        }
        Event::Restored => eprintln!(
            "  (this profile is an older one than was used last: its sessions are begun anew, and the \
             others are asked for what has come since)"
        ),
        Event::GroupChanged { .. } => {
            eprintln!("  (a group has changed: see `tuckseal group list`)");
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
