//! Processes that take turns: what one leaves is what the next one finds, whether it looks at everything or not.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use portolan_model::{Attachment, Mapping, PortRanges};
use portolan_ports::{
    HolderMode, Lease, LeaseRequest, Network, Owner, Pool, Pools, Ports, PortsConfig, reserve,
};
use portolan_testkit::{eventually, need_root, net::private_namespace};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use rustix::process::{Pid, Signal, kill_process};
use socket2::Type;

mod support;
use support::{Holders, bind, holder_program};

fn config(folder: &Path) -> PortsConfig {
    let pool = |name: &str, range: &str, seconds| Pool {
        quarantine: Duration::from_secs(seconds),
        ..Pool::new(name.parse().unwrap(), range.parse::<PortRanges>().unwrap())
    };
    PortsConfig {
        folder: folder.to_owned(),
        pools: Pools::new(vec![
            pool("default", "20000-20099,20200-20299", 2),
            pool("media", "21000-21999", 0),
        ])
        .unwrap(),
        holder: HolderMode::Spawn { program: holder_program(), args: Vec::new() },
        holder_socket: None,
        reserved_ports: Some(reserve::PATH.into()),
        patience: Duration::from_secs(10),
        durable: false,
    }
}

fn request(number: u32, life: u32, specs: &[&str]) -> LeaseRequest {
    let id = format!("c{number}-{life}");
    LeaseRequest {
        instance: format!("default/web-{number}").parse().unwrap(),
        incarnation: id.parse().unwrap(),
        owner: Owner::Sandbox { id: id.clone() },
        requests: specs.iter().map(|spec| spec.parse().unwrap()).collect(),
        network: if number.is_multiple_of(7) { Network::Host } else { Network::Own },
        // Some have the same address: the last container's is given again at once.
        v4: Some([10, 88, 0, number as u8 % 8 + 2].into()),
        v6: number.is_multiple_of(2).then(|| format!("fd00:88::{number:x}").parse().unwrap()),
        local: vec!["10.88.0.0/24".parse().unwrap(), format!("fd00:{}::/64", number % 3).parse().unwrap()],
        attachment: Some(Attachment { container: id, interface: "eth0".into(), network: "net".into() }),
    }
}

const WISHES: [&[&str]; 6] = [
    &["http"],
    &["http", "game/tcp+udp"],
    &["media/udp:40,pool=media"],
    &["a=127.0.0.1:8080:", "b/udp=127.0.0.2:8080:"],
    &["web=192.0.2.1:8443:80"],
    &["http", "rtp/udp:10", "sig/sctp"],
];

fn u128_of_v4(address: std::net::Ipv4Addr) -> u128 {
    u32::from(address).into()
}

/// What can be seen of the ports.
type Seen = (Vec<Lease>, BTreeSet<String>, Vec<(u32, u32)>);

fn seen(ports: &mut Ports) -> Seen {
    let leases: Vec<Lease> = ports.leases().cloned().collect();
    let mappings = ports.mappings_except(None).iter().map(|mapping| format!("{mapping:?}")).collect();
    let usage = ports.usage().iter().map(|usage| (usage.free, usage.used)).collect();
    (leases, mappings, usage)
}

#[test]
fn turns_come_to_the_same_as_looking_at_everything() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut random = StdRng::seed_from_u64(11);
        let (mut quick, mut looked) = (0, 0);
        for step in 0..400_u32 {
            let turn = Ports::take_turn(config(folder.path())).unwrap();
            if turn.recovered.is_some() {
                looked += 1
            } else {
                quick += 1
            }
            let mut ports = turn.ports;
            let number = random.random_range(0..25);
            let instance = format!("default/web-{number}").parse().unwrap();
            let known = ports.get(&instance).cloned();
            match (random.random_range(0..10), known) {
                (0..=3, Some(lease)) => {
                    assert!(ports.release(&instance, &lease.request.incarnation).is_some());
                    assert!(ports.get(&instance).is_none());
                }
                (4, Some(lease)) if lease.request.network == Network::Host => {
                    ports.give_up_hold(&instance).unwrap();
                }
                (5, Some(lease)) => {
                    let attachment = lease.request.attachment.clone().unwrap();
                    assert_eq!(ports.of_container(&attachment.container), [&lease]);
                    assert!(ports.of_container("c").is_empty());
                }
                (_, known) => {
                    let wish = WISHES[random.random_range(0..WISHES.len())];
                    let wish = request(number, step, wish);
                    if let Ok(lease) = ports.lease(wish.clone()) {
                        let same = known.filter(|known| {
                            (&known.request.requests, known.request.network) == (&wish.requests, wish.network)
                        });
                        assert!(same.is_none_or(|known| known.ports == lease.ports), "taken over");
                        let mapped: Vec<Mapping> = ports.mappings_except(Some(&instance));
                        assert!(lease.mappings().iter().all(|own| !mapped.contains(own)));
                        let mut concerned = ports.mappings_concerned(&instance, &lease.mappings());
                        let mut expected: Vec<Mapping> = mapped
                            .into_iter()
                            .filter(|other| {
                                lease.mappings().iter().any(|own| {
                                    let same =
                                        |one: Option<_>, other: Option<_>| one.is_some() && one == other;
                                    same(own.v4.map(u128_of_v4), other.v4.map(u128_of_v4))
                                        || same(own.v6.map(u128::from), other.v6.map(u128::from))
                                        || (own.protocol == other.protocol && own.host.overlaps(other.host))
                                })
                            })
                            .collect();
                        concerned.sort_by_key(Mapping::key);
                        expected.sort_by_key(Mapping::key);
                        assert_eq!(concerned, expected);
                    }
                }
            }
            let before = seen(&mut ports);
            if random.random_ratio(1, 20) {
                // Killed.
                drop(ports);
            } else {
                ports.end_turn(Some(step.into()));
            }
            if step % 10 == 9 {
                let (mut ports, recovered) = Ports::open(config(folder.path())).unwrap();
                assert!(
                    recovered.dropped.is_empty()
                        && recovered.damage.is_empty()
                        && recovered.strays.is_empty(),
                    "{recovered:?}"
                );
                let mut after = seen(&mut ports);
                // Quarantine ends with time.
                after.2.iter_mut().zip(&before.2).for_each(|(after, before)| after.0 = before.0);
                assert_eq!(after, before, "step {step}");
            }
        }
        assert!(quick > 300 && looked > 20, "{quick} quick, {looked} looked at everything");
        let _ = random.next_u32();
    });
}

#[test]
fn a_note_comes_to_the_next_turn_and_after_an_accident_everything_is_looked_at() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let turn = |config: PortsConfig| Ports::take_turn(config).unwrap();
        let first = turn(config(folder.path()));
        assert!(first.recovered.is_some() && first.note.is_none());
        let mut ports = first.ports;
        ports.lease(request(1, 1, &["http=8080"])).unwrap();
        let holder = ports.holder_pids()[0];
        ports.end_turn(Some(7));
        let second = turn(config(folder.path()));
        assert_eq!((second.recovered.is_none(), second.note), (true, Some(7)));
        drop(second);
        let third = turn(config(folder.path()));
        assert_eq!((third.recovered.map(|found| found.kept.len()), third.note), (Some(1), None));
        third.ports.end_turn(None);
        // Other pools.
        let mut other = config(folder.path());
        other.pools = Pools::none();
        let fourth = turn(other);
        assert!(fourth.recovered.is_some());
        assert_eq!(fs::read_to_string(reserve::PATH).unwrap().trim(), "");
        fourth.ports.end_turn(None);
        turn(config(folder.path())).ports.end_turn(None);
        // Somebody has overwritten the setting.
        fs::write(reserve::PATH, "\n").unwrap();
        assert!(turn(config(folder.path())).recovered.is_some());
        turn(config(folder.path())).ports.end_turn(None);
        // The holder is gone, and its holds with it.
        kill_process(Pid::from_raw(holder.cast_signed()).unwrap(), Signal::KILL).unwrap();
        eventually(Duration::from_secs(5), || bind(Type::STREAM, "[::]:8080", false).is_ok());
        let next = turn(config(folder.path()));
        assert!(next.recovered.is_some());
        assert!(bind(Type::STREAM, "[::]:8080", false).is_err());
        next.ports.end_turn(None);
        // A damaged index.
        let path = folder.path().join("leases.index");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(&path, bytes).unwrap();
        let next = turn(config(folder.path()));
        assert_eq!(next.recovered.unwrap().kept.len(), 1);
    });
}
