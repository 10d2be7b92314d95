//! Which UDP flows are judged, and when they are stale.
#![allow(clippy::unwrap_used)]

mod objects;

use objects::{endpoint, service, slice};
use portolan_model::{Endpoint, EndpointSlice, Protocol, Service};
use portolan_plan::Flow;
use portolan_services::{Changes, Services, ServicesConfig};

fn udp(service: Service) -> Service {
    let ports = service.ports.iter().cloned();
    let ports = ports.map(|port| portolan_model::ServicePort { protocol: Protocol::Udp, ..port }).collect();
    Service { ports, ..service }
}

fn udp_slice(endpoints: &[Endpoint]) -> EndpointSlice {
    let mut slice = slice("dns", endpoints);
    slice.ports[0].protocol = Protocol::Udp;
    slice
}

/// A client that keeps its port and was led to this endpoint.
fn flow_to(number: u16) -> Flow {
    Flow {
        protocol: Protocol::Udp,
        client: "10.0.9.9:4000".parse().unwrap(),
        asked: "10.96.0.1:80".parse().unwrap(),
        server: (endpoint(number).address, 8080).into(),
        seen: "10.0.9.9:4000".parse().unwrap(),
    }
}

fn is_deleted(services: &Services, changes: &Changes, flow: &Flow) -> bool {
    changes.touched().contains(flow) && services.is_stale(flow, changes.touched(), |_| false)
}

#[test]
fn a_flow_to_an_endpoint_on_its_way_out_is_judged_when_that_is_gone_although_the_table_stays() {
    let leaving = Endpoint { ready: false, terminating: true, ..endpoint(1) };
    let silent = Endpoint { serving: false, ..leaving.clone() };
    for after in [vec![silent, endpoint(2)], vec![endpoint(2)]] {
        let mut services = Services::new(ServicesConfig::default()).unwrap();
        services.set_service(udp(service("dns", 1)));
        services.set_slice(udp_slice(&[endpoint(1)]));

        // It still serves what it has, and gets nothing new.
        let changes = services.set_slice(udp_slice(&[leaving.clone(), endpoint(2)]));
        assert!(!is_deleted(&services, &changes, &flow_to(1)));

        let changes = services.set_slice(udp_slice(&after));
        assert!(changes.is_empty(), "it was on no list: {changes:?}");
        assert!(is_deleted(&services, &changes, &flow_to(1)), "{after:?}");
        assert!(!is_deleted(&services, &changes, &flow_to(2)), "{after:?}");
    }
}
