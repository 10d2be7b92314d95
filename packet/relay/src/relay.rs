//! One published port on the loopback.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use portolan_model::Protocol;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{held::Held, tcp, udp};

/// Where the instance is: the port by each version of IP that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    v4: Option<SocketAddr>,
    v6: Option<SocketAddr>,
}

impl Targets {
    /// The same port of both addresses.
    pub fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>, port: u16) -> Self {
        Self { v4: v4.map(|address| (address, port).into()), v6: v6.map(|address| (address, port).into()) }
    }

    /// For a client of `[::1]` the IPv6 address, for one of 127.0.0.1 the IPv4 one; the other where there is none.
    pub(crate) fn pick(&self, asked: IpAddr) -> Option<SocketAddr> {
        if asked.is_ipv4() { self.v4.or(self.v6) } else { self.v6.or(self.v4) }
    }
}

/// How much one relay may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections at once; further ones wait until one ends.
    pub connections: usize,
    /// UDP clients at once; a further one takes the place of the one that has been silent longest.
    pub clients: usize,
    /// A UDP client that has been silent for so long, in both directions, is forgotten.
    pub idle: Duration,
    /// How long a connection to the instance may take.
    pub connect: Duration,
}

impl Default for Limits {
    /// 1,024 connections, 1,024 clients, two minutes (as connection tracking has it), five seconds.
    fn default() -> Self {
        Self {
            connections: 1024,
            clients: 1024,
            idle: Duration::from_secs(120),
            connect: Duration::from_secs(5),
        }
    }
}

/// Why a port is not relayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// SCTP has no relay.
    #[error("{0} ports are not served on the loopback: use an address of this machine")]
    Unsupported(Protocol),
    /// The instance has no address.
    #[error("the instance has no address to relay to")]
    Nowhere,
    /// The socket cannot be used.
    #[error("cannot serve the loopback on a held {protocol} port: {source}")]
    Socket {
        /// The protocol.
        protocol: Protocol,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What a relay has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Connections, or UDP clients, that are open.
    pub open: usize,
    /// That were opened since the start.
    pub opened: u64,
    /// That were closed because the instance did not answer, or because there were too many.
    pub failed: u64,
}

/// The same, shared with the tasks.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    open: AtomicUsize,
    opened: AtomicU64,
    failed: AtomicU64,
}

impl Shared {
    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection or client, counted while it lives.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Shared>);

impl Counted {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::Relaxed);
        shared.opened.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the tasks of a relay need.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) targets: Targets,
    pub(crate) limits: Limits,
    pub(crate) shared: Arc<Shared>,
    /// Nobody new is taken.
    pub(crate) closing: CancellationToken,
    /// All ends.
    pub(crate) end: CancellationToken,
    /// Rung when the last one that was there has gone.
    pub(crate) empty: Notify,
}

/// Serves one held port on the loopback. The runtime's threads must be in the network namespace to which the socket
/// belongs: from there the instance is reached.
///
/// Dropped, it ends at once, and the hold is a hold again.
#[derive(Debug)]
pub struct Relay {
    context: Arc<Context>,
    protocol: Protocol,
    /// `None` when it is a hold again.
    held: Option<Held>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Begins to serve: `socket` is a duplicate of the descriptor that holds the port, bound to one address or to all,
    /// of one port. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// Then the socket is a hold as before.
    pub fn start(
        protocol: Protocol,
        socket: OwnedFd,
        targets: Targets,
        limits: Limits,
    ) -> Result<Self, RelayError> {
        if protocol == Protocol::Sctp {
            return Err(RelayError::Unsupported(protocol));
        }
        if targets.v4.is_none() && targets.v6.is_none() {
            return Err(RelayError::Nowhere);
        }
        let during = |source| RelayError::Socket { protocol, source };
        let held = Held::use_for_loopback(protocol, socket).map_err(during)?;
        let copy = held.duplicate().map_err(during)?;
        let end = CancellationToken::new();
        let context = Arc::new(Context {
            targets,
            limits,
            shared: Arc::default(),
            closing: end.child_token(),
            end,
            empty: Notify::new(),
        });
        let task = match protocol {
            Protocol::Tcp => {
                let listener = tokio::net::TcpListener::from_std(copy.into()).map_err(during)?;
                tokio::spawn(tcp::serve(listener, Arc::clone(&context)))
            }
            _ => {
                let server = udp::Server::new(copy.into(), Arc::clone(&context)).map_err(during)?;
                tokio::spawn(server.serve())
            }
        };
        Ok(Self { context, protocol, held: Some(held), task })
    }

    /// What it has done so far.
    pub fn stats(&self) -> RelayStats {
        let Shared { open, opened, failed } = &*self.context.shared;
        RelayStats {
            open: open.load(Ordering::Relaxed),
            opened: opened.load(Ordering::Relaxed),
            failed: failed.load(Ordering::Relaxed),
        }
    }

    /// Ends it with all its connections. When this returns the socket is a hold again: bound, and nothing else.
    pub async fn stop(self) {
        self.stop_within(Duration::ZERO).await;
    }

    /// Takes nobody new, and gives those that are there so long to end by themselves. A TCP port refuses connections
    /// from now on.
    pub async fn stop_within(mut self, grace: Duration) {
        self.context.closing.cancel();
        if self.protocol == Protocol::Tcp {
            // Connections that were accepted have sockets of their own.
            self.held = None;
        }
        if !grace.is_zero() && tokio::time::timeout(grace, self.context.empty.notified()).await.is_err() {
            tracing::debug!(open = self.stats().open, "connections on the loopback are cut");
        }
        self.context.end.cancel();
        // A task that panicked has said so on its way.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.context.end.cancel();
        self.task.abort();
    }
}
