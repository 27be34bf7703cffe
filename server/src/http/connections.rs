//! Accepting connections: how many, how long a request head may take and an answer may lie, and how they end at shutdown.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::App;
use super::patience::Patient;
use super::tls::ACME_TLS;

/// Bytes of a request head, and what is read from a socket at once.
const HEAD_BYTES: usize = 16 * 1024;
/// After a failure to accept (out of file descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the server is to stop.
pub(crate) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    app: Arc<App>,
) {
    let places = usize::try_from(app.services.limits.connections).unwrap_or(usize::MAX);
    let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = app.stopping.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((socket, _)) => {
                let (tls, router, serving) = (tls.clone(), router.clone(), Arc::clone(&app));
                app.open.spawn(secure(socket, tls, router, serving, place));
            }
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves after the TLS handshake, if there is to be one.
async fn secure(
    socket: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    app: Arc<App>,
    place: Option<OwnedSemaphorePermit>,
) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "nodelay");
    }
    let write_limit = Duration::from_secs(app.services.limits.stream_write_secs);
    let socket = Patient::new(socket, write_limit, place);
    let Some(tls) = tls else { return serve(socket, router, app).await };
    let patience = Duration::from_secs(app.services.limits.header_timeout_secs);
    let handshake = tokio::time::timeout(patience, tls.accept(socket));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = app.stopping.cancelled() => return,
    };
    match shaken {
        // The authority has seen what it wanted to see.
        Ok(Ok(socket)) if socket.get_ref().1.alpn_protocol() == Some(ACME_TLS) => {}
        Ok(Ok(socket)) => serve(socket, router, app).await,
        Ok(Err(error)) => tracing::debug!(%error, "handshake"),
        Err(_) => tracing::debug!("the handshake took too long"),
    }
}

async fn serve(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    app: Arc<App>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(app.services.limits.header_timeout_secs))
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = app.stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection");
    }
}
