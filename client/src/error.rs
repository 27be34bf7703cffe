//! What the calls of the client answer when they cannot do what they are asked.

use tuckseal::{DecodeError, DeviceId, ProvisioningError};

use crate::push::PushService;
use crate::store::ProfileError;
use crate::transport::ServerError;

/// A profile could not be registered. What was made for it stays in its folder: register again there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The folder has a finished registration.
    #[error("this profile is already registered as {name}: use it, or name another folder")]
    AlreadyRegistered {
        /// Under which name.
        name: String,
    },
    /// Somebody else has the name.
    #[error("the name {name} is taken at {server}: choose another")]
    NameTaken {
        /// The name that was asked for.
        name: String,
        /// Where.
        server: String,
    },
    /// The server does not take the registration, most likely for the name.
    #[error("the server does not take the name {name}: 1 to 32 of a-z 0-9 _ . -, a letter first")]
    NameRefused {
        /// The name that was asked for.
        name: String,
    },
    /// The server shows another trust root than was expected.
    #[error("{server} shows another trust root than the given one: it is not the server you mean")]
    WrongTrustRoot {
        /// Which server.
        server: String,
    },
    /// The server asks for a proof of work that is out of proportion.
    #[error(
        "the server asks for a proof of work of {bits} bits, more than {limit}: tell its operator"
    )]
    TooMuchWork {
        /// What is asked for.
        bits: u32,
        /// The most that is done.
        limit: u32,
    },
    /// The proof of work was not found while the server would have taken it.
    #[error("the proof of work of {bits} bits was not found in time: try again")]
    WorkTooSlow {
        /// What was asked for.
        bits: u32,
    },
    /// The server asks for something that this client does not know.
    #[error("{server} does not admit this registration: ask its operator how to get an account")]
    NotAdmitted {
        /// Which server.
        server: String,
    },
    /// The server did not do it.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// A message was not taken. Nothing was stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// This account is our own.
    #[error("that is your own account: a message needs somebody else")]
    ToOurselves,
    /// The group is not known, or we are not in it.
    #[error("you are not in that group")]
    NotAMember,
    /// Longer than fits an envelope.
    #[error("the message has {found} bytes, at most {limit} can be sent: split it")]
    TooLong {
        /// Bytes of UTF-8.
        found: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// A part of it is longer than a recipient takes, or there are too many: 32 files, 1,024 bytes of a label, path, file
    /// name or content type, 32 KiB of a preview.
    #[error("no recipient would take the message ({0}): put in less")]
    Unreadable(DecodeError),
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// An account was not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The server knows no such name.
    #[error("nobody is called {name} at {server}: check the spelling")]
    NoSuchName {
        /// The name that was asked for.
        name: String,
        /// Where.
        server: String,
    },
    /// The server did not say.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// A decision about an identity key could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The account is not known under this key.
    #[error("this account is not known under that identity key: look at the contact again")]
    NotKnown,
    /// The peer has not shown this key, or it was decided on already.
    #[error("this identity key does not wait for a decision: look at the contact again")]
    NotOffered,
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// A group could not be made or changed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The group is not known, or we are not in it.
    #[error("you are not in that group")]
    NotAMember,
    /// Too many members.
    #[error("a group has at most {limit} members")]
    TooMany {
        /// The most that is taken.
        limit: usize,
    },
    /// Too long a name.
    #[error("a group's name has at most {limit} bytes")]
    NameTooLong {
        /// The most that is taken.
        limit: usize,
    },
    /// We cannot remove ourselves.
    #[error("to go yourself, leave the group")]
    Ourselves,
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// A file was not transferred. Ask again to go on where it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// A file on this machine.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is a file of that name.
    #[error("{} is there already: name another place", path.display())]
    Exists {
        /// Which.
        path: std::path::PathBuf,
    },
    /// The file cannot be sent, or what was fetched is not what its sender has sent.
    #[error(transparent)]
    Attachment(tuckseal::AttachmentError),
    /// The server did not do it.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

impl TransferError {
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { path: path.into(), source }
    }
}

/// Push was not registered or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The address of a subscription is none that a server takes.
    #[error(
        "a push endpoint is https://… without a name and password in it, of at most 1,024 bytes"
    )]
    Endpoint,
    /// The keys of a subscription.
    #[error(
        "p256dh is not a key of a push subscription: 65 bytes, a point of P-256 not compressed"
    )]
    Keys,
    /// A token that its service cannot have given.
    #[error("that is not a token of {service}: 1 to 1,024 characters, for APNs in hex")]
    Token {
        /// Which.
        service: PushService,
    },
    /// The server cannot wake devices that way. What was registered before still is.
    #[error("the server does not wake this device through {service}: {}", advice(*service))]
    NotOffered {
        /// Which.
        service: PushService,
    },
    /// It is remembered; the server is told once it can be, while the client runs.
    #[error("the server was not told yet ({cause}): it is with the next connection")]
    NotYet {
        /// Why.
        cause: ServerError,
    },
    /// The keys of the subscription are not in the profile, or there is none.
    #[error("the profile has no keys of a push subscription: register the endpoint without keys")]
    NoKeys,
    /// The server did not do it.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

fn advice(service: PushService) -> &'static str {
    match service {
        PushService::Web => {
            "its endpoint must be https and public, unless the server's operator allows others"
        }
        PushService::Apns | PushService::Fcm => "its operator has set no key for that",
    }
}

/// An account was not reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// No message of this account had a token in it.
    #[error(
        "no message of this account can be reported: it has sent none, or from an app that does not allow it"
    )]
    NoToken,
    /// The server does not know the token as one of this account, or it is too old.
    #[error(
        "the server does not take the report: the message is too old, or its sender has sent a false token"
    )]
    NotGood,
    /// The server did not do it.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// A device was not linked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It does not begin as such a code does, or lacks something.
    #[error("that is no linking code, or not all of it: copy the whole line")]
    Code,
    /// The offer cannot be opened here.
    #[error("the offer cannot be used: {0}")]
    Sealed(#[from] ProvisioningError),
    /// What the offer says cannot be.
    #[error("the offer cannot be used ({0}): was it made by another release?")]
    Offer(#[from] DecodeError),
    /// The folder has a finished registration.
    #[error("this profile is already registered as {name}: use it, or name another folder")]
    AlreadyRegistered {
        /// Under which name.
        name: String,
    },
    /// The server does not know the offer any more.
    #[error(
        "the server does not take this offer any more: it was used, is too old, or another was made after it. Begin again"
    )]
    Ended,
    /// The account has as many devices as the server allows.
    #[error("the account has as many devices as the server allows: remove one first")]
    TooManyDevices,
    /// The server shows another trust root than the offer names.
    #[error(
        "{server} shows another trust root than the offer names: it is not the server you mean"
    )]
    WrongTrustRoot {
        /// Which server.
        server: String,
    },
    /// The name for the list of devices.
    #[error(transparent)]
    Name(#[from] DeviceError),
    /// The server did not do it.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// The devices of the account were not listed or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Too long, or with a NUL in it.
    #[error("a device's name has at most {limit} bytes, and no NUL")]
    Name {
        /// The most that is taken.
        limit: usize,
    },
    /// The account has no such device.
    #[error("the account has no device {}: see the list", device.get())]
    NoSuchDevice {
        /// Which.
        device: DeviceId,
    },
    /// The first device stays, and it alone may change others.
    #[error("the first device stays, and it alone may change others: do it there")]
    NotAllowed,
    /// The pointer of an archive has more in it than a device takes: 1,024 bytes of a path, file name or content
    /// type, 32 KiB of a preview.
    #[error("no device would take the archive ({0}): put in less beside it")]
    Unreadable(DecodeError),
    /// The server did not do it.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// The client has stopped and will not go on by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The server's trust root is not the pinned one.
    #[error(
        "the server shows another trust root than the one pinned at registration: do not trust it"
    )]
    WrongTrustRoot,
    /// The server does not know this device any more: it was registered anew elsewhere, or removed.
    #[error("the server does not accept this device any more: register again in a new profile")]
    TokenRefused,
    /// Another connection of this very device took over.
    #[error("this device was connected a second time: is a copy of the profile in use elsewhere?")]
    Displaced,
    /// [`crate::Client::run`] is running already.
    #[error("the client is running already")]
    AlreadyRunning,
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}
