//! What the owner of Services is told by `up`.

use std::path::PathBuf;

use ipnet::IpNet;
use portolan_model::{PortRange, ServiceNode};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct ServicesSettings {
    pub(crate) data: PathBuf,
    pub(crate) files: Vec<PathBuf>,
    /// As given; a family that is missing gets a range of its own.
    pub(crate) networks: Vec<IpNet>,
    pub(crate) node_ports: PortRange,
    /// Ranges that instances get ports from: not for node ports.
    pub(crate) pools: Vec<PortRange>,
    /// Networks that are somebody else's already.
    pub(crate) taken: Vec<IpNet>,
    pub(crate) node: ServiceNode,
    /// How names of interfaces of instances begin.
    pub(crate) interfaces: String,
    /// Whether the kernel may be asked.
    pub(crate) dataplane: bool,
    /// Node ports also on the loopback.
    pub(crate) localhost: bool,
}
