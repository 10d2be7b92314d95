//! A node of a cluster as a CNI plugin leaves it: Pods on a bridge, a second node, a client outside, and the rules of
//! others.
//!
//! ```text
//! outside 192.0.2.9 ── eth0 192.0.2.1 [node] 198.51.100.1 eth1 ── 198.51.100.2 [other node] ── 10.244.2.2 far Pod
//!                                      │
//!                        cni0 10.244.1.1 (bridge)
//!                          │           │
//!               10.244.1.2 one   two 10.244.1.3
//! ```
//!
//! The bridge's answers from Pod to Pod do not pass the node's rules, unless `br_netfilter` is switched on.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use portolan_apply::{Counting, DataPlane, Placement, PlanConfig};
use portolan_model::{Mapping, PortRange, Protocol};
use portolan_testkit::{
    echo::Echo,
    net::{End, Namespace, link},
    nft,
};

use super::site::{Ip, ask_ip};

/// What kube-proxy and a bridge plugin with `ipMasq` have, both families in one; and a rule for a port of ours, which
/// comes too late. Service 10.96.0.10 is the far Pod, node port 30080 Pod two.
const OTHERS: &str = "
table inet others {
    chain services {
        ip daddr 10.96.0.10 udp dport 53 dnat ip to 10.244.2.2:7777
        ip6 daddr fd00:10:96::10 udp dport 53 dnat ip6 to [fd00:10:244:2::2]:7777
        ip daddr 10.96.0.11 udp dport 20001 dnat ip to 10.244.1.3:7777
        fib daddr type local udp dport 30080 meta mark set meta mark or 0x4000 meta nfproto ipv4 dnat ip to 10.244.1.3:7777
        fib daddr type local th dport 20001 meta l4proto { tcp, udp } meta mark set meta mark or 0x4000 meta nfproto ipv4 dnat ip to 10.244.2.2:9
    }
    chain prerouting { type nat hook prerouting priority dstnat; jump services; }
    chain output { type nat hook output priority -100; jump services; }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        meta mark & 0x4000 == 0x4000 masquerade fully-random
        ip saddr 10.244.1.0/24 ip daddr != 10.244.0.0/16 masquerade
        ip6 saddr fd00:10:244:1::/64 ip6 daddr != fd00:10:244::/48 masquerade
    }
}";

pub struct Cluster {
    pub node: Namespace,
    pub other: Namespace,
    pub outside: Namespace,
    pub far: Namespace,
    /// By number: 2 and 3.
    pods: [Namespace; 2],
}

pub fn node(ip: Ip) -> IpAddr {
    ip.pick("192.0.2.1", "2001:db8:1::1")
}

pub fn outside(ip: Ip) -> IpAddr {
    ip.pick("192.0.2.9", "2001:db8:1::9")
}

pub fn other(ip: Ip) -> IpAddr {
    ip.pick("198.51.100.2", "2001:db8:2::2")
}

pub fn far(ip: Ip) -> IpAddr {
    ip.pick("10.244.2.2", "fd00:10:244:2::2")
}

pub fn service(ip: Ip) -> IpAddr {
    ip.pick("10.96.0.10", "fd00:10:96::10")
}

pub fn pod(number: u16, ip: Ip) -> IpAddr {
    ip.pick(&format!("10.244.1.{number}"), &format!("fd00:10:244:1::{number}"))
}

/// A mapping to Pod `number`.
pub fn port(protocol: Protocol, host: u16, number: u16, container: u16) -> Mapping {
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (pod(number, Ip::V4), pod(number, Ip::V6)) else { unreachable!() };
    let host = PortRange::single(host).unwrap();
    Mapping { protocol, address: None, host, container, v4: Some(v4), v6: Some(v6) }
}

/// A block of Pod `number`.
pub fn block(protocol: Protocol, first: u16, last: u16, number: u16) -> Mapping {
    Mapping { host: PortRange::new(first, last).unwrap(), ..port(protocol, first, number, first) }
}

pub fn config() -> PlanConfig {
    let networks = |all: &[&str]| all.iter().map(|one| one.parse().unwrap()).collect();
    PlanConfig {
        local: networks(&["10.244.1.0/24", "fd00:10:244:1::/64"]),
        direct: networks(&["10.244.0.0/16", "10.96.0.0/12", "fd00:10:244::/48", "fd00:10:96::/112"]),
        pools: vec![PortRange::new(20000, 29999).unwrap()],
        counting: Counting::Connections,
        placement: Placement::Any,
        ..PlanConfig::any()
    }
}

impl Cluster {
    pub fn new() -> Self {
        Self::with(false)
    }

    pub fn with(br_netfilter: bool) -> Self {
        let [node, other, outside, far, one, two] = std::array::from_fn(|_| Namespace::new());
        for namespace in [&node, &other, &outside, &far, &one, &two] {
            namespace.sysctl("net/ipv6/conf/all/accept_dad", "0");
            namespace.sysctl("net/ipv6/conf/default/accept_dad", "0");
        }
        node.forward();
        other.forward();
        for setting in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            if Path::new("/proc/sys/net/bridge").exists() {
                node.sysctl(&format!("net/bridge/{setting}"), if br_netfilter { "1" } else { "0" });
            }
        }
        link(
            End::new(&node, "eth0", &["192.0.2.1/24", "2001:db8:1::1/64"]),
            End::new(&outside, "eth0", &["192.0.2.9/24", "2001:db8:1::9/64"]),
        );
        link(
            End::new(&node, "eth1", &["198.51.100.1/24", "2001:db8:2::1/64"]),
            End::new(&other, "eth1", &["198.51.100.2/24", "2001:db8:2::2/64"]),
        );
        link(
            End::new(&other, "veth0", &["10.244.2.1/24", "fd00:10:244:2::1/64"]),
            End::new(&far, "eth0", &["10.244.2.2/24", "fd00:10:244:2::2/64"]),
        );
        node.ip("link add cni0 type bridge");
        node.ip("link set cni0 up");
        for (number, pod) in [(2, &one), (3, &two)] {
            let interface = format!("veth{number}");
            let (v4, v6) = (format!("10.244.1.{number}/24"), format!("fd00:10:244:1::{number}/64"));
            link(End::new(&node, &interface, &[]), End::new(pod, "eth0", &[&v4, &v6]));
            node.ip(&format!("link set {interface} master cni0"));
            if br_netfilter {
                // What is rewritten to a neighbour is bridged then, and a bridge sends nothing back where it came from
                // unless told so: `hairpinMode` of the bridge plugin.
                node.ip(&format!("link set {interface} type bridge_slave hairpin on"));
            }
        }
        node.ip("address add 10.244.1.1/24 dev cni0");
        node.ip("address add fd00:10:244:1::1/64 dev cni0 nodad");
        for pod in [&one, &two] {
            pod.route("default via 10.244.1.1");
            pod.route("default via fd00:10:244:1::1");
        }
        for (from, gateways) in [
            (&far, ["10.244.2.1", "fd00:10:244:2::1"]),
            (&outside, ["192.0.2.1", "2001:db8:1::1"]),
            (&other, ["198.51.100.1", "2001:db8:2::1"]),
        ] {
            gateways.iter().for_each(|gateway| from.route(&format!("default via {gateway}")));
        }
        node.route("10.244.2.0/24 via 198.51.100.2");
        node.route("fd00:10:244:2::/64 via 2001:db8:2::2");
        node.run(|| nft::load(OTHERS));
        Self { node, other, outside, far, pods: [one, two] }
    }

    pub fn pod(&self, number: u16) -> &Namespace {
        &self.pods[usize::from(number - 2)]
    }

    pub fn plane(&self, mappings: Vec<Mapping>) -> DataPlane {
        self.start(config(), mappings)
    }

    pub fn start(&self, config: PlanConfig, mappings: Vec<Mapping>) -> DataPlane {
        self.node.run(|| DataPlane::start(config, mappings)).unwrap()
    }

    /// Servers of both protocols in a Pod, named after its number, at this port of its address.
    pub fn serve(&self, number: u16, ip: Ip, port: u16) -> [Echo; 2] {
        serve(self.pod(number), &number.to_string(), SocketAddr::new(pod(number, ip), port))
    }

    /// From a client outside: who answers at this port of the node.
    pub fn ask(&self, ip: Ip, protocol: Protocol, port: u16) -> std::io::Result<(String, IpAddr)> {
        ask_ip(&self.outside, protocol, (node(ip), port))
    }
}

pub fn serve(namespace: &Namespace, name: &str, address: SocketAddr) -> [Echo; 2] {
    let address = address.to_string();
    [
        Echo::tcp(namespace, &format!("tcp-{name}"), &address),
        Echo::udp(namespace, &format!("udp-{name}"), &address),
    ]
}
