//! All frontends of one process: told as a whole, made to agree.

use std::{
    collections::{BTreeMap, HashMap},
    net::{TcpListener, UdpSocket},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use portolan_model::{ObjectName, Protocol};
use tokio::sync::watch;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    Frontend, FrontendKey, FrontendStats, ListenError, Options, admit::Admission, affinity::Affinity,
    frontend::Live, listen, stats::Counters, tcp, udp,
};

/// A frontend that listens.
#[derive(Debug)]
struct Running {
    /// As it was asked for.
    frontend: Frontend,
    live: watch::Sender<Arc<Live>>,
    counters: Arc<Counters>,
    /// Of TCP: nobody new comes in when this is dropped. Its connections are tasks of their own.
    _accepting: Option<DropGuard>,
}

/// Whose affinity: a port of a Service, wherever its clients come in.
type ServicePortKey = (ObjectName, String, Protocol);

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<FrontendKey, Running>,
    affinities: HashMap<ServicePortKey, Weak<Mutex<Affinity>>>,
}

/// The user-space proxy. It works in the network namespace of the runtime's threads. Dropped, all of it ends at once.
#[derive(Debug)]
pub struct Relays {
    options: Options,
    admission: Arc<Admission>,
    state: Mutex<State>,
    connections: TaskTracker,
    closing: CancellationToken,
    end: CancellationToken,
}

impl Relays {
    /// One that serves nothing yet.
    pub fn new(options: Options) -> Self {
        let end = CancellationToken::new();
        Self {
            options,
            admission: Admission::new(options.connections, options.clients, options.each_client),
            state: Mutex::default(),
            connections: TaskTracker::new(),
            closing: end.child_token(),
            end,
        }
    }

    /// Serves these and no others, and says which of them cannot be served; ask again for those. Connections stay: with
    /// a backend that is no longer one, and of a frontend that is no more, until one of their ends closes them. Call it
    /// inside a tokio runtime.
    pub fn set(&self, wanted: Vec<Frontend>) -> Vec<ListenError> {
        let mut problems = Vec::new();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = std::mem::take(&mut state.running);
        for frontend in wanted {
            let key = frontend.key();
            // A port on which nobody is served refuses, as the kernel does where a Service has no endpoints.
            if frontend.backends.is_empty() || self.closing.is_cancelled() {
                continue;
            }
            if let Some(first) = state.running.get(&key) {
                let reason =
                    format!("{} is served there: give one of them another port", first.frontend.described());
                problems.push(ListenError { key, service: frontend.described(), reason });
                continue;
            }
            let affinity = frontend.affinity.map(|_| state.affinity(&frontend, self.options.affinity));
            let live = Arc::new(Live::new(&frontend, affinity));
            match running.remove(&key).filter(|one| one.frontend.loopback_only == frontend.loopback_only) {
                Some(mut one) => {
                    if one.frontend != frontend {
                        one.live.send_replace(live);
                        one.frontend = frontend;
                    }
                    state.running.insert(key, one);
                }
                None => match self.start(&frontend, live) {
                    Ok(one) => {
                        state.running.insert(key, one);
                    }
                    Err(reason) => problems.push(ListenError { key, service: frontend.described(), reason }),
                },
            }
        }
        state.affinities.retain(|_, affinity| affinity.strong_count() > 0);
        problems
    }

    fn start(&self, frontend: &Frontend, live: Arc<Live>) -> Result<Running, String> {
        let socket = listen::bind(frontend.key(), frontend.loopback_only)?;
        let (live, receiver) = watch::channel(live);
        let counters = Arc::<Counters>::default();
        let failed = |error: std::io::Error| error.to_string();
        let accepting = match frontend.protocol {
            Protocol::Tcp => {
                let listener =
                    tokio::net::TcpListener::from_std(TcpListener::from(socket)).map_err(failed)?;
                let closing = self.closing.child_token();
                let server = tcp::Server {
                    live: receiver,
                    options: self.options,
                    admission: Arc::clone(&self.admission),
                    counters: Arc::clone(&counters),
                    connections: self.connections.clone(),
                    closing: closing.clone(),
                    end: self.end.clone(),
                };
                self.connections.spawn(server.serve(listener));
                Some(closing.drop_guard())
            }
            _ => {
                let server = udp::Server::new(
                    UdpSocket::from(socket),
                    receiver,
                    self.options,
                    Arc::clone(&self.admission),
                    Arc::clone(&counters),
                    self.closing.clone(),
                )
                .map_err(failed)?;
                self.connections.spawn(server.serve(self.end.clone()));
                None
            }
        };
        tracing::debug!(service = frontend.described(), on = %frontend.key(), "serving");
        Ok(Running { frontend: frontend.clone(), live, counters, _accepting: accepting })
    }

    /// What each of them has done, in the order of ports.
    pub fn stats(&self) -> Vec<FrontendStats> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running.iter().map(|(key, one)| one.counters.read(*key, one.frontend.described())).collect()
    }

    /// Takes nobody new, gives those that are there so long to end by themselves, and ends. Whoever the kernel let in
    /// before is there, also if nobody has read a byte of it yet. Returns how many were cut off: connections, ports with
    /// clients that wait for room, and UDP ports with clients.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.closing.cancel();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            // Sockets of UDP stay open for the clients that they have; those that listen are closed when their queues
            // are empty.
            state.running.retain(|key, _| key.protocol == Protocol::Udp);
        }
        self.connections.close();
        let left = match tokio::time::timeout(grace, self.connections.wait()).await {
            Ok(()) => 0,
            Err(_) => self.connections.len(),
        };
        self.end.cancel();
        self.connections.wait().await;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).running.clear();
        left
    }
}

impl State {
    fn affinity(&mut self, frontend: &Frontend, most: usize) -> Arc<Mutex<Affinity>> {
        let key = (frontend.service.clone(), frontend.port.clone(), frontend.protocol);
        let known = self.affinities.get(&key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let affinity = Arc::new(Mutex::new(Affinity::new(most)));
            self.affinities.insert(key, Arc::downgrade(&affinity));
            affinity
        })
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.end.cancel();
    }
}
