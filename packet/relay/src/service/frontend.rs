//! What is to be served, and how much of it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use ipnet::IpNet;
use portolan_model::{Balance, ObjectName, Protocol};

use super::{Backend, ProxyProtocol, affinity::Affinity, choose::Choice};

/// One address and port on which one port of a Service is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The Service.
    pub service: ObjectName,
    /// The name of its port; empty where it has one without a name.
    pub port: String,
    /// TCP or UDP; others are no relay's.
    pub protocol: Protocol,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Only what came in by `lo`.
    pub loopback_only: bool,
    /// Where clients are sent. Without any, nothing listens, and clients are refused.
    pub backends: Vec<Backend>,
    /// How one is chosen.
    pub balance: Balance,
    /// How long a client stays with its backend after its last new connection.
    pub affinity: Option<Duration>,
    /// Who may; empty: everybody.
    pub source_ranges: Vec<IpNet>,
    /// What TCP backends are told of the client.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Frontend {
    /// One of a Service's port, with everything else as usual.
    pub fn new(
        service: ObjectName,
        port: impl Into<String>,
        protocol: Protocol,
        listen: SocketAddr,
        backends: Vec<Backend>,
    ) -> Self {
        Self {
            service,
            port: port.into(),
            protocol,
            listen,
            loopback_only: false,
            backends,
            balance: Balance::default(),
            affinity: None,
            source_ranges: Vec::new(),
            proxy_protocol: None,
        }
    }

    /// What it is known by.
    pub const fn key(&self) -> FrontendKey {
        FrontendKey { protocol: self.protocol, listen: self.listen }
    }

    /// `NAMESPACE/NAME:PORT`, as logs and metrics name it.
    pub(crate) fn described(&self) -> String {
        if self.port.is_empty() {
            self.service.to_string()
        } else {
            format!("{}:{}", self.service, self.port)
        }
    }
}

/// What nobody else can listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// The protocol.
    pub protocol: Protocol,
    /// Address and port.
    pub listen: SocketAddr,
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.listen, self.protocol)
    }
}

/// How much one process may use, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// TCP connections at once, over all frontends; further ones wait until one ends.
    pub connections: usize,
    /// UDP clients at once, over all frontends; a further one takes the place of the one of its frontend that came
    /// longest ago.
    pub clients: usize,
    /// TCP connections and UDP clients of one address at once; `None`: any number.
    pub each_client: Option<usize>,
    /// Clients whose affinity is remembered, for each port of a Service.
    pub affinity: usize,
    /// How long a connection to a backend may take before another one is tried.
    pub connect: Duration,
    /// A TCP connection that has been silent for so long is cut; `None`: never, dead peers are noticed by keep-alive.
    pub idle: Option<Duration>,
    /// The same when one side has said its last.
    pub half_closed: Duration,
    /// A UDP client that has been silent for so long, in both directions, is forgotten.
    pub udp_idle: Duration,
}

impl Default for Options {
    /// 10,000 connections and 10,000 UDP clients. An hour for half-closed ones is what kube-proxy sets
    /// (`conntrack.tcpCloseWaitTimeout`), two minutes for UDP what connection tracking has (`nf_conntrack_udp_timeout_stream`).
    fn default() -> Self {
        Self {
            connections: 10_000,
            clients: 10_000,
            each_client: None,
            affinity: 100_000,
            connect: Duration::from_secs(5),
            idle: None,
            half_closed: Duration::from_secs(3600),
            udp_idle: Duration::from_secs(120),
        }
    }
}

/// What a listener goes by; replaced as a whole when it changes.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) choice: Choice,
    pub(crate) affinity: Option<(Duration, Arc<Mutex<Affinity>>)>,
    pub(crate) source_ranges: Vec<IpNet>,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
}

impl Live {
    pub(crate) fn new(frontend: &Frontend, affinity: Option<Arc<Mutex<Affinity>>>) -> Self {
        Self {
            choice: Choice::new(frontend.backends.clone(), frontend.balance),
            affinity: frontend.affinity.zip(affinity),
            source_ranges: frontend.source_ranges.clone(),
            proxy_protocol: frontend.proxy_protocol,
        }
    }

    /// Whether a client of this address may come. A range of another family says nothing about it, as in
    /// `loadBalancerSourceRanges`: where only such ranges are, nobody of its family may.
    pub(crate) fn admits(&self, client: IpAddr) -> bool {
        self.source_ranges.is_empty() || self.source_ranges.iter().any(|range| range.contains(&client))
    }
}
