//! A veth pair between two namespaces, with addresses that work at once.

use std::{net::IpAddr, time::Duration};

use super::{Namespace, address_of};
use crate::{eventually, programs};

/// One end of a link: `End::new(&node, "eth0", &["10.0.0.1/24", "fd00::1/64"])`.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    namespace: &'a Namespace,
    interface: &'a str,
    addresses: &'a [&'a str],
}

impl<'a> End<'a> {
    /// An end in `namespace` whose interface has the given name and addresses (with prefix lengths).
    pub fn new(namespace: &'a Namespace, interface: &'a str, addresses: &'a [&'a str]) -> Self {
        Self { namespace, interface, addresses }
    }

    /// Its first address of the family of `like`.
    pub fn address(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().map(|text| address_of(text)).find(|address| address.is_ipv4() == like.is_ipv4())
    }

    fn bring_up(&self) {
        for address in self.addresses {
            // Without nodad an IPv6 address cannot be bound for the two seconds of duplicate address detection.
            let nodad = if address.contains(':') { "nodad" } else { "" };
            self.namespace.ip(&format!("address add {address} dev {} {nodad}", self.interface));
        }
        self.namespace.ip(&format!("link set {} up", self.interface));
    }
}

/// Connects two namespaces by a veth pair and brings both ends up.
#[track_caller]
pub fn link(one: End<'_>, other: End<'_>) {
    programs::run(&mut programs::command(
        "ip",
        [
            "-n",
            one.namespace.name(),
            "link",
            "add",
            one.interface,
            "type",
            "veth",
            "peer",
            "name",
            other.interface,
            "netns",
            other.namespace.name(),
        ],
    ));
    one.bring_up();
    other.bring_up();
    // The carrier and the link-local address come a moment after the second end: a test that compares a machine
    // before and after must not see them come.
    for end in [one, other] {
        let settled = || {
            let link = end.namespace.ip(&format!("-brief address show dev {}", end.interface));
            link.contains(" UP ") && link.contains("fe80:")
        };
        eventually(Duration::from_secs(10), settled);
    }
}
