//! F24: hints, which the EndpointSlice controller writes and the proxy obeys.

use super::{OUTSIDE, POD, family_name};
use crate::proxy::{
    case::Case,
    endpoint::{Endpoint, endpoint},
    service::{Protocol, Service},
    world::{FAMILIES, Family, Place, node_address},
};

const TCP: Protocol = Protocol::Tcp;

pub(super) fn cases() -> Vec<Case> {
    FAMILIES.into_iter().flat_map(of).collect()
}

fn of(family: Family) -> Vec<Case> {
    let new = |endpoints: &[Endpoint]| Service::new(family, TCP).endpoints(endpoints);
    let (a, b, c) = (&["zone-a"][..], &["zone-b"][..], &["zone-c"][..]);
    let case = |name: &str, endpoints: &[Endpoint], first: &str, second: &str| {
        let service = new(endpoints);
        Case::new(format!("F24 {name}, {}", family_name(family)), &[&service])
            .ask(POD, service.cluster(family, TCP), first)
            .ask(Place::Pod(2, 'c'), service.cluster(family, TCP), second)
            .short_if(family == Family::V4)
    };
    let end = |name: &str| endpoint(name).terminating();
    let mut cases = vec![
        case(
            "each zone has its own",
            &[endpoint("1a").for_zones(a), endpoint("2a").for_zones(b)],
            "1a",
            "2a",
        ),
        case(
            "hints are not where an endpoint is",
            &[endpoint("1a").for_zones(b), endpoint("2a").for_zones(a)],
            "2a",
            "1a",
        ),
        case(
            "an endpoint for two zones",
            &[endpoint("1a").for_zones(&["zone-a", "zone-b"]), endpoint("2a").for_zones(b)],
            "1a",
            "1a 2a",
        ),
        case("one without a hint ends it", &[endpoint("1a").for_zones(a), endpoint("2a")], "1a 2a", "1a 2a"),
        case(
            "a zone for which there is none uses all",
            &[endpoint("1a").for_zones(a), endpoint("1b").for_zones(c)],
            "1a",
            "1a 1b",
        ),
        case(
            "each node has its own",
            &[endpoint("1a").for_nodes(&[1]), endpoint("2a").for_nodes(&[2])],
            "1a",
            "2a",
        ),
        case(
            "a node for which there is none uses all",
            &[endpoint("1a").for_nodes(&[1]), endpoint("1b").for_nodes(&[3])],
            "1a",
            "1a 1b",
        ),
        case(
            "nodes come before zones",
            &[endpoint("1a").for_nodes(&[1]).for_zones(b), endpoint("2a").for_nodes(&[2]).for_zones(a)],
            "1a",
            "2a",
        ),
        case(
            "zones are used where no node matches",
            &[endpoint("1a").for_nodes(&[3]).for_zones(a), endpoint("2a").for_nodes(&[3]).for_zones(b)],
            "1a",
            "2a",
        ),
        case(
            "one without a node's hint ends those only",
            &[endpoint("1a").for_nodes(&[1]).for_zones(b), endpoint("2a").for_zones(a)],
            "2a",
            "1a",
        ),
        case(
            "one that is not ready needs no hint",
            &[
                endpoint("1a").for_zones(a),
                endpoint("2a").for_zones(b),
                endpoint("2b").conditions(Some(false), None, None),
            ],
            "1a",
            "2a",
        ),
        case(
            "those that end are used without regard to hints",
            &[end("1a").for_zones(a), end("2a").for_zones(b)],
            "1a 2a",
            "1a 2a",
        ),
    ];
    let service = new(&[endpoint("1a").for_zones(b), endpoint("2a").for_zones(a)])
        .balancer()
        .external_local()
        .internal_local();
    cases.push(
        Case::new(format!("F24 policies Local do not look at hints, {}", family_name(family)), &[&service])
            .ask(POD, service.cluster(family, TCP), "1a")
            .ask(OUTSIDE, service.at_node(node_address(1, family), TCP), "1a")
            .short_if(family == Family::V4),
    );
    let service = new(&[endpoint("1a").for_zones(b), endpoint("2a").for_zones(a)]).balancer();
    cases.push(
        Case::new(
            format!("F24 hints hold for node ports and load balancers, {}", family_name(family)),
            &[&service],
        )
        .ask(OUTSIDE, service.at_node(node_address(1, family), TCP), "2a +m")
        .ask(OUTSIDE, service.at_balancer(family, TCP), "2a +m"),
    );
    cases
}
