//! Networks as elements of sets of intervals.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_nft::Element;

use crate::{SetId, SetKind, Version};

/// One interval for each network. Intervals of a set must not overlap, so nested and neighbouring networks are joined.
pub(crate) fn elements(kind: SetKind, networks: &[IpNet]) -> impl Iterator<Item = (SetId, Element)> {
    let networks: Vec<IpNet> = networks.iter().map(IpNet::trunc).collect();
    IpNet::aggregate(&networks).into_iter().map(move |network| {
        let (first, last): (IpAddr, IpAddr) = (network.network(), network.broadcast());
        (SetId::new(kind, Version::of(first)), Element::interval(first.into(), last.into()))
    })
}
