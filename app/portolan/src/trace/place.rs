//! This machine as the evaluator needs it: its addresses, interfaces and routes.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Context as _;
use portolan_netlink::route::{Rtnl, Scope};
use portolan_nft::evaluate::{Host, Origin};

/// What is known of this machine.
pub(super) struct Place {
    pub(super) host: Host,
    rtnl: Rtnl,
    names: BTreeMap<u32, String>,
    /// Its addresses, loopback and link-local ones aside.
    pub(super) own: Vec<IpAddr>,
}

impl Place {
    /// This machine, in the network namespace of the calling thread.
    pub(super) fn here() -> anyhow::Result<Self> {
        let read = || -> anyhow::Result<Self> {
            let rtnl = Rtnl::open()?;
            let names: BTreeMap<u32, String> =
                rtnl.links()?.into_iter().map(|link| (link.index, link.name)).collect();
            let mut by_link: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
            let (mut own, mut by_loopback) = (Vec::new(), Vec::new());
            for address in rtnl.addresses()? {
                let ip = address.net.addr();
                by_link.entry(address.index).or_default().push(ip);
                if address.scope == Scope::Global && !ip.is_loopback() {
                    let of_loopback = names.get(&address.index).is_some_and(|name| name == "lo");
                    if of_loopback { &mut by_loopback } else { &mut own }.push(ip);
                }
            }
            // Gateways of instances are there: clients know the machine by the others.
            own.extend(by_loopback);
            let mut host = Host::new();
            for (index, addresses) in &by_link {
                host = host.interface(names.get(index).cloned().unwrap_or_default(), addresses);
            }
            for route in rtnl.routes()? {
                let Some((index, name)) = route.interface.and_then(|it| names.get_key_value(&it)) else {
                    continue;
                };
                let ipv4 = route.destination.addr().is_ipv4();
                let of_family = |address: &IpAddr| address.is_ipv4() == ipv4;
                let first = by_link.get(index).and_then(|all| all.iter().copied().find(of_family));
                let source = route.source.or(first).or_else(|| own.iter().copied().find(of_family));
                if let Some(source) = source {
                    host = host.route(route.destination, name.clone(), source);
                }
            }
            Ok(Self { host, rtnl, names, own })
        };
        read().context("reading this machine's addresses and routes")
    }

    /// Where a packet from this address comes in.
    pub(super) fn origin(&self, source: IpAddr, interface: Option<&str>) -> anyhow::Result<Origin> {
        if let Some(interface) = interface {
            return Ok(Origin::Interface(interface.to_owned()));
        }
        if self.host.is_local(source) {
            return Ok(Origin::Here);
        }
        let route = self.rtnl.lookup(source)?.with_context(|| {
            format!("no route leads to {source}: say with --interface by which interface its packets come")
        })?;
        let name = route.interface.and_then(|index| self.names.get(&index));
        Ok(Origin::Interface(name.cloned().unwrap_or_default()))
    }
}
