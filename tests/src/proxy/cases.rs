//! All cases, by the lines of the behaviour that they are about.
//!
//! F1 to F39 are the numbers of the statements about Kubernetes 1.36 in the plan of the service proxy: what is watched
//! (F1 to F5), endpoints (F6 to F10), what is captured (F11 to F17), policy (F18 to F27), NAT (F28 to F32), conntrack
//! (F33 to F36), health (F37 to F39); W4 to W6 are faults of kube-proxy 1.36.3 that are not to be copied.

use super::{
    case::Case,
    service::Protocol,
    world::{Family, Place},
};

mod addresses;
mod affinity;
mod conntrack;
mod detectors;
mod endpoints;
mod health;
mod hooks;
mod live;
mod oracle;
mod policy;
mod topology;

/// Where most cases ask from: a Pod, its node, and the outside behind it.
pub(crate) const POD: Place = Place::Pod(1, 'c');
pub(crate) const NODE: Place = Place::Node(1);
pub(crate) const OUTSIDE: Place = Place::Outside(1);

/// The three of them with their names.
pub(crate) const SOURCES: [(&str, Place); 3] = [("pod", POD), ("node", NODE), ("outside", OUTSIDE)];

/// Every case. Those that wait for something come first, so that the others run beside them.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(conntrack::cases());
    cases.extend(live::cases());
    cases.extend(affinity::cases());
    cases.extend(health::cases());
    cases.extend(hooks::cases());
    cases.extend(policy::cases());
    cases.extend(addresses::cases());
    cases.extend(endpoints::cases());
    cases.extend(topology::cases());
    cases.extend(detectors::cases());
    cases.extend(oracle::cases());
    cases
}

/// `IPv4 TCP`.
pub(crate) fn kind(family: Family, protocol: Protocol) -> String {
    format!("{} {}", family_name(family), protocol.name())
}

pub(crate) fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}
