//! A node with Pods, another node and the rest of the world around it, each in a namespace of its own.
//!
//! ```text
//!                  ┌ pod0 ── 10.1.0.11    eth1 ── 10.2.0.11, 10.2.0.12, 10.3.0.11, 10.3.0.12 (other nodes' Pods)
//!  192.168.0.2 node┤ pod2 ── 10.1.0.12    eth2 ── 10.2.0.77, 203.0.113.2, 203.0.113.130
//!  192.168.1.2     │ pod1 ── 10.1.0.77    eth3 ── 198.51.100.1
//!                  └ pod17 ─ 10.1.0.78    eth4 ── everything else
//! ```
//!
//! Every host has a link of its own to the node and nowhere else to go, so all answers come back through the node.
//! Addresses are those of [`reference::random`]; each has its counterpart of IPv6.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
};

use portolan_apply::ServicePlane;
use portolan_model::{EndpointSlice, Protocol, Service};
use portolan_netlink::conntrack::{Conntrack, Filter};
use portolan_nft::{Kernel, Nft as _, Transaction};
use portolan_services::ServicesConfig;
use portolan_testkit::net::{End, Namespace, link};

use crate::{
    observe,
    probe::Sender,
    reference::{
        cases::{Ip, VERSIONS},
        random::ADDRESSES,
    },
    servers::Servers,
};

/// The node's side of each host's link, and the host's addresses.
const HOSTS: [(&str, &[&str]); 8] = [
    ("pod0", &["10.1.0.11"]),
    ("pod2", &["10.1.0.12"]),
    ("pod1", &["10.1.0.77"]),
    ("pod17", &["10.1.0.78"]),
    ("eth1", &["10.2.0.11", "10.2.0.12", "10.3.0.11", "10.3.0.12"]),
    ("eth2", &["10.2.0.77", "203.0.113.2", "203.0.113.130"]),
    ("eth3", &["198.51.100.1"]),
    (EVERYTHING_ELSE, &["198.18.0.1"]),
];
/// Where packets go that nobody else gets.
const EVERYTHING_ELSE: &str = "eth4";
/// The networks of addresses that Services have, but the one that is a client too; the host behind that link has them.
const OF_SERVICES: [&str; 5] =
    ["172.30.0.0/16", "192.0.2.0/24", "198.51.100.2/32", "198.51.100.8/29", "198.51.100.16/28"];

pub struct Host {
    pub namespace: Namespace,
    pub interface: &'static str,
    addresses: Vec<IpAddr>,
    sender: Sender,
}

pub struct Site {
    pub node: Namespace,
    pub hosts: Vec<Host>,
    from_node: Sender,
    pub kernel: RefCell<Kernel>,
    next: Cell<u32>,
    pub servers: RefCell<Servers>,
}

impl Site {
    pub fn new() -> Self {
        let node = Namespace::new();
        node.forward();
        node.tell_all_refusals();
        for (path, value) in [
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/default/send_redirects", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
        ] {
            node.sysctl(path, value);
        }
        let hosts = HOSTS.iter().map(|(interface, texts)| Self::host(&node, interface, texts)).collect();
        for text in ADDRESSES {
            for ip in VERSIONS {
                node.ip(&format!("address add {} dev eth1 {}", whole(ip.address(text)), nodad(ip)));
            }
        }
        let from_node = node.run(Sender::open);
        let mut kernel = node.run(|| Kernel::open().unwrap());
        kernel.run(&observe::table().creation()).unwrap();
        let kernel = RefCell::new(kernel);
        let servers = RefCell::new(Servers::start());
        let site = Self { node, hosts, from_node, kernel, next: Cell::new(0), servers };
        site.routes();
        site
    }

    fn host(node: &Namespace, interface: &'static str, texts: &[&str]) -> Host {
        let namespace = Namespace::new();
        for (path, value) in [
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv4/conf/all/accept_redirects", "0"),
            ("net/ipv4/conf/default/accept_redirects", "0"),
            ("net/ipv6/conf/default/accept_redirects", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv6/ip_nonlocal_bind", "1"),
            ("net/ipv4/ip_nonlocal_bind", "1"),
        ] {
            namespace.sysctl(path, value);
        }
        let of_version = |ip: Ip| texts.iter().map(move |text| ip.address(text));
        let addresses: Vec<IpAddr> = VERSIONS.into_iter().flat_map(of_version).collect();
        let written: Vec<String> = addresses.iter().map(|address| whole(*address)).collect();
        let written: Vec<&str> = written.iter().map(String::as_str).collect();
        link(End::new(node, interface, &["fe80::1/64"]), End::new(&namespace, "eth0", &written));
        let sender = namespace.run(Sender::open);
        Host { namespace, interface, addresses, sender }
    }

    fn routes(&self) {
        for host in &self.hosts {
            for address in &host.addresses {
                self.node.route(&format!("{} dev {}", whole(*address), host.interface));
            }
            host.namespace.route(&format!("default via {} dev eth0 onlink", ADDRESSES[0]));
            host.namespace.route("default via fe80::1 dev eth0");
            if host.interface == EVERYTHING_ELSE {
                for address in &host.addresses {
                    let any = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                    self.node.route(&format!("{any} via {address} dev {EVERYTHING_ELSE} onlink"));
                }
                for network in OF_SERVICES {
                    VERSIONS.iter().for_each(|ip| {
                        host.namespace.route(&format!("local {} dev lo", ip.network(network)));
                    });
                }
            }
        }
    }

    /// The node's own addresses, loopback aside.
    pub fn own() -> Vec<IpAddr> {
        ADDRESSES.iter().flat_map(|text| VERSIONS.map(|ip| ip.address(text))).collect()
    }

    /// Who has this address; `None`: the node, or nobody.
    pub fn host_of(&self, address: IpAddr) -> Option<&Host> {
        self.hosts.iter().find(|host| host.addresses.contains(&address))
    }

    /// The one behind that link of the node.
    pub fn behind(&self, interface: &str) -> &Host {
        self.hosts.iter().find(|host| host.interface == interface).unwrap()
    }

    pub fn namespace_of(&self, address: IpAddr) -> &Namespace {
        self.host_of(address).map_or(&self.node, |host| &host.namespace)
    }

    /// Programs these Services anew, with no connection left of others.
    pub fn apply(
        &self,
        config: ServicesConfig,
        services: Vec<Service>,
        slices: Vec<EndpointSlice>,
    ) -> ServicePlane {
        let plane = self.node.run(|| ServicePlane::start(config, services, slices).unwrap());
        assert!(plane.settle().unwrap());
        self.forget();
        plane
    }

    /// Forgets every connection.
    pub fn forget(&self) {
        self.node.run(|| {
            let conntrack = Conntrack::open().unwrap();
            for protocol in Protocol::ALL {
                conntrack.flush(Filter::protocol(protocol), |_| true).unwrap();
            }
        });
    }

    /// Forgets what was seen of raw packets.
    pub fn look_anew(&self) {
        let table = observe::table();
        let mut transaction = Transaction::new(table.table.clone());
        table.sets.into_iter().for_each(|filled| {
            transaction.flush(filled.set);
        });
        self.kernel.borrow_mut().run(&transaction).unwrap();
    }

    /// The next numbers of raw packets: never used again.
    pub fn numbers(&self, count: usize) -> std::ops::Range<u32> {
        let first = self.next.get() + 1;
        self.next.set(first + count as u32);
        first..first + count as u32
    }

    /// Sends a raw packet from the host behind that link of the node, or from the node.
    pub fn send(&self, packet: &portolan_nft::evaluate::Packet, interface: Option<&str>, number: u32) {
        let sender = interface.map_or(&self.from_node, |interface| &self.behind(interface).sender);
        sender.send(packet, number);
    }
}

fn whole(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

fn nodad(ip: Ip) -> &'static str {
    if ip.v4 { "" } else { "nodad" }
}
