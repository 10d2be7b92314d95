//! Serves a router on a socket: says who is at the other end, and lets nobody take everything.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router, body::Body, extract::ConnectInfo, serve::Listener};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::admit::Peer;

/// What one listener gives its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time: 4,096. The next ones wait in the kernel's queue. A watch is one.
    pub connections: usize,
    /// From a connection, or the reply before, to the end of the next request's head: 15 s.
    pub head: Duration,
    /// Headers of a request: 64.
    pub headers: usize,
    /// Bytes of a request's head: 16 KiB.
    pub head_size: usize,
    /// From the order to shut down until what still runs is cut off: 5 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            head: Duration::from_secs(15),
            headers: 64,
            head_size: 16 << 10,
            drain: Duration::from_secs(5),
        }
    }
}

/// Told to handlers: cancelled when their listener shuts down, so that replies without an end come to one.
#[derive(Clone, Debug)]
pub(super) struct Closing(CancellationToken);

/// Waits until the listener shuts down; for ever, where no listener said that it tells.
pub(super) async fn closed(closing: Option<Extension<Closing>>) {
    match closing {
        Some(Extension(Closing(token))) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// A listener that can be served on.
pub trait Served: Listener<Addr: Into<Peer> + Clone + Send + Sync + 'static> {
    /// Prepares a connection that was just accepted.
    fn prepare(stream: &Self::Io);
}

impl Served for TcpListener {
    fn prepare(stream: &TcpStream) {
        // Events are small and each must go out when it happens. A socket that refuses is about to close.
        let _ = stream.set_nodelay(true);
    }
}

impl Served for UnixListener {
    fn prepare(_: &UnixStream) {}
}

/// Serves `router` with the usual [`Limits`] until `shutdown` is cancelled, then lets what runs come to an end for a
/// while. Handlers find a [`Peer`] and a `ConnectInfo` of the socket's address type in the request's extensions.
pub async fn serve<L: Served>(listener: L, router: Router, shutdown: CancellationToken) {
    serve_with(Limits::default(), listener, router, shutdown).await;
}

/// [`serve`] with other limits.
pub async fn serve_with<L: Served>(
    limits: Limits,
    mut listener: L,
    router: Router,
    shutdown: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let (stream, address, permit) = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's handler failed, which is a fault of the program");
                }
                continue;
            }
            accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await;
                let (stream, address) = listener.accept().await;
                (stream, address, permit)
            } => accepted,
        };
        L::prepare(&stream);
        let router = router.clone();
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            let _permit = permit;
            connection::<L>(limits, stream, address, router, shutdown).await;
        });
    }
    // Nobody can connect any more while the rest is finished.
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::info!(left = connections.len(), "connections that did not end in time are cut off");
        connections.shutdown().await;
    }
}

async fn connection<L: Served>(
    limits: Limits,
    stream: L::Io,
    address: L::Addr,
    router: Router,
    shutdown: CancellationToken,
) {
    let closing = shutdown.clone();
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        let peer: Peer = address.clone().into();
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(ConnectInfo(address.clone()));
        request.extensions_mut().insert(Closing(closing.clone()));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(limits.headers)
        .max_buf_size(limits.head_size)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // The client went away, spoke something else, or was too slow: its affair.
        tracing::debug!(%error, "a connection ended early");
    }
}
