//! The server: packets, connections, and their end. [`crate::listen`] has made the sockets.
//!
//! Each listener has one UDP socket and one TCP socket on the same address and port. A packet is answered by
//! [`crate::respond`] in the task that received it, as an answer from the catalog takes microseconds; only what is
//! forwarded gets a task of its own. All of it is bounded: TCP connections in number and time, questions on their
//! way in [`crate::forward`].
//!
//! The sockets are ours and not hickory-server's because that one queues at most 32 UDP answers and drops the rest
//! (`DEFAULT_STREAM_BUFFER_SIZE` of hickory-net 0.26), puts no bound on TCP connections, and sets TC for glue.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use portolan_telemetry::metrics::Metrics;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    forward::Forwarder,
    listen::{DnsError, Listener},
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

/// What a server is made of.
#[derive(Debug)]
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

/// A running server. It ends when this is dropped, and in order by [`Dns::stop`].
#[derive(Debug)]
pub struct Dns {
    addresses: Vec<SocketAddr>,
    tasks: TaskTracker,
    end: tokio_util::sync::DropGuard,
}

impl Dns {
    /// Starts to answer on all listeners, or on none.
    ///
    /// Must be called inside a tokio runtime.
    pub fn start(mut config: DnsConfig, catalog: Arc<impl Catalog>) -> Result<Self, DnsError> {
        let mut sockets = Vec::new();
        for listener in &mut config.listeners {
            sockets.push(listener.bind()?);
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
                serve_udp(bound.udp, responder.clone(), tasks.clone(), token.clone()),
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

    /// Stops listening and gives up the questions that others have not answered yet; returns when nothing is left.
    pub async fn stop(self) {
        drop(self.end);
        self.tasks.wait().await;
    }
}

async fn serve_udp<C: Catalog>(
    socket: UdpSocket,
    responder: Arc<Responder<C>>,
    tasks: TaskTracker,
    token: CancellationToken,
) {
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
                tasks.spawn(token.clone().run_until_cancelled_owned(async move {
                    let bytes = responder.forward(&request, permit).await;
                    send(&socket, &bytes, client).await;
                }));
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
