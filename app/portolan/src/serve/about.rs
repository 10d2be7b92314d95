//! What the server knows of itself, shared by its answers and its registration.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use portolan_cli::ServeArgs;
use portolan_model::{InstancePort, Name, PortRange, Protocol, Protocols};

use super::{address, listen::Sockets};

/// Name, addresses, ports, health.
pub(crate) struct About {
    /// As the registry and the page show it. The tutorial's registry takes any text.
    pub(crate) name: String,
    /// The machine.
    pub(crate) node: String,
    /// Where clients reach it, best first; at least one.
    pub(crate) addresses: Vec<IpAddr>,
    /// By which ports, the page's first.
    pub(crate) ports: Vec<InstancePort>,
    /// Whether `portolan run` started it, and so registers it.
    pub(crate) under_run: bool,
    /// For the uptime.
    pub(crate) started: Instant,
    healthy: AtomicBool,
}

impl About {
    /// Learns it from flags, environment and machine. May ask the cloud's metadata service.
    pub(crate) async fn learn(args: &ServeArgs, sockets: &Sockets) -> anyhow::Result<Self> {
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let name = args
            .name
            .clone()
            .filter(|name| !name.is_empty())
            .or_else(|| variable("PORTOLAN_INSTANCE"))
            .or_else(|| variable("POD_NAME"))
            .unwrap_or_else(|| format!("{node}-{}", sockets.port));
        Ok(Self {
            name,
            node,
            addresses: address::choose(args, &sockets.published).await?,
            ports: ports(sockets)?,
            under_run: variable("PORTOLAN_INSTANCE").is_some(),
            started: Instant::now(),
            healthy: AtomicBool::new(true),
        })
    }

    /// `IP:PORT`, as the tutorial tells it to the registry and to people.
    pub(crate) fn endpoint(&self) -> String {
        let address = self.addresses.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        let port = self.ports.first().map_or(0, |port| port.port.first());
        std::net::SocketAddr::new(address, port).to_string()
    }

    /// Whether `/healthz` says so.
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// From now on `/healthz` answers 503.
    pub(crate) fn turn_unhealthy(&self) {
        self.set(false);
    }

    /// This server ends: from now on `/healthz` answers 503, which is no news to anybody.
    pub(crate) fn end(&self) {
        self.healthy.store(false, Ordering::Relaxed);
    }

    /// From now on `/healthz` answers 200.
    pub(crate) fn turn_healthy(&self) {
        self.set(true);
    }

    /// The other way round.
    pub(crate) fn toggle_health(&self) {
        self.set(!self.is_healthy());
    }

    fn set(&self, healthy: bool) {
        if self.healthy.swap(healthy, Ordering::Relaxed) != healthy {
            tracing::info!(healthy, "health changed");
        }
    }
}

/// What to register: the published ports under `run`, else what the sockets say.
fn ports(sockets: &Sockets) -> anyhow::Result<Vec<InstancePort>> {
    if !sockets.published.is_empty() {
        let mut published = sockets.published.clone();
        // The page is on the first TCP port, which need not be the first of all.
        published.sort_by_key(|port| !port.protocols.contains(Protocol::Tcp));
        let from = |port: portolan_model::PublishedPort| InstancePort {
            name: port.name,
            protocols: port.protocols,
            port: port.host,
            container: Some(port.container).filter(|container| *container != port.host.first()),
        };
        return Ok(published.into_iter().map(from).collect());
    }
    let port = |name, protocols, number| {
        anyhow::Ok(InstancePort {
            name: Name::new(name)?,
            protocols,
            port: PortRange::single(number)?,
            container: None,
        })
    };
    let mut ports = vec![port("http", Protocols::TCP, sockets.port)?];
    if let Some(udp) = &sockets.udp {
        ports.push(port("echo", Protocols::UDP, udp.local_addr()?.port())?);
    }
    Ok(ports)
}
