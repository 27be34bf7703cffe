//! What the app calls. Every call that touches the profile is one commit, on a thread that may block.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Mutex, broadcast};
use tuckseal::content::{AttachmentPointer, Data, Typing};
use tuckseal::{Fingerprint, IdentityKey, PublicKey, ServiceId, SessionInfo};

use crate::engine::{Engine, Settings, Turn};
use crate::error::{IdentityError, LookupError, RegisterError, RunError, SendError, TransferError};
use crate::event::Event;
use crate::message::{Contact, Message, MessageId, SentId, SentState, Statistics, Verification};
use crate::register::{Registration, register};
use crate::shell::{Actions, Shell, run};
use crate::store::{Account, Decision, Own, Peer, Profile, ProfileError, Store};
use crate::transfer::Transfer;
use crate::transport::http::Http;
use crate::transport::{Ca, ServerError};

/// Messages that [`Client::inbox`] gives at once.
pub(crate) const INBOX_PAGE: u32 = 500;

/// An open profile. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shell: Shell,
    actions: Arc<Mutex<Actions>>,
    pub(crate) http: Http,
    pub(crate) own: Arc<Own>,
    pub(crate) account: Arc<Account>,
}

impl Client {
    /// Makes a profile in a folder and registers it. May be repeated until it succeeds.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn register(
        folder: &Path,
        registration: Registration,
    ) -> Result<Self, RegisterError> {
        let (store, own, account) = register(folder.to_owned(), registration).await?;
        Ok(Self::assemble(store, own, account, Settings::default())??)
    }

    /// Opens a registered profile, exclusively. It is closed when the last handle is dropped.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn open(folder: &Path, settings: Settings) -> Result<Self, ProfileError> {
        let folder = folder.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let store = Store::open(&folder, Profile::Existing)?;
            let own = store.rows().own()?;
            let registered = own.and_then(|own| own.account.clone().map(|account| (own, account)));
            let (own, account) = registered.ok_or(ProfileError::NotRegistered { folder })?;
            Self::assemble(store, own, account, settings)?
                .map_err(|_| ProfileError::Damaged { what: "server address" })
        });
        opened.await.map_err(|_| ProfileError::Closed)?
    }

    pub(crate) fn assemble(
        store: Store,
        own: Own,
        account: Account,
        settings: Settings,
    ) -> Result<Result<Self, ServerError>, ProfileError> {
        let ca = Ca::of_profile(store.rows().ca()?);
        let ca = ca.map_err(|_| ProfileError::Damaged { what: "CA" })?;
        let http = match Http::new(&own.server, ca.as_ref()) {
            Ok(http) => http,
            Err(error) => return Ok(Err(error)),
        };
        let engine = Engine::new(store, own.clone(), account.clone(), settings)?;
        let (shell, actions) = Shell::new(engine);
        let actions = Arc::new(Mutex::new(actions));
        Ok(Ok(Self { shell, actions, http, own: Arc::new(own), account: Arc::new(account) }))
    }

    /// Keeps the client connected until `shutdown` is ready. Without it messages are kept, and wait.
    ///
    /// # Errors
    /// [`RunError`]: the client has stopped and going on would not help.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) -> Result<(), RunError> {
        let mut actions = self.actions.try_lock().map_err(|_| RunError::AlreadyRunning)?;
        run(&self.shell, &mut actions, &self.http, &self.account, shutdown).await
    }

    /// Trusts these authorities with the server's certificate and no others, from the next opening of the profile
    /// on; `None`: those that the system trusts.
    ///
    /// # Errors
    /// [`ProfileError`]; nothing was changed.
    pub async fn set_ca(&self, ca: Option<Ca>) -> Result<(), ProfileError> {
        let set = move |engine: &mut Engine, _: &mut Turn<'_>| {
            engine.store.commit(|rows| rows.set_ca(&Ca::certificates(ca.as_ref())))
        };
        self.shell.call(set).await
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events(self.shell.events())
    }

    /// Takes a text over for an account: when this returns it is on disk, and will be sent. Needs no
    /// connection.
    ///
    /// # Errors
    /// [`SendError`]; nothing was stored.
    pub async fn send(&self, to: ServiceId, text: &str) -> Result<SentId, SendError> {
        self.send_data(to, Data::text(text)).await
    }

    /// As [`Client::send`], for more than a text.
    ///
    /// # Errors
    /// [`SendError`]; nothing was stored.
    pub async fn send_data(&self, to: ServiceId, data: Data) -> Result<SentId, SendError> {
        self.shell.call(move |engine, turn| engine.send(to, data, turn)).await
    }

    /// Uploads a file for [`Client::send_data`]; what broke off goes on where it was, if the file is the same.
    /// `progress` hears how many bytes of how many are through.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn upload(
        &self,
        path: &Path,
        content_type: &str,
        progress: impl Fn(u64, u64) + Sync,
    ) -> Result<AttachmentPointer, TransferError> {
        self.transfer().upload(path, content_type, &progress).await
    }

    /// Fetches a file of a message to a path where nothing is; what broke off goes on where it was, in a
    /// file beside it that ends in `.part`. Nothing is at the path before all of the file was checked.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn download(
        &self,
        file: &AttachmentPointer,
        to: &Path,
        progress: impl Fn(u64, u64) + Sync,
    ) -> Result<(), TransferError> {
        self.transfer().download(file, to, &progress).await
    }

    fn transfer(&self) -> Transfer<'_> {
        Transfer { shell: &self.shell, http: &self.http, account: &self.account }
    }

    /// A person has seen these messages of the inbox: their senders are told, if the settings say so. Before
    /// [`Client::acknowledge`].
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn mark_read(&self, messages: &[MessageId]) -> Result<(), ProfileError> {
        let messages = messages.to_vec();
        self.shell.call(move |engine, turn| engine.mark_read(&messages, turn)).await
    }

    /// Tells a peer that somebody is writing to them, or has stopped: at once or not at all, while the stream
    /// is open and nothing else waits for them. Call it when the writing begins, and every few seconds while it
    /// goes on. It is as anonymous as a message, and tells the relay of one envelope.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn typing(&self, to: ServiceId, typing: Typing) -> Result<(), ProfileError> {
        self.shell.call(move |engine, turn| engine.typing(&[to], typing, turn)).await
    }

    /// What two people compare to know that nobody stands between them: digits to read, bytes to scan; and
    /// the key that it is about, for [`Client::set_verified`]. `None` as long as no key is known. Takes some
    /// milliseconds of work.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn safety_number(
        &self,
        account: ServiceId,
    ) -> Result<Option<(Fingerprint, IdentityKey)>, ProfileError> {
        let peer = self.shell.call(move |engine, _| engine.store.rows().peer(account)).await?;
        let ours = (self.account(), self.identity_key());
        let of = |key| (Fingerprint::of_accounts(ours, (account, key)), key);
        Ok(peer.and_then(|peer| peer.identity).map(of))
    }

    /// A person has compared the safety number that this key gives, or takes that back. When the key of a
    /// verified account changes, nothing goes to it before somebody decides, and the event says so.
    ///
    /// # Errors
    /// [`IdentityError::NotKnown`] when the key is another one by now.
    pub async fn set_verified(
        &self,
        account: ServiceId,
        key: IdentityKey,
        verification: Verification,
    ) -> Result<(), IdentityError> {
        let set = move |engine: &mut Engine, turn: &mut Turn<'_>| {
            engine.set_verified(account, key, verification)?;
            Ok::<_, IdentityError>(engine.contact_known(account, turn)?)
        };
        self.shell.call(set).await
    }

    /// Where a sent message is.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn sent_state(&self, message: SentId) -> Result<SentState, ProfileError> {
        self.shell.call(move |engine, _| engine.sent_state(message)).await
    }

    /// How many messages the relay does not have yet.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn outbox_len(&self) -> Result<u64, ProfileError> {
        self.shell.call(|engine, _| engine.store.rows().outbox_len()).await
    }

    /// The account of a name: of a contact, else as the server says, and then a contact.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn lookup(&self, name: &str) -> Result<ServiceId, LookupError> {
        let wanted = name.to_owned();
        let known =
            self.shell.call(move |engine, _| engine.store.rows().peer_named(&wanted)).await?;
        if let Some(peer) = known {
            return Ok(peer.account);
        }
        let account = match self.http.account_of(&self.account, name).await {
            Err(ServerError::NotFound) => {
                let server = self.own.server.clone();
                return Err(LookupError::NoSuchName { name: name.to_owned(), server });
            }
            found => found?,
        };
        let username = Some(name.to_owned());
        let saved = self.shell.call(move |engine, turn| {
            engine.store.commit(|rows| {
                let peer = rows.peer(account)?.unwrap_or_else(|| Peer::unknown(account));
                rows.save_peer(&Peer { username, ..peer })
            })?;
            engine.contact_known(account, turn)
        });
        saved.await?;
        Ok(account)
    }

    /// Everybody that we have looked up, written to or heard from.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn contacts(&self) -> Result<Vec<Contact>, ProfileError> {
        let (peers, us) =
            (self.shell.call(|engine, _| engine.store.rows().peers()), self.account());
        let others = peers.await?.into_iter().filter(|peer| peer.account != us);
        Ok(others.map(Contact::from).collect())
    }

    /// The oldest messages that were not acknowledged, in order; at most 500.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn inbox(&self) -> Result<Vec<Message>, ProfileError> {
        self.shell.call(|engine, _| engine.store.rows().inbox(0, INBOX_PAGE)).await
    }

    /// The app has dealt with a message: it goes from the inbox.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn acknowledge(&self, message: MessageId) -> Result<(), ProfileError> {
        let work =
            move |engine: &mut Engine| engine.store.commit(|rows| rows.delete_inbox(message.0));
        self.shell.call(move |engine, _| work(engine)).await
    }

    /// A person trusts the new identity key of a contact: what was held back is delivered.
    ///
    /// # Errors
    /// [`IdentityError`]; nothing was changed.
    pub async fn accept_identity(
        &self,
        account: ServiceId,
        key: IdentityKey,
    ) -> Result<(), IdentityError> {
        self.shell.call(move |engine, turn| engine.accept_identity(account, key, turn)).await
    }

    /// A person does not trust the new identity key of a contact: what was held back is dropped.
    ///
    /// # Errors
    /// [`IdentityError`]; nothing was changed.
    pub async fn reject_identity(
        &self,
        account: ServiceId,
        key: IdentityKey,
    ) -> Result<(), IdentityError> {
        self.shell.call(move |engine, turn| engine.reject_identity(account, key, turn)).await
    }

    /// The session with each device of an account that has one.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn session_info(&self, account: ServiceId) -> Result<Vec<SessionInfo>, ProfileError> {
        let devices =
            self.shell.call(move |engine, _| engine.store.rows().devices(account)).await?;
        Ok(devices.iter().filter_map(|device| device.session.info()).collect())
    }

    /// What was counted over the life of the profile.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub async fn statistics(&self) -> Result<Statistics, ProfileError> {
        self.shell.call(|engine, _| engine.store.rows().statistics()).await
    }

    /// Our account.
    #[must_use]
    pub fn account(&self) -> ServiceId {
        self.account.address.service_id
    }

    /// The name we registered under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.own.name
    }

    /// The server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.own.server
    }

    /// The pinned trust root of the server.
    #[must_use]
    pub fn trust_root(&self) -> PublicKey {
        self.account.trust_root
    }

    /// Our identity key, to be compared with what others see.
    #[must_use]
    pub fn identity_key(&self) -> IdentityKey {
        self.own.identity.identity_key()
    }
}

/// What happens to a client, from the moment it was asked for.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` when the client is no more.
    pub async fn recv(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Event::Missed { count }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl From<Peer> for Contact {
    fn from(peer: Peer) -> Self {
        let Peer { account, username, claimed_name, identity, verified, .. } = peer;
        let offered = peer.offered.filter(|_| peer.decision == Decision::Awaited);
        Self { account, username, claimed_name, identity, offered, verified }
    }
}
