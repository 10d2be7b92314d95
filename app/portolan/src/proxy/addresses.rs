//! The addresses on which node ports answer: chosen by flag, followed as the node's own addresses come and go.
//!
//! kube-proxy looks once, or once an hour. Here the kernel tells (rtnetlink(7), the groups of addresses), so that an
//! address that is added serves node ports at once.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context;
use portolan_netlink::{Bus, NetlinkError, Socket, route::Rtnl};
use portolan_services::NodePortAddresses;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::config::NodePorts;

/// `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR` (include/uapi/linux/rtnetlink.h).
const GROUPS: [u32; 2] = [5, 9];
/// How often the thread looks whether it is to end.
const BREATH: Duration = Duration::from_millis(500);

/// All addresses of the machine's interfaces.
pub(crate) type Local = Arc<BTreeSet<IpAddr>>;

/// Follows them until `stop`, on a thread of its own.
pub(crate) fn follow(stop: CancellationToken) -> anyhow::Result<watch::Receiver<Local>> {
    // First listen, then look, so that nothing is missed in between.
    let socket = Socket::open(Bus::Route).context("listening to the node's addresses")?;
    for group in GROUPS {
        socket.join(group).context("listening to the node's addresses")?;
    }
    let door = Rtnl::open().context("reading the node's addresses")?;
    let (sender, receiver) = watch::channel(look(&door)?);
    std::thread::Builder::new().name("addresses".into()).spawn(move || {
        let mut buffer = Vec::new();
        while !stop.is_cancelled() && !sender.is_closed() {
            match socket.receive(&mut buffer, Some(BREATH)) {
                Ok(false) => continue,
                Ok(true) => while matches!(socket.receive(&mut buffer, Some(Duration::ZERO)), Ok(true)) {},
                // Something was lost: what is there now is what counts.
                Err(NetlinkError::Overrun | NetlinkError::Truncated { .. }) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot hear of the node's addresses; trying again");
                    std::thread::sleep(BREATH);
                }
            }
            match look(&door) {
                Ok(now) => {
                    sender.send_if_modified(|before| {
                        let other = *before != now;
                        *before = now;
                        other
                    });
                }
                Err(error) => tracing::warn!(%error, "cannot read the node's addresses"),
            }
        }
    })?;
    Ok(receiver)
}

fn look(door: &Rtnl) -> anyhow::Result<Local> {
    let all = door.addresses().context("reading the node's addresses")?;
    let usable = all.into_iter().filter(|address| address.usable);
    Ok(Arc::new(usable.map(|address| address.net.addr()).collect()))
}

/// What the choice means with these addresses. As kube-proxy does it, a family that the choice does not name answers on
/// all of its addresses (`pkg/proxy/util/nodeport_addresses.go`).
pub(crate) fn resolve(choice: &NodePorts, primary: &[IpAddr], local: &BTreeSet<IpAddr>) -> NodePortAddresses {
    let chosen = |v4: bool| -> Option<BTreeSet<IpAddr>> {
        let of_family = |address: &&IpAddr| address.is_ipv4() == v4;
        match choice {
            NodePorts::Primary => {
                let primary = primary.iter().filter(|address| !address.is_loopback());
                let primary: BTreeSet<IpAddr> = primary.filter(of_family).copied().collect();
                (!primary.is_empty()).then(|| primary.intersection(local).copied().collect())
            }
            NodePorts::Networks(networks) => {
                let mut networks = networks.iter().filter(|net| net.addr().is_ipv4() == v4).peekable();
                networks.peek()?;
                let networks: Vec<_> = networks.collect();
                if networks.iter().any(|network| network.prefix_len() == 0) {
                    return None;
                }
                let inside = |address: &&IpAddr| networks.iter().any(|network| network.contains(*address));
                Some(local.iter().filter(inside).copied().collect())
            }
        }
    };
    let all = |v4: bool| {
        let of_family = local.iter().filter(move |address| address.is_ipv4() == v4 && !address.is_loopback());
        of_family.copied().collect()
    };
    match (chosen(true), chosen(false)) {
        (None, None) => NodePortAddresses::All,
        (v4, v6) => {
            let mut only = v4.unwrap_or_else(|| all(true));
            only.append(&mut v6.unwrap_or_else(|| all(false)));
            NodePortAddresses::Only(only)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn node_ports_answer_where_the_choice_says() {
        let local = set(&["127.0.0.1", "10.0.0.1", "192.168.0.1", "::1", "fd00::1", "fe80::1"]);
        let networks =
            |texts: &[&str]| NodePorts::Networks(texts.iter().map(|text| text.parse().unwrap()).collect());
        let primary = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        for (what, choice, primary, expected) in [
            ("both primaries", NodePorts::Primary, &primary[..], Some(vec!["10.0.0.1", "fd00::1"])),
            (
                "one primary: the other family is not limited",
                NodePorts::Primary,
                &primary[..1],
                Some(vec!["10.0.0.1", "fd00::1", "fe80::1"]),
            ),
            ("nobody knows a primary", NodePorts::Primary, &[], None),
            ("a network", networks(&["10.0.0.0/8", "::1/128"]), &[], Some(vec!["10.0.0.1", "::1"])),
            ("all of both", networks(&["0.0.0.0/0", "::/0"]), &[], None),
            ("all of one", networks(&["0.0.0.0/0"]), &[], None),
            ("none has it", networks(&["172.16.0.0/12", "fd01::/64"]), &[], Some(vec![])),
        ] {
            let expected =
                expected.map_or(NodePortAddresses::All, |only| NodePortAddresses::Only(set(&only)));
            assert_eq!(resolve(&choice, primary, &local), expected, "{what}");
        }
    }

    #[test]
    fn a_primary_address_that_is_not_here_yet_serves_when_it_comes() {
        let primary = ["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
        let without = resolve(&NodePorts::Primary, &primary, &set(&["10.0.0.1"]));
        assert_eq!(without, NodePortAddresses::Only(BTreeSet::new()));
        let with = resolve(&NodePorts::Primary, &primary, &set(&["10.0.0.1", "10.0.0.9"]));
        assert_eq!(with, NodePortAddresses::Only(set(&["10.0.0.9"])));
    }
}
