//! UDP: a socket towards the backend for each client, so that answers find back.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Options,
    admit::{AddressPlace, Admission, ClientPlace},
    batch::{Batch, Buffers, Socket, Way},
    frontend::Live,
    stats::{Counters, Open},
    tcp::{choose, remember},
};

/// After an error that is of the machine.
const PAUSE: Duration = Duration::from_millis(100);

/// Who sent, and to which address of ours: answers come from there.
type Key = (SocketAddr, IpAddr);

/// A client's way.
#[derive(Debug)]
struct Client {
    backend: SocketAddr,
    socket: Arc<Socket>,
    last: Arc<Clock>,
    task: AbortHandle,
    _places: (ClientPlace, AddressPlace, Open),
}

/// When something came last, in milliseconds after the start of the server.
#[derive(Debug)]
struct Clock {
    start: Instant,
    last: AtomicU64,
}

impl Clock {
    fn now(start: Instant) -> Self {
        let clock = Self { start, last: AtomicU64::new(0) };
        clock.touch();
        clock
    }

    fn touch(&self) {
        self.last.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}

/// Serves one frontend.
#[derive(Debug)]
pub(crate) struct Server {
    front: Arc<Socket>,
    listen: SocketAddr,
    live: watch::Receiver<Arc<Live>>,
    options: Options,
    admission: Arc<Admission>,
    counters: Arc<Counters>,
    /// Nobody new is taken.
    closing: CancellationToken,
    start: Instant,
    clients: HashMap<Key, Client>,
    /// In the order in which they came, or were found to be talking when it was their turn to go.
    order: VecDeque<(Key, Instant)>,
    tasks: JoinSet<Key>,
}

impl Server {
    pub(crate) fn new(
        socket: std::net::UdpSocket,
        live: watch::Receiver<Arc<Live>>,
        options: Options,
        admission: Arc<Admission>,
        counters: Arc<Counters>,
        closing: CancellationToken,
    ) -> io::Result<Self> {
        let listen = socket.local_addr()?;
        Ok(Self {
            front: Arc::new(Socket::new(UdpSocket::from_std(socket)?)?),
            listen,
            live,
            options,
            admission,
            counters,
            closing,
            start: Instant::now(),
            clients: HashMap::new(),
            order: VecDeque::new(),
            tasks: JoinSet::new(),
        })
    }

    /// Works until `end`, or from `closing` on until the last client is silent.
    pub(crate) async fn serve(mut self, end: CancellationToken) {
        let closing = self.closing.clone();
        while !(closing.is_cancelled() && self.clients.is_empty()) {
            tokio::select! {
                () = end.cancelled() => break,
                () = closing.cancelled(), if !closing.is_cancelled() => {}
                changed = self.live.changed() => match changed {
                    Ok(()) => self.look_again(),
                    // The frontend is no more.
                    Err(_) => break,
                },
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(key) = ended {
                        self.forget(key);
                    }
                }
                ready = self.front.readable() => match ready {
                    Ok(()) => self.take().await,
                    Err(error) => pause(&error).await,
                },
            }
        }
        self.tasks.shutdown().await;
    }

    /// Clients whose backend is no longer one begin anew with their next datagram: connection tracking has no end of a
    /// UDP "connection" either, and a proxy that keeps them sends into a void (kubernetes/kubernetes#139628).
    fn look_again(&mut self) {
        let live = Arc::clone(&self.live.borrow_and_update());
        self.clients.retain(|(client, _), way| {
            let stays = live.choice.contains(way.backend) && live.admits(client.ip().to_canonical());
            if !stays {
                way.task.abort();
            }
            stays
        });
    }

    /// An evicted client may have come again, with a task of its own.
    fn forget(&mut self, key: Key) {
        if self.clients.get(&key).is_some_and(|client| client.task.is_finished()) {
            self.clients.remove(&key);
        }
        // Most of those in front have gone by themselves by the time it is their turn.
        while self.order.front().is_some_and(|(key, _)| !self.clients.contains_key(key)) {
            self.order.pop_front();
        }
    }

    /// Receives what is there and passes it on, what one client sent in a row as one batch.
    async fn take(&mut self) {
        let mut buffers = Buffers::take();
        let front = Arc::clone(&self.front);
        loop {
            let (received, joined) = match front.receive(&mut buffers) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return pause(&error).await,
            };
            let mut current: Option<(Key, Arc<Socket>, SocketAddr)> = None;
            let mut run: Vec<(&[u8], usize)> = Vec::new();
            for (meta, bytes) in received {
                let asked = meta.dst_ip.unwrap_or(self.listen.ip()).to_canonical();
                let key = (meta.addr, asked);
                if current.as_ref().is_none_or(|(now, ..)| *now != key) {
                    pass_on(&current, &mut run, joined).await;
                    current = self.way(key).await.map(|(socket, backend)| (key, socket, backend));
                }
                if current.is_some() {
                    self.counters.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    run.push((bytes, meta.stride));
                }
            }
            pass_on(&current, &mut run, joined).await;
        }
    }

    /// The way of a client, a new one if need be.
    async fn way(&mut self, key: Key) -> Option<(Arc<Socket>, SocketAddr)> {
        if let Some(client) = self.clients.get(&key) {
            client.last.touch();
            return Some((Arc::clone(&client.socket), client.backend));
        }
        if self.closing.is_cancelled() {
            return None;
        }
        let address = key.0.ip().to_canonical();
        let live = Arc::clone(&self.live.borrow());
        if !live.admits(address) {
            self.counters.refused();
            return None;
        }
        let Some(own) = self.admission.of(address) else {
            self.counters.refused();
            return None;
        };
        let place = match self.admission.client() {
            Some(place) => place,
            None => {
                self.evict();
                let Some(place) = self.admission.client() else {
                    self.counters.refused();
                    return None;
                };
                place
            }
        };
        match self.open(key, &live, (place, own)).await {
            Ok(way) => Some(way),
            Err(error) => {
                tracing::debug!(client = %key.0, %error, "no way for a client");
                self.counters.failed();
                None
            }
        }
    }

    async fn open(
        &mut self,
        key: Key,
        live: &Live,
        (place, own): (ClientPlace, AddressPlace),
    ) -> io::Result<(Arc<Socket>, SocketAddr)> {
        let client = key.0.ip().to_canonical();
        let backend = choose(live, client, &[]).ok_or(io::ErrorKind::NotConnected)?;
        let any: IpAddr =
            if backend.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(backend).await?;
        // Until then the runtime takes it for full.
        socket.writable().await?;
        remember(live, client, backend);
        let socket = Arc::new(Socket::new(socket)?);
        let last = Arc::new(Clock::now(self.start));
        let answers = Answers {
            front: Arc::clone(&self.front),
            // Only a socket that is bound to all addresses must be told which one was asked.
            way: Way { to: key.0, from: self.listen.ip().is_unspecified().then_some(key.1) },
            backend: Arc::clone(&socket),
            last: Arc::clone(&last),
            counters: Arc::clone(&self.counters),
            idle: self.options.udp_idle,
        };
        let task = self.tasks.spawn(async move {
            answers.bring().await;
            key
        });
        let open = self.counters.open();
        self.order.push_back((key, last.last()));
        let way = Client { backend, socket: Arc::clone(&socket), last, task, _places: (place, own, open) };
        self.clients.insert(key, way);
        Ok((socket, backend))
    }

    /// Forgets one that has been silent for long: the one that came first, unless it has talked since; then it is the
    /// next one's turn ("second chance", so that the search takes a bounded time).
    fn evict(&mut self) {
        for chance in 0..self.order.len() {
            let Some((key, when)) = self.order.pop_front() else { return };
            let Some(client) = self.clients.get(&key) else { continue };
            if client.last.last() > when && chance < 16 {
                self.order.push_back((key, client.last.last()));
                continue;
            }
            client.task.abort();
            self.clients.remove(&key);
            return;
        }
    }
}

/// Sends a run of datagrams to the backend. What does not fit is lost: one slow backend must not hold up others.
async fn pass_on(
    current: &Option<(Key, Arc<Socket>, SocketAddr)>,
    run: &mut Vec<(&[u8], usize)>,
    joined: &mut Vec<u8>,
) {
    if let Some((_, socket, backend)) = current {
        let mut batch = Batch::new(socket, Way { to: *backend, from: None }, false, joined);
        for (bytes, stride) in run.iter() {
            batch.add(bytes, *stride).await;
        }
        batch.flush().await;
    }
    run.clear();
}

async fn pause(error: &io::Error) {
    tracing::debug!(%error, "cannot receive");
    sleep(PAUSE).await;
}

/// Brings the backend's answers to one client, until both have been silent for long.
struct Answers {
    front: Arc<Socket>,
    way: Way,
    backend: Arc<Socket>,
    last: Arc<Clock>,
    counters: Arc<Counters>,
    idle: Duration,
}

impl Answers {
    async fn bring(self) {
        loop {
            tokio::select! {
                ready = self.backend.readable() => if ready.is_err() { return },
                () = sleep_until(self.last.last() + self.idle) => {
                    if self.last.last() + self.idle <= Instant::now() {
                        return;
                    }
                    continue;
                }
            }
            let mut buffers = Buffers::take();
            loop {
                match self.backend.receive(&mut buffers) {
                    Ok((received, joined)) => {
                        self.last.touch();
                        let mut batch = Batch::new(&self.front, self.way, true, joined);
                        for (meta, bytes) in received {
                            self.counters.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                            batch.add(bytes, meta.stride).await;
                        }
                        batch.flush().await;
                    }
                    // The backend does not listen (ICMP); it may, later.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => break,
                }
            }
        }
    }
}
