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
    /// All connections end.
    pub(crate) end: CancellationToken,
}

impl Server {
    /// Accepts until the task is dropped.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let server = Arc::new(self);
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let client = peer.ip().to_canonical();
            if !server.live.borrow().admits(client) {
                server.counters.refused();
                reset(&stream);
                continue;
            }
            let Some(own) = server.admission.of(client) else {
                tracing::debug!(%client, "has all the connections that one client may have");
                server.counters.refused();
                reset(&stream);
                continue;
            };
            // Whoever comes while there is no room waits, this one here and the others in the kernel.
            let Some(permit) = server.admission.connection().await else { return };
            let connection = Arc::clone(&server);
            let served = async move {
                let _places = (own, permit);
                let _open = connection.counters.open();
                connection.connection(stream, peer).await;
            };
            server.connections.spawn(server.end.clone().run_until_cancelled_owned(served));
        }
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

/// Closing it then tells the peer that something went wrong, instead of an end in order (RFC 9293 section 3.10.4).
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
