//! F18 to F23: traffic policies where nobody is local, refusals, and source ranges of load balancers.

use std::net::IpAddr;

use serde_json::json;

use super::{NODE, OUTSIDE, POD, SOURCES, family_name, kind};
use crate::proxy::{
    case::Case,
    endpoint::endpoint,
    service::{Protocol, Service, Target, all_kinds, unallocated},
    world::{FAMILIES, Family, Place, node_address},
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = all_kinds().flat_map(|(family, protocol)| nobody(family, protocol)).collect();
    cases.extend(FAMILIES.into_iter().flat_map(ranges));
    cases
}

/// Nobody is there, or nobody who may be used.
fn nobody(family: Family, protocol: Protocol) -> Vec<Case> {
    let new = || Service::new(family, protocol).balancer().external();
    let kind = kind(family, protocol);
    let short = family == Family::V4 && protocol != Protocol::Sctp;
    let node = node_address(1, family);
    let everywhere = |mut case: Case, place: Place, service: &Service, answer: &str| {
        for target in [
            service.at_node(node, protocol),
            service.at_balancer(family, protocol),
            service.at_external(family, protocol),
        ] {
            case = case.ask(place, target, answer);
        }
        case.short_if(short)
    };
    let mut cases = Vec::new();

    let internal = new().internal_local().at(&["2a"]);
    let mut case =
        Case::new(format!("F18 iTP=Local with endpoints elsewhere only is silent, {kind}"), &[&internal]);
    for (_, place) in SOURCES {
        case = case.ask(place, internal.cluster(family, protocol), "silence");
    }
    cases.push(case.short_if(short));
    cases.push(everywhere(
        Case::new(format!("F18 and its external addresses are not concerned, {kind}"), &[]),
        OUTSIDE,
        &internal,
        "2a +m",
    ));

    let external = new().external_local().at(&["2a"]);
    let case = Case::new(
        format!("F19 eTP=Local with endpoints elsewhere only is silent outside, {kind}"),
        &[&external],
    );
    cases.push(everywhere(case, OUTSIDE, &external, "silence"));
    let case = Case::new(format!("F19 and its cluster address is not concerned, {kind}"), &[]);
    cases.push(case.ask(OUTSIDE, external.cluster(family, protocol), "2a +m").short_if(short));
    cases.push(everywhere(
        Case::new(format!("F20 and a Pod of the node takes the short way, {kind}"), &[]),
        POD,
        &external,
        "2a",
    ));
    cases.push(everywhere(
        Case::new(format!("F20 and so does the node, masqueraded, {kind}"), &[]),
        NODE,
        &external,
        "2a +m",
    ));

    let (empty, unready) = (new(), new().endpoints(&[endpoint("1a").conditions(Some(false), None, None)]));
    for (name, service) in [("without slices", &empty), ("with an endpoint that is not ready", &unready)] {
        for (from, place) in SOURCES {
            let first = if from == "pod" { vec![service] } else { Vec::new() };
            let case = Case::new(format!("F21 refused for the {from} {name}, {kind}"), &first).ask(
                place,
                service.cluster(family, protocol),
                "refused",
            );
            cases.push(everywhere(case, place, service, "refused"));
        }
    }
    let both = new().external_local().internal_local();
    let case =
        Case::new(format!("F21 refused with policies Local and no endpoint anywhere, {kind}"), &[&both]);
    cases.push(everywhere(
        case.ask(POD, both.cluster(family, protocol), "refused"),
        OUTSIDE,
        &both,
        "refused",
    ));

    let some = new().at(&["1a"]);
    let mut case =
        Case::new(format!("F22 a cluster address refuses what is none of its ports, {kind}"), &[&some]);
    let mut nowhere = Case::new(format!("F22 an address that no Service has is silent, {kind}"), &[]);
    for (_, place) in SOURCES {
        case = case.ask(place, some.cluster_at(family, protocol, 81), "refused");
        nowhere =
            nowhere.ask(place, Target { protocol, address: (unallocated(family), 80).into() }, "silence");
    }
    cases.extend([case.short_if(short), nowhere.short_if(short)]);
    cases
}

/// F23.
fn ranges(family: Family) -> Vec<Case> {
    let protocol = Protocol::Tcp;
    let all = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
    let whole = |address: IpAddr| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
    let (pod, outside) = (whole(POD.address(family)), whole(OUTSIDE.address(family)));
    let other = if family == Family::V4 { "2001:db8::/32" } else { "192.0.2.0/24" };
    let case = |name: &str, ranges: &[&str], for_pod: &str, for_outside: &str| {
        let service = Service::new(family, protocol)
            .balancer()
            .external()
            .with("loadBalancerSourceRanges", json!(ranges))
            .at(&["1a", "2a"]);
        let balancer = service.at_balancer(family, protocol);
        let case = Case::new(format!("F23 {name}, {}", family_name(family)), &[&service])
            .ask(POD, balancer, for_pod)
            .ask(OUTSIDE, balancer, for_outside)
            .short_if(family == Family::V4);
        (case, service)
    };
    let (yes, no) = ("1a 2a +m", "silence");
    let mut cases = vec![
        case("only a Pod may", &[&pod], yes, no).0,
        case("only the outside may", &[&outside], no, yes).0,
        case("two ranges", &[&pod, &outside], yes, yes).0,
        case("everybody may", &[all], yes, yes).0,
        case("everybody may, beside a narrow range", &[&pod, all], yes, yes).0,
        case(
            "two halves are everybody",
            if family == Family::V4 { &["0.0.0.0/1", "128.0.0.0/1"] } else { &["::/1", "8000::/1"] },
            yes,
            yes,
        )
        .0,
        case("blanks around a range are nothing", &[&format!("  {outside} ")], no, yes).0,
        case(
            "overlapping ranges",
            &[&outside, if family == Family::V4 { "198.51.0.0/16" } else { "2001:db8::/32" }],
            no,
            yes,
        )
        .0,
    ];
    // With ranges of the other family alone nobody of this family may.
    cases.push(case("ranges of both families", &[other, &outside], no, yes).0);
    let (narrow, service) =
        case("node ports, external and cluster addresses have no ranges", &[&pod], yes, no);
    cases.push(
        narrow
            .ask(OUTSIDE, service.at_node(node_address(1, family), protocol), yes)
            .ask(OUTSIDE, service.at_external(family, protocol), yes)
            .ask(OUTSIDE, service.cluster(family, protocol), yes),
    );
    let ranges = [pod.as_str()];
    let local = Service::new(family, protocol)
        .balancer()
        .external_local()
        .with("loadBalancerSourceRanges", json!(ranges))
        .at(&["1a", "2a"]);
    cases.push(
        Case::new(format!("F23 with eTP=Local, {}", family_name(family)), &[&local])
            .ask(POD, local.at_balancer(family, protocol), "1a 2a")
            .ask(OUTSIDE, local.at_balancer(family, protocol), "silence")
            .ask(OUTSIDE, local.at_node(node_address(1, family), protocol), "1a"),
    );
    let empty = Service::new(family, protocol).balancer().with("loadBalancerSourceRanges", json!(ranges));
    cases.push(
        Case::new(
            format!(
                "F23 ranges come before the refusal of a Service without endpoints, {}",
                family_name(family)
            ),
            &[&empty],
        )
        .ask(POD, empty.at_balancer(family, protocol), "refused")
        .ask(OUTSIDE, empty.at_balancer(family, protocol), "silence"),
    );
    cases
}
