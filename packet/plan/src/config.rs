//! What the rules depend on besides the mappings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_model::PortRange;
use portolan_nft::priority;

use crate::{PlanError, SourcePolicy};

/// Names, networks and ranges that the rules are made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanConfig {
    /// The name of our table, of family `inet`. Everything in it is ours; no other table is touched.
    pub table: String,
    /// Who made the instances' networks.
    pub placement: Placement,
    /// The networks of the instances' addresses: how their packets are recognised. Networks of one IP version must
    /// not overlap. Only with [`Placement::Own`].
    pub instances: Vec<IpNet>,
    /// The source ports for what instances send from ports that are not mapped. It should be the kernel's own range
    /// (`net.ipv4.ip_local_port_range`) and share no port with the pools: a connection that borrowed a pool's port
    /// would receive what a client sends to the instance which is given that port later.
    ///
    /// With [`Placement::Any`] only for connections between instances of this machine by published ports.
    pub outbound_ports: PortRange,
    /// What the names of the instances' interfaces on this machine begin with, at most 14 bytes. `None`: the
    /// [`protect`](crate::protect) chain is left out.
    pub interfaces: Option<String>,
    /// Networks of instances on this machine, any number, in any order, also nested. What one of them sends to another
    /// by a published port gets another source address: on a bridge without `br_netfilter` the answer would not come
    /// back through this machine. Only with [`Placement::Any`].
    pub local: Vec<IpNet>,
    /// Networks that instances reach as themselves, whatever port they send from: those of Pods and Services of the
    /// whole cluster. Only with [`Placement::Any`].
    pub direct: Vec<IpNet>,
    /// Host ports that nobody else on this machine forwards: tracked connections to them that lead elsewhere than the
    /// mappings say are stale. Only with [`Placement::Any`], where addresses do not tell it.
    pub pools: Vec<PortRange>,
    /// Who may reach which host ports; others may reach them all. See [`crate::sources`].
    pub sources: Vec<SourcePolicy>,
    /// What is counted for each mapping. See [`crate::counters`].
    pub counting: Counting,
}

/// Who made the instances' networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// We did: instances have addresses of [`PlanConfig::instances`], and all that they send to the outside leaves by
    /// our rules.
    Own,
    /// Somebody else did, a CNI plugin for example, and may have rules of its own: instances may have any addresses,
    /// only what they send from a mapped port is ours, and our rules come before the usual ones.
    Any,
}

impl Placement {
    /// So much before the usual priority: the first rule that rewrites a connection wins, in whichever table, and
    /// kube-proxy, CNI plugins and container engines are at the usual one.
    pub(crate) const fn priority(self, usual: i32) -> i32 {
        match self {
            Self::Own => usual,
            Self::Any => usual - 5,
        }
    }
}

/// What is counted for each mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counting {
    /// Nothing.
    #[default]
    Off,
    /// Connections, which costs an established connection nothing.
    Connections,
    /// Connections, and packets and bytes in each direction: one lookup for each packet of a rewritten connection.
    Traffic,
}

impl Default for PlanConfig {
    /// Table `portolan`, 10.213.0.0/16 and fd70:6f72:746f::/64, 32768-60999 (the kernel's default), no interfaces,
    /// everybody may reach everything, nothing is counted.
    fn default() -> Self {
        const V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 213, 0, 0), 16);
        const V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd70, 0x6f72, 0x746f, 0, 0, 0, 0, 0), 64);
        let outbound_ports = PortRange::new(32768, 60999).unwrap_or_else(|_| unreachable!("it ascends"));
        Self {
            table: "portolan".to_owned(),
            placement: Placement::Own,
            instances: vec![V4.into(), V6.into()],
            outbound_ports,
            interfaces: None,
            local: Vec::new(),
            direct: Vec::new(),
            pools: Vec::new(),
            sources: Vec::new(),
            counting: Counting::Off,
        }
    }
}

impl PlanConfig {
    /// For a machine whose instances' networks are made by others: [`Placement::Any`] without any network yet.
    pub fn any() -> Self {
        Self { placement: Placement::Any, instances: Vec::new(), ..Self::default() }
    }

    /// Whether an address is in one of the instances' networks. Always with [`Placement::Any`].
    pub fn may_be_instance(&self, address: IpAddr) -> bool {
        self.placement == Placement::Any || contains(&self.instances, address)
    }

    /// Whether instances reach this address as themselves.
    pub(crate) fn is_direct(&self, address: IpAddr) -> bool {
        match self.placement {
            Placement::Own => contains(&self.instances, address),
            Placement::Any => contains(&self.direct, address) || contains(&self.local, address),
        }
    }

    /// The usual priorities, or a little before.
    pub(crate) const fn destination_priority(&self) -> i32 {
        self.placement.priority(priority::DSTNAT)
    }

    pub(crate) const fn source_priority(&self) -> i32 {
        self.placement.priority(priority::SRCNAT)
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
        if self.placement == Placement::Any && !self.instances.is_empty() {
            return refuse("networks of instances are named, and any address may be an instance".to_owned());
        }
        if self.placement == Placement::Own && !(self.local.is_empty() && self.direct.is_empty()) {
            return refuse("local and direct networks are for instances of any address only".to_owned());
        }
        if self.sources.len() > usize::from(u16::MAX) {
            return refuse(format!("{} source policies are more than 65,535", self.sources.len()));
        }
        Ok(())
    }
}

pub(crate) fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}
