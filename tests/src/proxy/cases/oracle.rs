//! F32: who reaches what and with which source address, the table of TestInternalExternalMasquerade in
//! `pkg/proxy/nftables/proxier_test.go` of Kubernetes v1.36.3, for both families and three protocols.

use super::{SOURCES, kind};
use crate::proxy::{
    case::Case,
    service::{Protocol, Service, all_kinds},
    world::{Family, node_address},
};

/// The columns: to what; then what a Pod, the node and the outside get. `1a` is local, `2a` is not; `+m` is masqueraded.
const TABLE: [(&str, [&str; 3]); 6] = [
    ("clusterIP", ["1a 2a", "1a 2a +m", "1a 2a +m"]),
    ("nodePort and LB", ["1a 2a +m", "1a 2a +m", "1a 2a +m"]),
    ("clusterIP with eTP=Local", ["1a 2a", "1a 2a +m", "1a 2a +m"]),
    ("nodePort and LB with eTP=Local", ["1a 2a", "1a 2a +m", "1a"]),
    ("clusterIP with iTP=Local", ["1a", "1a +m", "1a +m"]),
    ("nodePort and LB with iTP=Local", ["1a 2a +m", "1a 2a +m", "1a 2a +m"]),
];

pub(super) fn cases() -> Vec<Case> {
    all_kinds().flat_map(|(family, protocol)| of(family, protocol)).collect()
}

fn of(family: Family, protocol: Protocol) -> Vec<Case> {
    let mut cases = Vec::new();
    let plain = || Service::new(family, protocol).balancer().at(&["1a", "2a"]);
    let services = [plain(), plain().external_local(), plain().internal_local()];
    for (column, (to, answers)) in TABLE.iter().enumerate() {
        let service = &services[column / 2];
        for ((from, place), answer) in SOURCES.iter().zip(answers) {
            // Each Service is written once, by the first case that is about it.
            let services: &[&Service] = if column % 2 == 0 && *from == "pod" { &[service] } else { &[] };
            let mut case = Case::new(format!("F32 {from} to {to}, {}", kind(family, protocol)), services);
            case = if column % 2 == 0 {
                case.ask(*place, service.cluster(family, protocol), answer)
            } else {
                case.ask(*place, service.at_node(node_address(1, family), protocol), answer).ask(
                    *place,
                    service.at_balancer(family, protocol),
                    answer,
                )
            };
            cases.push(case.short_if(family == Family::V4 && protocol != Protocol::Sctp));
        }
    }
    cases
}
