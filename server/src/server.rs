//! The life of a server: opening its files, listening, stopping.

use std::fs::{File, OpenOptions, TryLockError};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::{Bus, BusError, LocalBus, NodesBus};
use crate::config::{AttachmentPlace, Config};
use crate::hook::{HookOpenError, HttpHook, OperatorHook};
use crate::house;
use crate::http::acme::{self, Renewal};
use crate::http::tls::{self, TlsError};
use crate::http::{self, App};
use crate::identity::{IdentityError, ServerIdentity, private_folder};
use crate::push::{PushError, Senders};
use crate::service::Services;
use crate::service::gate::{OpenGate, ProofOfWork, RegistrationGate};
use crate::service::hooks::Hooks;
use crate::storage::postgres::{PostgresOpenError, PostgresStore};
use crate::storage::sqlite::{OpenError, SqliteStore};
use crate::storage::{
    AttachmentBucket, AttachmentStore, BucketError, NodeId, ReadOnly, Store, StoreError,
};

/// Why a server does not start or does not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The data folder cannot be made or used.
    #[error("data folder {path}: {source}")]
    DataDir {
        /// As set.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another server works in the data folder.
    #[error("another server uses the data folder {path}; stop it or choose another folder")]
    InUse {
        /// As set.
        path: PathBuf,
    },
    /// The keys.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The database.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// PostgreSQL.
    #[error(transparent)]
    Postgres(#[from] PostgresOpenError),
    /// The bus.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The bucket of the attachments.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// Push.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The operator's own check.
    #[error(transparent)]
    Hook(#[from] HookOpenError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address or stop what uses it")]
    Listen {
        /// As set.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The signals cannot be waited for.
    #[error("cannot wait for the signals to stop ({0})")]
    Signals(#[source] io::Error),
    /// The database did not close.
    #[error(
        "the database did not close ({0}); what was accepted is in its log and is read at the next start"
    )]
    Close(#[source] StoreError),
}

/// What somebody who embeds the server puts in place of what the settings name.
#[derive(Default)]
pub struct Extensions {
    /// In place of `registration_work_bits`.
    pub gate: Option<Arc<dyn RegistrationGate>>,
    /// In place of `hook_url`.
    pub hook: Option<Arc<dyn OperatorHook>>,
}

/// A server that listens; [`Server::run`] makes it answer.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Option<TcpListener>,
    tls: Option<TlsAcceptor>,
    renewal: Option<Renewal>,
    app: Arc<App>,
    /// Held as long as the server lives.
    _lock: File,
}

impl Server {
    /// Opens keys and database in the data folder, which is made if it is not there, and listens.
    ///
    /// # Errors
    /// [`ServerError`]; nothing listens then.
    pub async fn bind(config: Config) -> Result<Self, ServerError> {
        Self::bind_with(config, Extensions::default()).await
    }

    /// The same with what an embedder puts in place of settings.
    ///
    /// # Errors
    /// [`ServerError`]; nothing listens then.
    pub async fn bind_with(config: Config, extensions: Extensions) -> Result<Self, ServerError> {
        let lock = open_data_dir(&config.data_dir)?;
        let identity = ServerIdentity::load_or_create(&config)?;
        let (tls, renewal) = open_tls(&config)?;
        let senders = Senders::open(&config, &identity)?;
        let gate = extensions.gate.unwrap_or_else(|| open_gate(&config));
        let hooks = open_hooks(&config, extensions.hook)?;
        let node = NodeId(i64::from_be_bytes(rand::random()));
        let bus = open_bus(&config, &identity, node).await?;
        let store = open_store(&config).await?;
        let (listener, address) = listen(config.listen).await?;
        let metrics = match config.metrics_listen {
            Some(address) => Some(listen(address).await?.0),
            None => None,
        };
        let attachments = open_attachments(&config)?;
        let (shared, limits) = (Arc::clone(&store), config.limits);
        let services = Services::new(
            shared,
            attachments,
            (bus, node),
            (senders, gate, hooks),
            identity,
            limits,
        );
        let app = Arc::new(App {
            services,
            store,
            alone: config.database.is_none(),
            read_only: config.read_only,
            draining: CancellationToken::new(),
            leaving: CancellationToken::new(),
            stopping: CancellationToken::new(),
            open: TaskTracker::new(),
        });
        Ok(Self { listener, address, metrics, tls, renewal, app, _lock: lock })
    }

    /// Where it listens; the port that was picked if the settings said 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` is ready, then ends: balancers are told, streams are closed with 1012, requests are
    /// finished, devices that left something behind are woken, what was accepted is on disk.
    ///
    /// # Errors
    /// The database did not close well.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let Self { listener, metrics, tls, renewal, app, _lock, .. } = self;
        let router = http::router(Arc::clone(&app));
        let accepting = tokio::spawn(http::accept(listener, tls, router, Arc::clone(&app)));
        if let Some(listener) = metrics {
            tokio::spawn(http::accept(listener, None, http::metrics_router(), Arc::clone(&app)));
        }
        if let Some(renewal) = renewal {
            tokio::spawn(renewal.run(app.stopping.clone()));
        }
        let waking = app.services.push.clone().run(app.stopping.clone());
        let waking = tokio::spawn(waking);
        let mut keeping = house::keep(&app);
        shutdown.await;
        drain(&app).await;
        tracing::info!("stopping");
        app.stopping.cancel();
        app.open.close();
        // A panic there has been reported; there is still the database to close.
        let _ = accepting.await;
        let grace = Duration::from_secs(app.services.limits.shutdown_secs);
        if timeout(grace, app.open.wait()).await.is_err() {
            tracing::warn!(open = app.open.len(), "connections did not end in time");
        }
        // Both end with `stopping`, whatever they wait for.
        while keeping.join_next().await.is_some() {}
        let _ = waking.await;
        app.services.push.flush(grace).await;
        app.store.close().await.map_err(ServerError::Close)?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Tells balancers, then lets the streams go, each at a time of its own.
async fn drain(app: &App) {
    let limits = &app.services.limits;
    let (notice, spread) = (limits.drain_notice_secs, limits.drain_spread_secs);
    tracing::info!(notice, spread, "draining");
    app.draining.cancel();
    sleep(Duration::from_secs(notice)).await;
    app.leaving.cancel();
    sleep(Duration::from_secs(spread)).await;
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>, ServerError> {
    let store: Arc<dyn Store> = match &config.database {
        Some(database) => Arc::new(PostgresStore::open(database.revealed()).await?),
        None => Arc::new(SqliteStore::open(&config.data_dir.join("tuckseal.db"))?),
    };
    Ok(if config.read_only { Arc::new(ReadOnly(store)) } else { store })
}

fn open_tls(config: &Config) -> Result<(Option<TlsAcceptor>, Option<Renewal>), TlsError> {
    if config.acme.is_on() {
        let (acceptor, renewal) = acme::acceptor(config)?;
        return Ok((Some(acceptor), Some(renewal)));
    }
    let acceptor = config.tls_files().map(|(chain, key)| tls::acceptor(chain, key));
    Ok((acceptor.transpose()?, None))
}

fn open_gate(config: &Config) -> Arc<dyn RegistrationGate> {
    match config.registration_work_bits {
        0 => Arc::new(OpenGate),
        bits => Arc::new(ProofOfWork { bits }),
    }
}

fn open_hooks(
    config: &Config,
    embedders: Option<Arc<dyn OperatorHook>>,
) -> Result<Hooks, HookOpenError> {
    let hook = match embedders {
        Some(hook) => Some(hook),
        None => HttpHook::open(&config.hook)?.map(|hook| Arc::new(hook) as Arc<dyn OperatorHook>),
    };
    Ok(Hooks::new(hook, config.hook.on_failure(), &config.limits))
}

fn open_attachments(config: &Config) -> Result<AttachmentStore, BucketError> {
    Ok(match &config.attachments {
        AttachmentPlace::Folder(path) => AttachmentStore::folder(path.clone()),
        AttachmentPlace::Bucket(place) => {
            let memory_kib = config.limits.attachment_memory_kib;
            AttachmentStore::Bucket(AttachmentBucket::new(place, &config.s3, memory_kib)?)
        }
    })
}

async fn open_bus(
    config: &Config,
    identity: &ServerIdentity,
    node: NodeId,
) -> Result<Arc<dyn Bus>, ServerError> {
    Ok(match &config.bus {
        Some(bus) => Arc::new(NodesBus::connect(bus, identity.bus_name(), node).await?),
        None => Arc::new(LocalBus::default()),
    })
}

/// Runs a server until SIGTERM or SIGINT. Prints one line on the output when it takes requests.
///
/// # Errors
/// [`ServerError`].
pub async fn serve(config: Config) -> Result<(), ServerError> {
    let signals = signals().map_err(ServerError::Signals)?;
    let server = Server::bind(config).await?;
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    announce(scheme, server.local_addr());
    server.run(signals).await
}

fn announce(scheme: &str, address: SocketAddr) {
    use std::io::Write;
    let mut out = io::stdout().lock();
    // Nobody may be reading.
    let _ = writeln!(out, "listening on {scheme}://{address}").and_then(|()| out.flush());
}

#[cfg(unix)]
fn signals() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn signals() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}

fn open_data_dir(path: &Path) -> Result<File, ServerError> {
    let failed = |source| ServerError::DataDir { path: path.into(), source };
    private_folder(path).map_err(failed)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("lock"))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServerError::InUse { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
