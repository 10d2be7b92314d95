//! Node ports on the loopback: `localhost:30080`, which the kernel's rules leave out.
//!
//! The rules translate what comes for addresses of the node, but not for 127.0.0.1: that would need `route_localnet`,
//! which opens the node's own services to its neighbours (CVE-2020-8558), and for ::1 there is no such switch at all.
//! Nothing but what came in by `lo` reaches these sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portolan_model::{ObjectName, Protocol};

use super::{Backend, Frontend, FrontendStats, ListenError, Options, Relays};

/// A node port, with the endpoints that the node itself is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNodePort {
    /// The Service, and the name of its port.
    pub service: (ObjectName, String),
    /// The protocol; SCTP is left out.
    pub protocol: Protocol,
    /// The node port.
    pub port: u16,
    /// Where to: what a client on the node may reach whatever the policy for others (F20: the list of all nodes).
    pub backends: Vec<Backend>,
    /// As the Service has it.
    pub affinity: Option<std::time::Duration>,
}

/// All of them.
#[derive(Debug)]
pub struct LocalNodePorts {
    relays: Relays,
}

impl LocalNodePorts {
    /// None yet. The runtime's threads must be in the node's network namespace.
    pub fn new(options: Options) -> Self {
        Self { relays: Relays::new(options) }
    }

    /// Serves these and no others on 127.0.0.1 and ::1, and says which of them cannot be served; ask again for those.
    /// Call it inside a tokio runtime.
    pub fn set(&self, ports: Vec<LocalNodePort>) -> Vec<ListenError> {
        let v6 = has_v6();
        let loopbacks = [Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), v6.then_some(Ipv6Addr::LOCALHOST.into())];
        let frontends = ports.into_iter().filter(|port| port.protocol != Protocol::Sctp).flat_map(|port| {
            loopbacks.into_iter().flatten().map(move |loopback| {
                let (service, name) = port.service.clone();
                let listen = SocketAddr::new(loopback, port.port);
                Frontend {
                    loopback_only: true,
                    affinity: port.affinity,
                    ..Frontend::new(service, name, port.protocol, listen, of_family(&port.backends, loopback))
                }
            })
        });
        self.relays.set(frontends.collect())
    }

    /// What each of them has done.
    pub fn stats(&self) -> Vec<FrontendStats> {
        self.relays.stats()
    }

    /// Ends, with all connections after the grace.
    pub async fn drain(&self, grace: std::time::Duration) {
        self.relays.drain(grace).await;
    }
}

/// The backends of the loopback's family, or all where there are none: in user space either reaches the other.
fn of_family(backends: &[Backend], loopback: IpAddr) -> Vec<Backend> {
    let same: Vec<Backend> =
        backends.iter().copied().filter(|one| one.address.is_ipv4() == loopback.is_ipv4()).collect();
    if same.is_empty() { backends.to_vec() } else { same }
}

/// Whether ::1 is an address here: not with `ipv6.disable=1` or `net.ipv6.conf.lo.disable_ipv6=1`.
fn has_v6() -> bool {
    std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}
