//! How long a change takes, by the number of mappings and by what is counted: of a running data plane, and of a process
//! that lives for one change. As root: `unshare -n cargo run --release -p portolan-apply --example changes`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use portolan_apply::{Counting, DataPlane, OneShot, PlanConfig};
use portolan_model::{Mapping, PortRange, Protocol};

fn port(protocol: Protocol, host: u16, number: u16) -> Mapping {
    let [high, low] = number.to_be_bytes();
    Mapping {
        protocol,
        address: None,
        host: PortRange::single(host).unwrap(),
        container: 1000 + host % 100,
        v4: Some(Ipv4Addr::new(10, 244, high, low)),
        v6: Some([0xfd00, 0x10, 0x244, 0, 0, 0, 0, number].into()),
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn timed(rounds: usize, mut work: impl FnMut()) -> Duration {
    let one = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    median((0..rounds).map(one).collect())
}

fn main() {
    println!(
        "{:>9} {:<12} {:>10} {:>10} {:>10} {:>12} {:>12} {:>10}",
        "mappings", "counting", "start", "change", "counters", "one, looks", "one, knows", "one, UDP"
    );
    for count in [0u16, 1_000, 10_000] {
        let before: Vec<Mapping> = (0..count).map(|n| port(Protocol::Udp, 20_000 + n, 2 + n / 10)).collect();
        for counting in [Counting::Off, Counting::Connections, Counting::Traffic] {
            let config = PlanConfig {
                local: vec!["10.244.0.0/16".parse().unwrap()],
                direct: vec!["10.244.0.0/16".parse().unwrap(), "10.96.0.0/12".parse().unwrap()],
                counting,
                ..PlanConfig::any()
            };
            let new = port(Protocol::Tcp, 50_000, 2);
            let udp = port(Protocol::Udp, 50_000, 2);
            let after: Vec<Mapping> = before.iter().chain([&new]).cloned().collect();
            let start = Instant::now();
            let plane = DataPlane::start(config.clone(), before.clone()).unwrap();
            let start = start.elapsed();
            let change = timed(300, || {
                plane.add(new.clone()).unwrap();
                plane.remove(new.key()).unwrap();
            }) / 2;
            let counters = timed(10, || drop(plane.counters().unwrap()));
            drop(plane);
            let mut known = None;
            let mut one = |add: &Mapping, after: &[Mapping], knows: bool| {
                let rounds = (0..50).map(|_| {
                    let start = Instant::now();
                    let door = || OneShot::open(config.clone()).unwrap();
                    let add = std::slice::from_ref(add);
                    let done = door().change(&before, &[], add, known.filter(|_| knows)).unwrap();
                    let added = start.elapsed();
                    assert!(done.repaired.is_empty());
                    known = door().change(after, &[add[0].key()], &[], done.known).unwrap().known;
                    added
                });
                median(rounds.collect())
            };
            let (looks, knows) = (one(&new, &after, false), one(&new, &after, true));
            let with_udp: Vec<Mapping> = before.iter().chain([&udp]).cloned().collect();
            let flushes = one(&udp, &with_udp, true);
            println!(
                "{count:>9} {:<12} {start:>10.2?} {change:>10.2?} {counters:>10.2?} {looks:>12.2?} {knows:>12.2?} {flushes:>10.2?}",
                format!("{counting:?}")
            );
            OneShot::open(config).unwrap().clear().unwrap();
        }
    }
}
