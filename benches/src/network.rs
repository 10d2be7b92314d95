//! The network of one contender: a client, a node, and an instance on the node.
//!
//! ```text
//! client 192.0.2.2 ── node 192.0.2.1 | 10.213.0.1 ── instance 10.213.0.2
//!        fd02::2          fd02::1    | fd70:…::1               fd70:…::2
//! ```
//! Each contender has a whole one to itself, because rules of one would be looked at for packets of the other.

use std::net::{Ipv4Addr, Ipv6Addr};

use portolan_model::{Mapping, PortRange, Protocol};
use portolan_testkit::{
    echo::Echo,
    net::{End, Namespace, link},
};

/// Where clients reach the node.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Where the node reaches the instance.
pub(crate) const INSTANCE: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 2);
/// The same in IPv6.
pub(crate) const INSTANCE_6: Ipv6Addr = Ipv6Addr::new(0xfd70, 0x6f72, 0x746f, 0, 0, 0, 0, 2);
/// What the instance listens on, TCP and UDP.
pub(crate) const CONTAINER_PORT: u16 = 8080;
/// The first host port of the mappings that are there already.
pub(crate) const FIRST: u16 = 2_000;
/// The host port of the mapping that is measured.
pub(crate) const MEASURED: u16 = 31_000;

/// Three namespaces and their links.
pub(crate) struct Network {
    pub(crate) client: Namespace,
    pub(crate) node: Namespace,
    pub(crate) instance: Namespace,
}

impl Network {
    /// Makes one.
    pub(crate) fn new() -> Self {
        let (client, node, instance) = (Namespace::new(), Namespace::new(), Namespace::new());
        link(
            End::new(&client, "eth0", &["192.0.2.2/24", "fd02::2/64"]),
            End::new(&node, "eth0", &["192.0.2.1/24", "fd02::1/64"]),
        );
        link(
            End::new(&node, "inst0", &["10.213.0.1/24", "fd70:6f72:746f::1/64"]),
            End::new(&instance, "eth0", &["10.213.0.2/24", "fd70:6f72:746f::2/64"]),
        );
        node.forward();
        client.route("default via 192.0.2.1");
        client.route("default via fd02::1");
        instance.route("default via 10.213.0.1");
        instance.route("default via fd70:6f72:746f::1");
        Self { client, node, instance }
    }

    /// Servers on the instance, on all its addresses.
    pub(crate) fn serve(&self) -> (Echo, Echo) {
        let address = format!("0.0.0.0:{CONTAINER_PORT}");
        (Echo::tcp(&self.instance, "instance", &address), Echo::udp(&self.instance, "instance", &address))
    }
}

/// The mapping that is measured: `host` and as many ports to the instance of the network.
pub(crate) fn measured(protocol: Protocol, host: PortRange) -> Mapping {
    Mapping {
        protocol,
        address: None,
        host,
        container: if host.is_single() { CONTAINER_PORT } else { host.first() },
        v4: Some(INSTANCE),
        v6: Some(INSTANCE_6),
    }
}

/// The address of an instance that is mapped already but does not exist: the `index`-th.
pub(crate) fn other_instance(index: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 213, 1, 0)) + u32::from(index))
}

/// The protocol of what is mapped already: the half is TCP, the half UDP.
pub(crate) const fn other_protocol(index: u16) -> Protocol {
    if index.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp }
}

/// `count` mappings to as many other instances, as they are on a busy node.
pub(crate) fn existing(count: u16) -> Vec<Mapping> {
    (0..count)
        .filter_map(|index| {
            let host = PortRange::single(FIRST.checked_add(index)?).ok()?;
            let v4 = other_instance(index);
            let mut v6 = INSTANCE_6.octets();
            v6[12..16].copy_from_slice(&v4.octets());
            let v6 = Some(Ipv6Addr::from(v6));
            Some(Mapping {
                protocol: other_protocol(index),
                address: None,
                host,
                container: CONTAINER_PORT,
                v4: Some(v4),
                v6,
            })
        })
        .collect()
}
