//! A machine with two instances, a client outside, and a network behind it:
//!
//! ```text
//! outside 192.0.2.9 ── eth0 192.0.2.1 [host] 198.51.100.1 tr0 ── 198.51.100.9 transit
//!                                      │  │
//!                     one 10.213.0.2 ──┘  └── 10.213.0.3 two
//! ```

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use portolan_apply::{DataPlane, PlanConfig};
use portolan_model::{Mapping, Protocol};
use portolan_netlink::conntrack::{Conntrack, Filter, Flow};
use portolan_testkit::{
    ask,
    echo::Echo,
    net::{End, Namespace, link},
};

use super::{v4, v6};

/// The host's interfaces to instances begin so.
pub const INTERFACES: &str = "plv";

pub struct Site {
    pub host: Namespace,
    pub outside: Namespace,
    pub transit: Namespace,
    /// By number: 2 and 3.
    instances: [Namespace; 2],
}

/// The version of IP of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ip {
    V4,
    V6,
}

impl Ip {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn pick(self, v4: &str, v6: &str) -> IpAddr {
        (if self == Self::V4 { v4 } else { v6 }).parse().unwrap()
    }

    /// The host's address to the outside.
    pub fn host(self) -> IpAddr {
        self.pick("192.0.2.1", "2001:db8:1::1")
    }

    /// A second address of it.
    pub fn second(self) -> IpAddr {
        self.pick("192.0.2.2", "2001:db8:1::2")
    }

    /// Its address as the instances' gateway.
    pub fn gateway(self) -> IpAddr {
        self.pick("10.213.0.1", "fd70:6f72:746f::1")
    }

    pub fn outside(self) -> IpAddr {
        self.pick("192.0.2.9", "2001:db8:1::9")
    }

    pub fn transit(self) -> IpAddr {
        self.pick("198.51.100.9", "2001:db8:2::9")
    }

    pub fn instance(self, number: u16) -> IpAddr {
        match self {
            Self::V4 => v4(number).into(),
            Self::V6 => v6(number).into(),
        }
    }

    pub fn loopback(self) -> IpAddr {
        self.pick("127.0.0.1", "::1")
    }
}

impl Site {
    pub fn new() -> Self {
        let [host, outside, transit, one, two] = std::array::from_fn(|_| Namespace::new());
        host.forward();
        for namespace in [&host, &outside, &transit, &one, &two] {
            // Neighbours are asked for from a link-local address, which otherwise is not ready for a second or two.
            namespace.sysctl("net/ipv6/conf/all/accept_dad", "0");
            namespace.sysctl("net/ipv6/conf/default/accept_dad", "0");
        }
        let to_world = ["192.0.2.1/24", "192.0.2.2/24", "2001:db8:1::1/64"];
        link(
            End::new(&host, "eth0", &to_world),
            End::new(&outside, "eth0", &["192.0.2.9/24", "2001:db8:1::9/64"]),
        );
        // Deprecated, so that it is not chosen as a source.
        host.ip("address add 2001:db8:1::2/64 dev eth0 nodad preferred_lft 0");
        link(
            End::new(&host, "tr0", &["198.51.100.1/24", "2001:db8:2::1/64"]),
            End::new(&transit, "eth0", &["198.51.100.9/24", "2001:db8:2::9/64"]),
        );
        for (client, gateways) in
            [(&outside, ["192.0.2.1", "2001:db8:1::1"]), (&transit, ["198.51.100.1", "2001:db8:2::1"])]
        {
            gateways.iter().for_each(|gateway| client.route(&format!("default via {gateway}")));
        }
        let gateway = ["10.213.0.1/32", "fd70:6f72:746f::1/128"];
        for (number, instance) in [(2, &one), (3, &two)] {
            let interface = format!("{INTERFACES}{number}");
            let (v4, v6) = (format!("{}/32", v4(number)), format!("{}/128", v6(number)));
            link(End::new(&host, &interface, &gateway), End::new(instance, "eth0", &[&v4, &v6]));
            for (own, via) in [(&v4, "10.213.0.1"), (&v6, "fd70:6f72:746f::1")] {
                host.route(&format!("{own} dev {interface}"));
                instance.route(&format!("{via} dev eth0"));
                instance.route(&format!("default via {via}"));
            }
        }
        Self { host, outside, transit, instances: [one, two] }
    }

    pub fn instance(&self, number: u16) -> &Namespace {
        &self.instances[usize::from(number - 2)]
    }

    /// Starts the data plane on the host.
    pub fn plane(&self, mappings: Vec<Mapping>) -> DataPlane {
        let config = PlanConfig { interfaces: Some(INTERFACES.to_owned()), ..PlanConfig::default() };
        self.host.run(|| DataPlane::start(config, mappings)).unwrap()
    }

    /// Servers of both protocols in an instance, named after its number, at this port of its address.
    pub fn serve(&self, number: u16, ip: Ip, port: u16) -> [Echo; 2] {
        let address = SocketAddr::new(ip.instance(number), port).to_string();
        let namespace = self.instance(number);
        [
            Echo::tcp(namespace, &format!("tcp-{number}"), &address),
            Echo::udp(namespace, &format!("udp-{number}"), &address),
        ]
    }

    /// The host's tracked flows of a protocol.
    pub fn flows(&self, protocol: Protocol) -> Vec<Flow> {
        self.host.run(|| Conntrack::open().unwrap().flows(Filter::protocol(protocol), |_| true)).unwrap()
    }
}

/// Who answers at `to`, and whom it saw: `("udp-2", 192.0.2.9)`.
pub fn ask_ip(from: &Namespace, protocol: Protocol, to: (IpAddr, u16)) -> io::Result<(String, IpAddr)> {
    let answer = from.run(|| match protocol {
        Protocol::Tcp => ask::tcp(to),
        _ => ask::udp(to),
    })?;
    Ok(split(&answer)).map(|(name, seen)| (name, seen.ip()))
}

/// The same over a socket of the test's.
pub fn ask_on(socket: &UdpSocket, to: (IpAddr, u16)) -> io::Result<(String, SocketAddr)> {
    ask::udp_on(socket, to.into(), ask::PATIENCE).map(|answer| split(&answer))
}

pub fn split(answer: &str) -> (String, SocketAddr) {
    let (name, seen) = answer.split_once(' ').unwrap();
    (name.to_owned(), seen.parse().unwrap())
}

/// A UDP socket in a namespace, with this local address and port.
pub fn udp(namespace: &Namespace, address: IpAddr, port: u16) -> UdpSocket {
    namespace.run(|| UdpSocket::bind((address, port))).unwrap()
}
