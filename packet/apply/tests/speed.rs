//! A change costs the same however many mappings there are. The bounds are far above what is measured (`make bench`):
//! they catch a cost that grows with the count, on any machine, under any load.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{block, port};
use portolan_apply::{DataPlane, PlanConfig};
use portolan_model::{Mapping, Protocol};
use portolan_testkit::{need_root, net::private_namespace};

/// The median time of adding and of removing a mapping, one after the other.
fn median(plane: &DataPlane, mapping: &Mapping) -> Duration {
    let mut times: Vec<Duration> = (0..100)
        .flat_map(|_| {
            let start = Instant::now();
            plane.add(mapping.clone()).unwrap();
            let added = start.elapsed();
            plane.remove(mapping.key()).unwrap();
            [added, start.elapsed() - added]
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn ten_thousand_mappings_do_not_make_a_change_slow() {
    need_root!();
    private_namespace(|| {
        let many = (0..10_000)
            .map(|n| port(Protocol::Udp, 20_000 + n, 2 + n / 100, 7000 + n % 100))
            .collect::<Vec<_>>();
        let plane = DataPlane::start(PlanConfig::default(), many).unwrap();
        for mapping in [
            port(Protocol::Udp, 50_000, 2, 1),
            port(Protocol::Tcp, 20_000, 2, 1),
            block(Protocol::Udp, 50_000, 50_999, 2),
        ] {
            let took = median(&plane, &mapping);
            assert!(took < Duration::from_millis(5), "{mapping:?}: {took:?}");
        }
    });
}

#[test]
fn a_thousand_blocks_do_not_make_a_change_slow() {
    need_root!();
    private_namespace(|| {
        let many = (0..1_000).map(|n| block(Protocol::Udp, 1_000 + n * 40, 1_029 + n * 40, 2 + n)).collect();
        let plane = DataPlane::start(PlanConfig::default(), many).unwrap();
        let took = median(&plane, &block(Protocol::Udp, 50_000, 50_999, 2));
        assert!(took < Duration::from_millis(5), "{took:?}");
    });
}
