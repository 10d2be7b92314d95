//! Whatever happened, the kernel holds what a start with the objects that are left would make.

use std::collections::BTreeMap;

use portolan_apply::ServiceEvent::{self, RemoveService, RemoveSlice, SetService, SetSlice};
use portolan_model::{EndpointSlice, ObjectName, Protocol, Service, ServiceType, TrafficPolicy};
use portolan_testkit::{net::private_namespace, root_problem, skip};
use proptest::prelude::*;

use crate::{assert_planned, objects, start};

fn services() -> impl Strategy<Value = Service> {
    let policy = || prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)];
    (0..6u32, any::<bool>(), any::<bool>(), policy(), policy(), 0..3u32, any::<u8>()).prop_map(
        |(n, node_port, balancer, internal, external, affinity, bits)| {
            let mut service = objects::service(n);
            if node_port {
                service.kind = ServiceType::NodePort;
                // Two Services may ask for the same one: then one of them has it.
                service.ports[0].node_port = Some(30_000 + (n % 4) as u16);
            }
            if balancer {
                service.kind = ServiceType::LoadBalancer;
                service.load_balancer_addresses = vec![format!("203.0.113.{}", n % 3).parse().unwrap()];
                service.source_ranges = match bits & 3 {
                    0 => vec![],
                    1 => vec!["198.51.100.0/24".parse().unwrap()],
                    _ => vec!["198.51.100.0/24".parse().unwrap(), "192.0.2.0/28".parse().unwrap()],
                };
            }
            (service.internal_policy, service.external_policy) = (internal, external);
            service.affinity =
                (affinity > 0).then(|| std::time::Duration::from_secs(u64::from(affinity) * 60));
            if bits & 4 != 0 {
                service.options.affinity_scope = portolan_model::AffinityScope::Service;
            }
            if bits & 8 != 0 {
                service.options.balance = portolan_model::Balance::Source;
            }
            if bits & 16 != 0 {
                let ports = portolan_model::PortRange::new(5_000, 5_000 + u16::from(bits)).unwrap();
                service.options.spans = vec![portolan_model::PortSpan { protocol: Protocol::Udp, ports }];
            }
            if bits & 32 != 0 {
                service.options.drain = Some(std::time::Duration::from_secs(600));
            }
            service.options.whole_address = bits & 192 == 192;
            service
        },
    )
}

fn slices() -> impl Strategy<Value = EndpointSlice> {
    (0..6u32, 0..2u8, prop::collection::vec((0..12u32, any::<u8>()), 0..12)).prop_map(|(n, part, pods)| {
        let mut slice = objects::slice(n, pods.iter().map(|(pod, _)| *pod));
        slice.name.name = format!("s-{n}-{part}");
        for (endpoint, (_, bits)) in slice.endpoints.iter_mut().zip(&pods) {
            (endpoint.ready, endpoint.terminating) = (bits & 1 == 0, bits & 3 == 3);
            endpoint.serving = endpoint.ready || bits & 4 != 0;
            if bits & 8 != 0 {
                endpoint.node = Some("here".to_owned());
            }
        }
        slice
    })
}

fn events() -> impl Strategy<Value = ServiceEvent> {
    prop_oneof![
        4 => services().prop_map(SetService),
        1 => (0..6u32).prop_map(|n| RemoveService(objects::name(n))),
        4 => slices().prop_map(SetSlice),
        1 => (0..6u32, 0..2u8).prop_map(|(n, part)| RemoveSlice(ObjectName::new("default", format!("s-{n}-{part}")))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_after_any_history_is_that_of_a_start_with_what_is_left(
        history in prop::collection::vec(prop::collection::vec(events(), 1..6), 1..20),
    ) {
        if let Some(problem) = root_problem() {
            skip(problem);
            return Ok(());
        }
        private_namespace(|| {
            let plane = start(&[], &[]);
            let (mut services, mut slices) = (BTreeMap::new(), BTreeMap::new());
            for events in history {
                for event in &events {
                    match event.clone() {
                        SetService(service) => drop(services.insert(service.name.clone(), service)),
                        RemoveService(name) => drop(services.remove(&name)),
                        SetSlice(slice) => drop(slices.insert(slice.name.clone(), slice)),
                        RemoveSlice(name) => drop(slices.remove(&name)),
                    }
                }
                plane.change(events).unwrap();
            }
            assert_eq!(plane.stats().repairs, 0, "{:?}", plane.stats());
            let (services, slices): (Vec<_>, Vec<_>) =
                (services.into_values().collect(), slices.into_values().collect());
            assert_planned(&services, &slices);
        });
    }
}
