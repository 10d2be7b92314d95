//! The server: sockets, connections, and their end.
//!
//! Each listener has one UDP socket and one TCP socket on the same address and port. A packet is answered by
//! [`crate::respond`] in the task that received it, as an answer from the catalog takes microseconds; only what is
//! forwarded gets a task of its own. All of it is bounded: TCP connections in number and time, questions on their
//! way in [`crate::forward`].
//!
//! The sockets are ours and not hickory-server's because that one queues at most 32 UDP answers and drops the rest
//! (`DEFAULT_STREAM_BUFFER_SIZE` of hickory-net 0.26), puts no bound on TCP connections, and sets TC for glue.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use portolan_telemetry::metrics::Metrics;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    forward::Forwarder,
    message::Transport,
    resolv::Upstreams,
    respond::{Catalog, Responder, Response},
    zone::Zone,
};

/// How long a TCP client may take for its next question, and for taking an answer (RFC 7766 section 6.2.3 says
/// "on the order of a few seconds").
const IDLE: Duration = Duration::from_secs(10);

/// TCP connections of one listener at once. The next one waits until one ends or has been idle too long.
const CONNECTIONS: usize = 256;

/// Asked of the kernel for the UDP socket, so that a burst is not lost while something else has the processor.
const UDP_BUFFER: usize = 1 << 20;

/// Attempts to find a number that is free for both protocols when any number will do.
const ATTEMPTS: usize = 16;

/// An address to answer on.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Address and port, both UDP and TCP. Port 0 takes a free one.
    pub address: SocketAddr,
    /// Clients for whom names outside the zone are asked of this machine's resolvers. All others are refused those.
    pub forward_for: Vec<IpNet>,
    /// Whether to listen although no interface has the address yet (`IP_FREEBIND`, ip(7)): the gateway's comes
    /// with the first namespace.
    pub before_address: bool,
}

impl Listener {
    /// A listener that answers names in the zone only.
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, forward_for: Vec::new(), before_address: false }
    }
}

/// What a server is made of.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// What it is authoritative for.
    pub zone: Zone,
    /// Where it answers.
    pub listeners: Vec<Listener>,
    /// The resolvers for names outside the zone; `None` reads them from `resolv_conf`, again when it changes.
    pub upstreams: Option<Vec<SocketAddr>>,
    /// Usually `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Where to count.
    pub metrics: Arc<Metrics>,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// A socket that cannot be had.
    #[error("cannot listen for DNS on {address} ({protocol}): {source}; {hint}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
}

/// A running server. It ends when this is dropped, and in order by [`Dns::stop`].
#[derive(Debug)]
pub struct Dns {
    addresses: Vec<SocketAddr>,
    tasks: TaskTracker,
    end: tokio_util::sync::DropGuard,
}

impl Dns {
    /// Starts to answer on all listeners, or on none.
    pub fn start(config: DnsConfig, catalog: Arc<impl Catalog>) -> Result<Self, DnsError> {
        let mut sockets = Vec::new();
        for listener in &config.listeners {
            sockets.push(bind(listener)?);
        }
        let addresses: Vec<SocketAddr> = sockets.iter().map(|bound| bound.address).collect();
        let upstreams = match config.upstreams {
            Some(servers) => Upstreams::Fixed(servers.into()),
            None => Upstreams::file(&config.resolv_conf, addresses.clone()),
        };
        let forwarder = Arc::new(Forwarder::new(upstreams));
        let (tasks, token) = (TaskTracker::new(), CancellationToken::new());
        for (bound, listener) in sockets.into_iter().zip(config.listeners) {
            let ip = bound.address.ip();
            let servers = if ip.is_unspecified() { Vec::new() } else { vec![ip] };
            let responder = Arc::new(Responder {
                catalog: catalog.clone(),
                zone: config.zone.clone().with_servers(servers),
                forwarder: forwarder.clone(),
                forward_for: listener.forward_for,
                metrics: config.metrics.clone(),
            });
            let (udp, tcp) = (
                serve_udp(bound.udp, responder.clone(), tasks.clone()),
                serve_tcp(bound.tcp, responder, tasks.clone(), token.clone()),
            );
            tasks.spawn(token.clone().run_until_cancelled_owned(udp));
            tasks.spawn(token.clone().run_until_cancelled_owned(tcp));
            tracing::info!(address = %bound.address, zone = config.zone.origin(), "DNS is listening");
        }
        tasks.close();
        Ok(Self { addresses, tasks, end: token.drop_guard() })
    }

    /// Where it listens, in the order of the listeners, with the numbers that were taken for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops listening, and returns when the questions on their way have been answered or given up.
    pub async fn stop(self) {
        drop(self.end);
        self.tasks.wait().await;
    }
}

struct Bound {
    address: SocketAddr,
    udp: UdpSocket,
    tcp: TcpListener,
}

/// Both sockets of a listener. TCP first: it refuses a second server on the address in every case.
fn bind(listener: &Listener) -> Result<Bound, DnsError> {
    let mut attempts = if listener.address.port() == 0 { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let failed = |protocol| {
            move |source: io::Error| {
                let hint = match source.kind() {
                    io::ErrorKind::AddrInUse => {
                        "another program answers there: stop it, or choose another address"
                    }
                    io::ErrorKind::PermissionDenied => "ports below 1024 need root: choose a higher one",
                    io::ErrorKind::AddrNotAvailable => "no interface has this address",
                    _ => "choose another address",
                };
                DnsError::Listen { address: listener.address, protocol, source, hint }
            }
        };
        let tcp = tcp(listener, listener.address).map_err(failed("tcp"))?;
        let address = tcp.local_addr().map_err(failed("tcp"))?;
        match udp(listener, address) {
            Ok(udp) => return Ok(Bound { address, udp, tcp }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            Err(error) => return Err(failed("udp")(error)),
        }
    }
}

fn socket(listener: &Listener, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(listener.address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if listener.address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    match (listener.before_address, listener.address.is_ipv4()) {
        (false, _) => {}
        (true, true) => socket.set_freebind_v4(true)?,
        (true, false) => socket.set_freebind_v6(true)?,
    }
    Ok(socket)
}

fn tcp(listener: &Listener, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(listener, Type::STREAM, Protocol::TCP)?;
    // Connections of a server that has just ended are in TIME_WAIT; a server that still runs is refused all the same.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

fn udp(listener: &Listener, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(listener, Type::DGRAM, Protocol::UDP)?;
    // The kernel gives what net.core.rmem_max allows; less is no fault.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

async fn serve_udp<C: Catalog>(socket: UdpSocket, responder: Arc<Responder<C>>, tasks: TaskTracker) {
    let socket = Arc::new(socket);
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "cannot receive DNS questions");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match responder.respond(&buffer[..length], client.ip(), Transport::Udp) {
            Response::Now(bytes) => send(&socket, &bytes, client).await,
            Response::Silence => {}
            Response::Forward(request, permit) => {
                let (socket, responder) = (socket.clone(), responder.clone());
                tasks.spawn(async move {
                    let bytes = responder.forward(&request, permit).await;
                    send(&socket, &bytes, client).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, client).await {
        tracing::debug!(%client, %error, "cannot send a DNS answer");
    }
}

async fn serve_tcp<C: Catalog>(
    listener: TcpListener,
    responder: Arc<Responder<C>>,
    tasks: TaskTracker,
    token: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: accepting again at once would spin.
                tracing::warn!(%error, "cannot accept DNS connections");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (responder, token) = (responder.clone(), token.clone());
        tasks.spawn(async move {
            let talk = converse(stream, client, &responder);
            if let Some(Err(error)) = token.run_until_cancelled(talk).await {
                tracing::debug!(%client, %error, "a DNS connection ended");
            }
            drop(permit);
        });
    }
}

/// Answers the questions of one connection, one after the other, until the client ends it or is idle.
async fn converse<C: Catalog>(
    mut stream: TcpStream,
    client: SocketAddr,
    responder: &Responder<C>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let question = async {
            let length = stream.read_u16().await?;
            buffer.resize(usize::from(length), 0);
            stream.read_exact(&mut buffer).await
        };
        match timeout(IDLE, question).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        }
        let answer = match responder.respond(&buffer, client.ip(), Transport::Tcp) {
            Response::Now(bytes) => bytes,
            Response::Forward(request, permit) => responder.forward(&request, permit).await,
            Response::Silence => return Ok(()),
        };
        // No answer of ours is longer: `message` writes 65,535 octets at most.
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
