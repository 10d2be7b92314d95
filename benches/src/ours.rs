//! Our data plane on the node of a network, in this process, as `portolan up` has it in its own.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
};

use anyhow::Result;
use portolan_apply::DataPlane;
use portolan_model::{Mapping, PortRange};
use portolan_plan::PlanConfig;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::network::Network;

/// The data plane of a node.
#[derive(Debug)]
pub(crate) struct Ours(DataPlane);

impl Ours {
    /// Starts it on the node with these mappings.
    pub(crate) fn start(network: &Network, mappings: Vec<Mapping>) -> Result<Self> {
        // Its sockets belong to the namespace of the thread that opens them.
        Ok(Self(network.node.run(|| DataPlane::start(PlanConfig::default(), mappings))?))
    }

    /// Adds one mapping and waits until the kernel has it.
    pub(crate) fn add(&self, mapping: &Mapping) -> Result<()> {
        Ok(self.0.add(mapping.clone())?)
    }

    /// Takes one mapping away and waits until the kernel has done so.
    pub(crate) fn remove(&self, mapping: &Mapping) -> Result<()> {
        Ok(self.0.remove(mapping.key())?)
    }

    /// Ends it and deletes its table.
    pub(crate) fn stop(self) -> Result<()> {
        Ok(self.0.stop()?)
    }

    /// Ends it and leaves its table, as a crash does.
    pub(crate) fn abandon(self) {
        drop(self.0);
    }
}

/// Binds every TCP port of the range in the namespace of the calling thread, as the holder does: both IP versions on
/// one socket, bound and never listening.
pub(crate) fn bind_all(range: PortRange) -> io::Result<Vec<Socket>> {
    let bind = |port: u16| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.set_only_v6(false)?;
        socket.bind(&SockAddr::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)))?;
        Ok(socket)
    };
    range.iter().map(bind).collect()
}
