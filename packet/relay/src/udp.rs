//! UDP: a socket of its own towards the instance for each client, so that answers find back.

use std::{
    collections::HashMap,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::{
    io::Interest,
    net::UdpSocket,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use crate::relay::{Context, Counted};

/// The largest datagram, or several that the kernel has joined (GRO): never more.
const DATAGRAM: usize = 65_536;
/// After an error that is of the machine.
const PAUSE: Duration = Duration::from_millis(100);

/// Who sent, and to which address of the loopback: answers come from there.
type Key = (SocketAddr, IpAddr);

/// The held socket, and what it takes to learn and to set addresses of single datagrams.
#[derive(Debug)]
struct Front {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// A client's way.
#[derive(Debug)]
struct Client {
    instance: Arc<UdpSocket>,
    last: Arc<Clock>,
    task: AbortHandle,
}

/// When something came last, in milliseconds after the start of the server.
#[derive(Debug)]
struct Clock {
    start: Instant,
    last: AtomicU64,
}

impl Clock {
    fn touch(&self) {
        self.last.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
}

/// Serves one port.
#[derive(Debug)]
pub(crate) struct Server {
    front: Arc<Front>,
    context: Arc<Context>,
    start: Instant,
    clients: HashMap<Key, Client>,
    tasks: JoinSet<Key>,
}

impl Server {
    pub(crate) fn new(socket: std::net::UdpSocket, context: Arc<Context>) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let front = Arc::new(Front { socket: UdpSocket::from_std(socket)?, state });
        Ok(Self { front, context, start: Instant::now(), clients: HashMap::new(), tasks: JoinSet::new() })
    }

    /// Works until `end`. From `closing` on it takes nothing from clients it does not know.
    pub(crate) async fn serve(mut self) {
        let (end, closing) = (self.context.end.clone(), self.context.closing.clone());
        loop {
            if closing.is_cancelled() && self.clients.is_empty() {
                self.context.empty.notify_one();
            }
            tokio::select! {
                () = end.cancelled() => break,
                () = closing.cancelled(), if !closing.is_cancelled() => {}
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(key) = ended {
                        self.forget(key);
                    }
                }
                ready = self.front.socket.readable() => match ready {
                    Ok(()) => self.take().await,
                    Err(error) => self.pause(&error).await,
                },
            }
        }
        self.tasks.shutdown().await;
    }

    async fn pause(&self, error: &io::Error) {
        tracing::debug!(%error, "cannot receive on the loopback");
        tokio::time::sleep(PAUSE).await;
    }

    /// An evicted client may have come again, with a task of its own.
    fn forget(&mut self, key: Key) {
        if self.clients.get(&key).is_some_and(|client| client.task.is_finished()) {
            self.clients.remove(&key);
        }
    }

    /// Receives what is there. The buffer lives as long as there is something: a thousand silent ports need none.
    async fn take(&mut self) {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let front = Arc::clone(&self.front);
            let mut meta = [RecvMeta::default()];
            let received = front.socket.try_io(Interest::READABLE, || {
                front.state.recv((&front.socket).into(), &mut [IoSliceMut::new(&mut buffer)], &mut meta)
            });
            match received {
                Ok(0) => return,
                Ok(_) => self.forward(&meta[0], &buffer[..meta[0].len]).await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.pause(&error).await,
            }
        }
    }

    async fn forward(&mut self, meta: &RecvMeta, bytes: &[u8]) {
        let Some(asked) = meta.dst_ip.map(|address| address.to_canonical()) else { return };
        // The socket's filter lets nothing else in; this is what would be true without it.
        if !asked.is_loopback() {
            return;
        }
        let key = (meta.addr, asked);
        if !self.clients.contains_key(&key) {
            if self.context.closing.is_cancelled() {
                return;
            }
            if let Err(error) = self.open(key).await {
                tracing::debug!(%error, "no socket for a client on the loopback");
                self.context.shared.failed();
                return;
            }
        }
        if let Some(client) = self.clients.get(&key) {
            client.last.touch();
            if bytes.is_empty() {
                send(&client.instance, bytes);
            }
            for datagram in bytes.chunks(meta.stride.max(1)) {
                send(&client.instance, datagram);
            }
        }
    }

    async fn open(&mut self, key: Key) -> io::Result<()> {
        let target = self.context.targets.pick(key.1).ok_or(io::ErrorKind::AddrNotAvailable)?;
        if self.clients.len() >= self.context.limits.clients {
            self.evict();
        }
        let any: IpAddr =
            if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let instance = UdpSocket::bind((any, 0)).await?;
        instance.connect(target).await?;
        // Until then the runtime takes it for full.
        instance.writable().await?;
        let (instance, last) =
            (Arc::new(instance), Arc::new(Clock { start: self.start, last: AtomicU64::new(0) }));
        last.touch();
        let back = answers(
            Arc::clone(&self.front),
            Arc::clone(&instance),
            Arc::clone(&last),
            key,
            self.context.limits.idle,
        );
        let counted = Counted::new(&self.context.shared);
        let task = self.tasks.spawn(async move {
            back.await;
            drop(counted);
            key
        });
        self.clients.insert(key, Client { instance, last, task });
        Ok(())
    }

    /// Forgets the client that has been silent longest.
    fn evict(&mut self) {
        let oldest = self.clients.iter().min_by_key(|(_, client)| client.last.last()).map(|(key, _)| *key);
        if let Some(client) = oldest.and_then(|key| self.clients.remove(&key)) {
            client.task.abort();
            self.context.shared.failed();
        }
    }
}

/// One datagram to the instance. What does not fit is lost, as datagrams may be.
fn send(instance: &UdpSocket, datagram: &[u8]) {
    if let Err(error) = instance.try_send(datagram)
        && error.kind() == io::ErrorKind::ConnectionRefused
    {
        // That was the answer to an earlier one (ICMP), and this one has not been sent.
        let _ = instance.try_send(datagram);
    }
}

/// Brings the instance's answers to one client, until both have been silent for long.
async fn answers(front: Arc<Front>, instance: Arc<UdpSocket>, last: Arc<Clock>, key: Key, idle: Duration) {
    let (client, asked) = key;
    loop {
        let until = last.start + Duration::from_millis(last.last()) + idle;
        tokio::select! {
            ready = instance.readable() => if ready.is_err() { return },
            () = sleep_until(until) => {
                if last.start + Duration::from_millis(last.last()) + idle <= Instant::now() {
                    return;
                }
                continue;
            }
        }
        let mut buffer = vec![0; DATAGRAM];
        loop {
            match instance.try_recv(&mut buffer) {
                Ok(length) => {
                    last.touch();
                    let transmit = Transmit {
                        destination: client,
                        ecn: None,
                        contents: &buffer[..length],
                        segment_size: None,
                        src_ip: Some(asked),
                    };
                    // Refused: lost, as datagrams may be.
                    let send = || front.state.try_send((&front.socket).into(), &transmit);
                    let _ = front.socket.async_io(Interest::WRITABLE, send).await;
                }
                // The instance does not listen (ICMP); it may, later.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
        }
    }
}
