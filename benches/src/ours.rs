//! Our data plane on the node of a network, in this process, as `portolan up` has it in its own.

use anyhow::{Result, bail};
use portolan_model::{Mapping, PortRange};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::network::Network;

/// The data plane and the node it works on.
pub(crate) struct Ours {}

impl Ours {
    /// Starts it on the node.
    pub(crate) fn start(network: &Network) -> Result<Self> {
        let _ = network;
        Ok(Self {})
    }

    pub(crate) fn set(&self, _: &[Mapping]) -> Result<()> {
        bail!("no")
    }
    pub(crate) fn add(&self, _: &[Mapping]) -> Result<()> {
        Ok(())
    }
    pub(crate) fn remove(&self, _: &Mapping) -> Result<()> {
        Ok(())
    }
    pub(crate) fn stop(self) -> Result<()> {
        Ok(())
    }
    pub(crate) fn abandon(self) {}
}

/// Binds every TCP port of the range in the namespace of the calling thread: dual stack, not listening.
pub(crate) fn bind_all(range: PortRange) -> Result<Vec<Socket>> {
    let bind = |port: u16| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.set_only_v6(false)?;
        socket.bind(&SockAddr::from(std::net::SocketAddrV6::new(
            std::net::Ipv6Addr::UNSPECIFIED,
            port,
            0,
            0,
        )))?;
        Ok(socket)
    };
    range.iter().map(bind).collect()
}
