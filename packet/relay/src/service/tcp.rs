//! TCP: accepts, chooses, connects, and moves bytes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Options,
    admit::Admission,
    frontend::Live,
    listen,
    splice::{self, Patience},
    stats::Counters,
};

/// After an error of accept(2), which is of the machine (descriptors, memory), not of a client.
const PAUSE: Duration = Duration::from_millis(100);
/// A peer that is gone without a word is noticed after some of these.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// So many backends are tried for one client.
const TRIES: usize = 3;

/// All that a listener's task needs.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) live: watch::Receiver<Arc<Live>>,
    pub(crate) options: Options,
    pub(crate) admission: Arc<Admission>,
    pub(crate) counters: Arc<Counters>,
    /// Connections, of this listener and of all others: they outlive their listener.
    pub(crate) connections: TaskTracker,
    /// Nobody new comes in.
    pub(crate) closing: CancellationToken,
    /// All connections end.
    pub(crate) end: CancellationToken,
}

impl Server {
    /// Works until `end`, or from `closing` on until those are served that the kernel had let in by then: their clients
    /// have sent to an open connection, which the kernel would reset when the socket is closed.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let server = Arc::new(self);
        let all = async {
            while let Some(accepted) = server.closing.run_until_cancelled(listener.accept()).await {
                server.take(accepted).await;
            }
            server.take_those_that_wait(listener).await;
        };
        server.end.run_until_cancelled(all).await;
    }

    async fn take_those_that_wait(self: &Arc<Self>, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        // The queue is no longer than this, and whoever comes later is too late.
        for _ in 0..listen::BACKLOG {
            let accepted = match listener.accept() {
                Ok((stream, peer)) => asynchronous(stream).map(|stream| (stream, peer)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => Err(error),
            };
            self.take(accepted).await;
        }
    }

    /// Begins to serve one, or turns it away. While there is no room it waits, and all that come later in the kernel.
    async fn take(self: &Arc<Self>, accepted: io::Result<(TcpStream, SocketAddr)>) {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
                return;
            }
        };
        let client = peer.ip().to_canonical();
        if !self.live.borrow().admits(client) {
            self.counters.refused();
            reset(&stream);
            return;
        }
        let Some(own) = self.admission.of(client) else {
            tracing::debug!(%client, "has all the connections that one client may have");
            self.counters.refused();
            reset(&stream);
            return;
        };
        let Some(permit) = self.admission.connection().await else { return };
        let connection = Arc::clone(self);
        let served = async move {
            let _places = (own, permit);
            let _open = connection.counters.open();
            connection.connection(stream, peer).await;
        };
        self.connections.spawn(self.end.clone().run_until_cancelled_owned(served));
    }

    async fn connection(&self, mut client: TcpStream, peer: SocketAddr) {
        match self.relay(&mut client, peer).await {
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(client = %peer, %error, "a connection was cut");
                self.counters.failed();
                reset(&client);
            }
        }
    }

    async fn relay(&self, client: &mut TcpStream, peer: SocketAddr) -> io::Result<()> {
        let live = Arc::clone(&self.live.borrow());
        let mut backend = self.connect(&live, peer.ip().to_canonical()).await?;
        for stream in [&*client, &backend] {
            let _ = stream.set_nodelay(true);
            let _ = SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        }
        if let Some(version) = live.proxy_protocol {
            let header = version.header(peer, client.local_addr()?);
            backend.write_all(&header).await?;
        }
        let patience = Patience { idle: self.options.idle, half_closed: self.options.half_closed };
        let moved =
            splice::both(client, &backend, patience, &self.counters.received, &self.counters.sent).await;
        if moved.is_err() {
            reset(&backend);
        }
        moved
    }

    /// To the backend that the client had, or to one that is chosen; another one when that does not answer.
    async fn connect(&self, live: &Live, client: IpAddr) -> io::Result<TcpStream> {
        let mut tried = Vec::new();
        let mut last = io::Error::new(io::ErrorKind::NotConnected, "there is no backend");
        while tried.len() < TRIES {
            let Some(backend) = choose(live, client, &tried) else { break };
            match timeout(self.options.connect, TcpStream::connect(backend)).await {
                Ok(Ok(stream)) => {
                    remember(live, client, backend);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
            tracing::debug!(%backend, error = %last, "a backend does not answer");
            tried.push(backend);
        }
        Err(last)
    }
}

/// The backend for a new connection of this client.
pub(crate) fn choose(live: &Live, client: IpAddr, tried: &[SocketAddr]) -> Option<SocketAddr> {
    let former = live.affinity.as_ref().and_then(|(timeout, affinity)| {
        affinity.lock().unwrap_or_else(PoisonError::into_inner).get(client, *timeout, Instant::now())
    });
    former
        .filter(|backend| live.choice.contains(*backend) && !tried.contains(backend))
        .or_else(|| live.choice.pick(client, tried, &mut rand::rng()))
}

/// The client stays there.
pub(crate) fn remember(live: &Live, client: IpAddr, backend: SocketAddr) {
    if let Some((_, affinity)) = &live.affinity {
        affinity.lock().unwrap_or_else(PoisonError::into_inner).set(client, backend, Instant::now());
    }
}

/// Of a listener that does not block, which accept(2) does not pass on.
fn asynchronous(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Closing it then tells the peer that something went wrong, instead of an end in order (RFC 9293 section 3.10.4).
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
