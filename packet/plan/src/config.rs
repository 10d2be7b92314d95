//! What the rules depend on besides the mappings. Fixed while the data plane runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_model::PortRange;

use crate::PlanError;

/// Names, networks and ranges that the rules are made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanConfig {
    /// The name of our table, of family `inet`. Everything in it is ours; no other table is touched.
    pub table: String,
    /// The networks of the instances' addresses: how their packets are recognised. Networks of one IP version must
    /// not overlap.
    pub instances: Vec<IpNet>,
    /// The source ports for what instances send from ports that are not mapped. It should be the kernel's own range
    /// (`net.ipv4.ip_local_port_range`) and share no port with the pools: a connection that borrowed a pool's port
    /// would receive what a client sends to the instance which is given that port later.
    pub outbound_ports: PortRange,
    /// What the names of the instances' interfaces on this machine begin with, at most 14 bytes. `None`: the
    /// [`protect`](crate::protect) chain is left out.
    pub interfaces: Option<String>,
}

impl Default for PlanConfig {
    /// Table `portolan`, 10.213.0.0/16 and fd70:6f72:746f::/64, 32768-60999 (the kernel's default), no interfaces.
    fn default() -> Self {
        const V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 213, 0, 0), 16);
        const V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd70, 0x6f72, 0x746f, 0, 0, 0, 0, 0), 64);
        let outbound_ports = PortRange::new(32768, 60999).unwrap_or_else(|_| unreachable!("it ascends"));
        Self {
            table: "portolan".to_owned(),
            instances: vec![V4.into(), V6.into()],
            outbound_ports,
            interfaces: None,
        }
    }
}

impl PlanConfig {
    /// Whether an address is in one of the instances' networks.
    pub fn is_instance(&self, address: IpAddr) -> bool {
        self.instances.iter().any(|network| network.contains(&address))
    }

    /// Finds what would make the kernel refuse the rules.
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        let refuse = |why: String| Err(PlanError::Config(why));
        if self.table.is_empty() || self.table.len() > 255 {
            return refuse(format!("the table's name {:?} is not 1 to 255 bytes long", self.table));
        }
        if let Some(prefix) = &self.interfaces
            && !(1..=14).contains(&prefix.len())
        {
            return refuse(format!("the interfaces' prefix {prefix:?} is not 1 to 14 bytes long"));
        }
        for (at, one) in self.instances.iter().enumerate() {
            for other in &self.instances[..at] {
                if one.contains(other) || other.contains(one) {
                    return refuse(format!("the instances' networks {other} and {one} overlap"));
                }
            }
        }
        Ok(())
    }
}
