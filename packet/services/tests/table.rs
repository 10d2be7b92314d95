//! The table as text: the kernel takes it, and `nft` prints it as people read it.
#![allow(clippy::unwrap_used)]

mod objects;

use std::time::Duration;

use objects::{endpoint, service, slice};
use portolan_model::{
    AffinityScope, Balance, PortRange, PortSpan, Protocol, Service, ServiceType, TrafficPolicy,
};
use portolan_nft::{Kernel, Nft as _};
use portolan_services::{Counting, LocalDetector, NodePortAddresses, Services, ServicesConfig};
use portolan_testkit::{need_root, net::private_namespace, nft};

/// Something of everything.
pub fn everything(counting: Counting) -> Services {
    let plain = service("plain", 1);
    let sticky = Service {
        affinity: Some(Duration::from_secs(10_800)),
        external_policy: TrafficPolicy::Local,
        kind: ServiceType::LoadBalancer,
        load_balancer_addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        source_ranges: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        ..service("sticky", 2)
    };
    let mut whole = service("whole", 3);
    whole.affinity = Some(Duration::from_secs(60));
    whole.options.affinity_scope = AffinityScope::Service;
    whole.options.spans =
        vec![PortSpan { protocol: Protocol::Udp, ports: PortRange::new(10_000, 20_000).unwrap() }];
    whole.options.whole_address = true;
    whole.options.drain = Some(Duration::from_secs(5));
    whole.external_addresses = vec!["192.0.2.3".parse().unwrap(), "2001:db8::3".parse().unwrap()];
    let mut hashed = service("hashed", 4);
    hashed.options.balance = Balance::Source;
    hashed.internal_policy = TrafficPolicy::Local;
    let empty = service("empty", 5);
    let both = |name: &str, count: u16| {
        let mut all: Vec<_> = (1..=count).map(endpoint).collect();
        all.extend((1..=count).map(|number| portolan_model::Endpoint {
            address: [0xfd00, 0, 0, 0x10, 0, 0, 0, number].into(),
            ..endpoint(number)
        }));
        slice(name, &all)
    };
    let config = ServicesConfig {
        node: portolan_model::ServiceNode {
            name: "own".into(),
            zone: None,
            addresses: vec!["10.1.2.3".parse().unwrap()],
        },
        detector: LocalDetector::Networks(vec![
            "10.0.0.0/16".parse().unwrap(),
            "fd00:0:0:10::/64".parse().unwrap(),
        ]),
        node_ports: NodePortAddresses::All,
        service_networks: vec!["10.96.0.0/16".parse().unwrap(), "fd00::/112".parse().unwrap()],
        counting,
        ..ServicesConfig::default()
    };
    let services = [plain, sticky, whole, hashed, empty];
    Services::load(config, services, ["plain", "sticky", "whole", "hashed"].map(|name| both(name, 3)))
        .unwrap()
}

#[test]
fn the_kernel_has_what_it_was_given_and_nft_prints_it() {
    need_root!();
    for counting in [Counting::Off, Counting::Connections, Counting::Traffic] {
        let services = everything(counting);
        let printed = private_namespace(|| {
            let mut kernel = Kernel::open().unwrap();
            let want = services.ruleset();
            kernel.run(&want.creation()).unwrap();
            let have = kernel.dump(&services.table()).unwrap().unwrap();
            let found = portolan_plan::diff(Some(&have), &want).found;
            assert!(found.is_empty(), "{found:?}");
            nft::nft("list table inet portolan-services")
        });
        for text in [
            r#"tcp . 80 . 10.96.0.1 : ipv4 . "all-3""#,
            "tcp . 80 . 192.0.2.1 : ipv4 . tcp . 80 . 10.96.0.2",
            r#""keep-1-3~10800" : goto port4-keep-1-3-for-10800"#,
            "udp . 10000-20000 . 10.96.0.3",
            "numgen random mod 3 . meta l4proto . th dport . ip daddr",
        ] {
            let seen = counting != Counting::Off && text.starts_with("numgen");
            assert!(seen || printed.contains(text), "{text} in {printed}");
        }
    }
}
