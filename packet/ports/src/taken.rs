//! The ports that instances have, by protocol and, where a port is on one host address only, by address.

use std::{collections::BTreeMap, net::IpAddr};

use portolan_model::{PortRange, Protocol, Protocols, PublishedPort};

use crate::bitmap::Bitmap;

/// Ports in use.
///
/// Two instances can have one number on different addresses. A port without an address is on all of them and
/// conflicts with every other, as a wildcard socket does.
#[derive(Debug, Default)]
pub struct Taken {
    /// In use on any address: what a random choice avoids.
    bits: [Bitmap; 3],
    /// In use on these addresses only. What is in `bits` and not here is in use on all.
    on_address: BTreeMap<(Protocol, u16), Vec<IpAddr>>,
}

impl Taken {
    /// The ports of a protocol that are in use on any address.
    pub fn bits(&self, protocol: Protocol) -> &Bitmap {
        &self.bits[protocol as usize]
    }

    /// The first of these ports that another has where `address` would answer.
    pub fn conflict(
        &self,
        protocols: Protocols,
        host: PortRange,
        address: Option<IpAddr>,
    ) -> Option<(Protocol, u16)> {
        protocols.iter().find_map(|protocol| {
            let taken = self.bits(protocol);
            // The common case is one look at a few words; single ports are looked at only where something is taken.
            taken.first_in(host)?;
            let mut in_use = host.iter().filter(|&port| taken.contains(port));
            let conflict = in_use.find(|&port| match (address, self.on_address.get(&(protocol, port))) {
                (Some(address), Some(holders)) => holders.iter().any(|&holder| meet(address, holder)),
                _ => true,
            });
            conflict.map(|port| (protocol, port))
        })
    }

    /// As it was written: what is in use on any address, and what of it is on single ones.
    pub fn restore(bits: [Bitmap; 3], addresses: impl Iterator<Item = (Protocol, u16, IpAddr)>) -> Self {
        let mut taken = Self { bits, on_address: BTreeMap::new() };
        for (protocol, port, address) in addresses {
            taken.on_address.entry((protocol, port)).or_default().push(address);
        }
        taken
    }

    /// The ports that are in use on single addresses only.
    pub fn addresses(&self) -> impl Iterator<Item = (Protocol, u16, IpAddr)> {
        self.on_address.iter().flat_map(|(&(protocol, port), addresses)| {
            addresses.iter().map(move |&address| (protocol, port, address))
        })
    }

    /// Notes that `port`, which conflicts with nothing, is in use.
    pub fn insert(&mut self, port: &PublishedPort) {
        for protocol in port.protocols.iter() {
            self.bits[protocol as usize].insert(port.host);
            if let Some(address) = port.address {
                for number in port.host.iter() {
                    self.on_address.entry((protocol, number)).or_default().push(address);
                }
            }
        }
    }

    /// Notes that `port` is in use no more.
    pub fn remove(&mut self, port: &PublishedPort) {
        for protocol in port.protocols.iter() {
            let bits = &mut self.bits[protocol as usize];
            let Some(address) = port.address else {
                bits.remove(port.host);
                continue;
            };
            for number in port.host.iter() {
                let Some(holders) = self.on_address.get_mut(&(protocol, number)) else { continue };
                if let Some(at) = holders.iter().position(|holder| *holder == address) {
                    holders.swap_remove(at);
                }
                if holders.is_empty()
                    && let Ok(single) = PortRange::single(number)
                {
                    self.on_address.remove(&(protocol, number));
                    bits.remove(single);
                }
            }
        }
    }
}

/// Whether two cannot have these addresses: they are the same, or one is all of its family. All of one family and all
/// of the other could, but not in the rules, which have one element for a port on all addresses.
fn meet(one: IpAddr, other: IpAddr) -> bool {
    match (one.is_unspecified(), other.is_unspecified()) {
        (false, false) => one == other,
        (true, true) => true,
        _ => one.is_ipv4() == other.is_ipv4(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host: &str, protocols: &str, address: Option<&str>) -> PublishedPort {
        let host: PortRange = host.parse().unwrap();
        PublishedPort {
            name: "p".parse().unwrap(),
            protocols: protocols.parse().unwrap(),
            host,
            container: host.first(),
            address: address.map(|a| a.parse().unwrap()),
        }
    }

    #[test]
    fn one_number_serves_several_addresses_but_not_together_with_all_of_them() {
        let mut taken = Taken::default();
        let (one, two) = (port("80", "tcp", Some("127.0.0.1")), port("80", "tcp", Some("127.0.0.2")));
        let conflict = |taken: &Taken, p: &PublishedPort| taken.conflict(p.protocols, p.host, p.address);
        taken.insert(&one);
        assert_eq!(conflict(&taken, &two), None);
        taken.insert(&two);
        assert_eq!(conflict(&taken, &one), Some((Protocol::Tcp, 80)));
        assert_eq!(conflict(&taken, &port("70-90", "udp+tcp", None)), Some((Protocol::Tcp, 80)));
        taken.remove(&one);
        assert!(taken.bits(Protocol::Tcp).contains(80), "the other address still has it");
        taken.remove(&two);
        assert!(!taken.bits(Protocol::Tcp).contains(80));
        taken.insert(&port("80", "tcp", None));
        assert_eq!(conflict(&taken, &one), Some((Protocol::Tcp, 80)));
    }

    #[test]
    fn all_addresses_of_one_family_leave_single_ones_of_the_other_to_others() {
        let mut taken = Taken::default();
        let conflict = |taken: &Taken, p: &PublishedPort| taken.conflict(p.protocols, p.host, p.address);
        taken.insert(&port("80", "tcp", Some("0.0.0.0")));
        assert_eq!(conflict(&taken, &port("80", "tcp", Some("127.0.0.1"))), Some((Protocol::Tcp, 80)));
        assert_eq!(conflict(&taken, &port("80", "tcp", Some("::1"))), None);
        assert_eq!(conflict(&taken, &port("80", "tcp", Some("::"))), Some((Protocol::Tcp, 80)));
        assert_eq!(conflict(&taken, &port("80", "tcp", None)), Some((Protocol::Tcp, 80)));
    }
}
