//! Leases against the real kernel: what users are promised, and what happens after accidents.
#![allow(clippy::unwrap_used)]

use std::{
    ffi::CStr,
    fs,
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use portolan_model::PortRanges;
use portolan_netlink::process::PidIdentity;
use portolan_ports::{
    HolderMode, Lease, LeaseRequest, Network, Pool, Pools, Ports, PortsConfig, PortsError, Recovered, owner,
    reserve,
};
use portolan_testkit::{
    Background, eventually, need_root,
    net::{private_machine, private_namespace},
};
use rustix::{
    mount::{MountFlags, mount, mount_bind, mount_remount},
    process::{Pid, Signal, kill_process},
};
use socket2::Type;

mod support;
use support::{Holders, bind, connect_tcp, example, holder_program};

fn config(folder: &Path, pools: &[(&str, &str)]) -> PortsConfig {
    let pool =
        |(name, range): &(&str, &str)| Pool::new(name.parse().unwrap(), range.parse::<PortRanges>().unwrap());
    PortsConfig {
        folder: folder.to_owned(),
        pools: Pools::new(pools.iter().map(pool).collect()).unwrap(),
        holder: HolderMode::Spawn { program: holder_program(), args: Vec::new() },
        holder_socket: None,
        reserved_ports: Some(reserve::PATH.into()),
        patience: std::time::Duration::ZERO,
        durable: true,
    }
}

fn open(folder: &Holders) -> (Ports, Recovered) {
    Ports::open(config(folder.path(), &[("default", "20000-29999"), ("tiny", "30000-30003")])).unwrap()
}

fn request(instance: &str, incarnation: &str, specs: &[&str]) -> LeaseRequest {
    LeaseRequest {
        instance: instance.parse().unwrap(),
        incarnation: incarnation.parse().unwrap(),
        owner: owner::this_process().unwrap(),
        requests: specs.iter().map(|spec| spec.parse().unwrap()).collect(),
        network: Network::Own,
        v4: None,
        v6: None,
        local: Vec::new(),
        attachment: None,
    }
}

fn end(ports: &mut Ports, lease: &Lease) {
    assert!(ports.release(&lease.request.instance, &lease.request.incarnation).is_some());
}

fn is_held(port: u16) -> bool {
    bind(Type::STREAM, &format!("[::]:{port}"), true).is_err()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

#[test]
fn a_leased_port_is_held_and_an_ended_one_is_not() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let lease = ports.lease(request("web-0", "1", &["http", "game/tcp+udp", "rtp/udp:100"])).unwrap();
        let [http, game, rtp] = &lease.ports[..] else { panic!("{lease:?}") };
        for port in [http.host.first(), game.host.first()] {
            assert!((20_000..30_000).contains(&port) && is_held(port), "{port}");
        }
        assert!(bind(Type::DGRAM, &format!("[::]:{}", game.host.first()), true).is_err());
        assert_eq!((rtp.host.count(), rtp.host.first() % 64, rtp.container), (100, 0, rtp.host.first()));
        let refused = connect_tcp(&format!("127.0.0.1:{}", http.host)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        end(&mut ports, &lease);
        assert!(!is_held(http.host.first()));
        // 102, or 101 when the TCP port has a number within the UDP block.
        assert!(ports.usage()[0].quarantined >= 101);
        assert_eq!(ports.close().kept, 0);
    });
}

#[test]
fn a_static_port_that_is_taken_is_refused_with_the_name_of_the_process() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let _server = TcpListener::bind("127.0.0.1:8443").unwrap();
        let error = ports.lease(request("web-0", "1", &["x", "web=8443"])).unwrap_err();
        let own = format!("(process {}): end it, or ask for another port", std::process::id());
        let text = error.to_string();
        assert!(
            text.starts_with("port web: host port 8443/tcp is in use by ") && text.ends_with(&own),
            "{text}"
        );
        assert_eq!(ports.leases().count() + ports.usage()[0].used as usize, 0, "nothing of it was leased");
        ports.lease(request("web-1", "1", &["web=8444"])).unwrap();
        let error = ports.lease(request("web-2", "1", &["web=8444"])).unwrap_err().to_string();
        assert!(error.contains("host port 8444/tcp is leased already: web-1 has it (process "), "{error}");
        let error = ports.lease(request("web-3", "1", &["web=192.0.2.7:8445:"])).unwrap_err().to_string();
        assert!(error.ends_with("(os error 99); the address is not one of this machine's"), "{error}");
    });
}

#[test]
fn a_static_port_in_time_wait_is_told_as_such_unless_its_server_allowed_another() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        for (port, allowed) in [(8443, false), (8444, true)] {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            let server = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            // Connections inherit it from what listens.
            server.set_reuse_address(allowed).unwrap();
            server.bind(&address.into()).unwrap();
            server.listen(1).unwrap();
            let client = TcpStream::connect(address).unwrap();
            // The side that closes first waits.
            drop(server.accept().unwrap());
            drop(client);
            drop(server);
            let leased = ports.lease(request(&format!("web-{port}"), "1", &[&format!("web={port}")]));
            if allowed {
                leased.unwrap();
            } else {
                let error = leased.unwrap_err().to_string();
                assert!(error.contains("is in use by connections that are still closing"), "{error}");
            }
        }
    });
}

#[test]
fn a_random_port_that_a_foreign_process_has_is_passed_over() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let _foreign = [30_000, 30_001, 30_003].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
        let lease = ports.lease(request("web-0", "1", &["http,pool=tiny"])).unwrap();
        assert_eq!(lease.ports[0].host.first(), 30_002);
        let error = ports.lease(request("web-1", "1", &["http,pool=tiny"])).unwrap_err().to_string();
        assert!(
            error.contains("the pool tiny (30000-30003) has no free port for tcp: 1 of 4 in use"),
            "{error}"
        );
        let tiny = ports.usage().into_iter().find(|usage| usage.pool.as_str() == "tiny").unwrap();
        assert_eq!((tiny.used, tiny.quarantined, tiny.free, tiny.failed), (1, 3, 0, 1));
        // A block finds its place beside foreign sockets too.
        let _in_the_way = TcpListener::bind("127.0.0.1:20481").unwrap();
        let block = ports.lease(request("web-2", "1", &["b/tcp:9000"])).unwrap();
        assert!(!block.ports[0].host.contains(20_481));
    });
}

#[test]
fn after_a_kill_the_same_instances_have_the_same_ports_and_what_is_nobodys_is_gone() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut doomed = sleeper();
        let (own, other) = (std::process::id().to_string(), doomed.id().to_string());
        let mut command = Command::new(example("up"));
        command.arg(folder.path()).arg(holder_program());
        // On both protocols, so that the block cannot have the number on the other one and count it as used.
        command.args(["web-0", &own, "http/tcp+udp", "web-1", &own, "rtp/udp:100"]);
        command.args(["web-2", &other, "http/tcp+udp"]);
        let mut up = Background::start(&mut command);
        eventually(Duration::from_secs(30), || up.stdout().contains("waiting"));
        up.signal(Signal::KILL);
        up.wait(Duration::from_secs(10));
        let leases: Vec<Lease> = up
            .stdout()
            .lines()
            .filter_map(|line| line.strip_prefix("leased "))
            .map(|json| serde_json::from_str(json).unwrap())
            .collect();
        assert_eq!(leases.len(), 3);
        let gone = leases[2].ports[0].host.first();
        assert!(is_held(leases[0].ports[0].host.first()) && is_held(gone), "the holder lives on");
        assert!(fs::read_to_string(reserve::PATH).unwrap().starts_with("20000-29999"));
        doomed.kill().unwrap();
        doomed.wait().unwrap();

        let (mut ports, recovered) =
            Ports::open(config(folder.path(), &[("default", "20000-29999")])).unwrap();
        assert_eq!(recovered.kept, leases[..2]);
        assert_eq!(recovered.dropped.iter().map(|(lease, _)| lease).collect::<Vec<_>>(), [&leases[2]]);
        assert_eq!(recovered.strays.len(), 2, "one for each protocol");
        assert!(
            recovered.damage.is_empty() && recovered.unheld.is_empty() && recovered.unprotected.is_none()
        );
        assert!(is_held(leases[0].ports[0].host.first()) && !is_held(gone));
        assert_eq!(ports.usage()[0].quarantined, 1, "what the dead had is kept from others for a while");
        for lease in &leases[..2] {
            end(&mut ports, lease);
        }
        let holders = ports.holder_pids();
        assert_eq!(ports.close().problems, Vec::<String>::new());
        eventually(Duration::from_secs(5), || {
            holders.iter().all(|pid| PidIdentity::of(*pid).is_none_or(|p| !p.is_alive()))
        });
        assert_eq!(fs::read_to_string(reserve::PATH).unwrap().trim(), "");
    });
}

#[test]
fn former_ports_and_quarantine_outlast_a_restart() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let lease = ports.lease(request("web-0", "1", &["http,pool=tiny", "rtp/udp:10"])).unwrap();
        end(&mut ports, &lease);
        ports.close();
        let (mut ports, recovered) = open(&folder);
        assert!(recovered.kept.is_empty() && recovered.dropped.is_empty());
        let taken: Vec<_> = (1..=3)
            .map(|n| ports.lease(request(&format!("other-{n}"), "1", &["http,pool=tiny"])).unwrap())
            .map(|lease| lease.ports[0].host)
            .collect();
        assert!(!taken.contains(&lease.ports[0].host), "still in quarantine");
        let again = ports.lease(request("web-0", "2", &["http,pool=tiny", "rtp/udp:10"])).unwrap();
        assert_eq!(again.ports, lease.ports);
    });
}

#[test]
fn a_killed_holder_is_noticed_and_its_ports_are_held_again() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let one = ports.lease(request("web-0", "1", &["http"])).unwrap();
        let two = ports.lease(request("web-1", "1", &["http"])).unwrap();
        let numbers = [one.ports[0].host.first(), two.ports[0].host.first()];
        kill(ports.holder_pids()[0]);
        eventually(Duration::from_secs(5), || !is_held(numbers[0]));
        // In between somebody takes one of them.
        let foreign = bind(Type::STREAM, &format!("[::]:{}", numbers[1]), false).unwrap();
        let done = ports.maintain();
        assert!(done.dropped.is_empty() && done.problems.is_empty(), "{done:?}");
        assert!(is_held(numbers[0]));
        assert_eq!(ports.unheld().collect::<Vec<_>>(), [&two.request.instance]);
        drop(foreign);
        ports.maintain();
        assert!(is_held(numbers[1]));
        assert_eq!(ports.unheld().count(), 0);
    });
}

#[test]
fn a_lease_ends_with_its_process() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let mut supervisor = sleeper();
        let mut asked = request("web-0", "1", &["http"]);
        asked.owner = owner::process(supervisor.id()).unwrap();
        let lease = ports.lease(asked).unwrap();
        let error = ports.lease(request("web-0", "2", &["http"])).unwrap_err().to_string();
        assert!(error.starts_with("the instance web-0 has a lease already, of process "), "{error}");
        assert!(ports.maintain().dropped.is_empty());
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        assert_eq!(ports.maintain().dropped, std::slice::from_ref(&lease));
        assert!(!is_held(lease.ports[0].host.first()));
        let next = ports.lease(request("web-0", "2", &["http"])).unwrap();
        assert_eq!(next.ports, lease.ports);
    });
}

#[test]
fn asking_twice_is_one_lease_and_a_late_release_of_a_former_life_is_nothing() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let first = ports.lease(request("web-0", "1", &["http"])).unwrap();
        assert_eq!(ports.lease(request("web-0", "1", &["http"])).unwrap(), first);
        let second = ports.lease(request("web-0", "2", &["http"])).unwrap();
        assert_eq!(second.ports, first.ports);
        assert_eq!(ports.release(&first.request.instance, &first.request.incarnation), None);
        assert!(is_held(first.ports[0].host.first()));
        let other = ports.lease(request("web-0", "3", &["http", "more"])).unwrap();
        assert_eq!((other.ports.len(), &other.ports[0]), (2, &first.ports[0]));
        end(&mut ports, &other);
        assert_eq!(ports.release(&other.request.instance, &other.request.incarnation), None);
    });
}

#[test]
fn on_the_hosts_network_the_process_binds_the_port_itself() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let mut asked = request("web-0", "1", &["http"]);
        asked.network = Network::Host;
        let lease = ports.lease(asked).unwrap();
        let (name, number) = (&lease.request.instance, lease.ports[0].host.first());
        ports.give_up_hold(name).unwrap();
        let server = TcpListener::bind(("::", number)).unwrap();
        assert!(ports.maintain().strays.is_empty());
        assert!(!ports.hold_again(name).unwrap(), "the process still has it");
        drop(server);
        ports.maintain();
        assert!(is_held(number));
        ports.give_up_hold(name).unwrap();
        drop(ports);
        let (mut ports, recovered) = open(&folder);
        assert_eq!(recovered.kept.len(), 1);
        assert!(!is_held(number), "a restart does not take the port from the process");
        assert!(ports.hold_again(name).unwrap());
        assert!(is_held(number));
        let sockets = ports.take_sockets(name).unwrap();
        assert_eq!(sockets.iter().map(|s| (s.name.as_str(), s.port)).collect::<Vec<_>>(), [("http", number)]);
        let mut shifted = request("web-1", "1", &["web=8080:80"]);
        shifted.network = Network::Host;
        let error = ports.lease(shifted).unwrap_err();
        assert!(matches!(error, PortsError::Shifted { container: 80, .. }), "{error}");
    });
}

#[test]
fn a_full_disk_refuses_a_lease_and_holds_nothing_but_lets_one_end() {
    need_root!();
    private_machine(|| {
        let folder = Holders::new();
        let options: &CStr = c"size=128k";
        mount("ports", folder.path(), "tmpfs", MountFlags::empty(), options).unwrap();
        let (mut ports, _) = open(&folder);
        let kept = ports.lease(request("web-0", "1", &["http"])).unwrap();
        // `write` stores what fits before it fails: nothing fits after it.
        let filler = folder.path().join("filler");
        assert!(fs::write(&filler, vec![0; 256 << 10]).is_err());
        let many: Vec<String> = (0..100).map(|n| format!("a-port-with-a-long-name-{n}/udp")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let error = ports.lease(request("web-1", "1", &many)).unwrap_err().to_string();
        assert!(
            error.contains("No space left on device") && error.ends_with("make room on that disk"),
            "{error}"
        );
        assert_eq!(ports.usage()[0].used, 1);
        end(&mut ports, &kept);
        assert!(!is_held(kept.ports[0].host.first()));
        fs::remove_file(&filler).unwrap();
        ports.lease(request("web-1", "1", &many)).unwrap();
        drop(ports);
        let (ports, recovered) = open(&folder);
        assert_eq!(recovered.kept.iter().map(|l| l.request.instance.as_str()).collect::<Vec<_>>(), ["web-1"]);
        assert!(recovered.damage.is_empty());
        drop(ports);
        drop(folder);
    });
}

#[test]
fn without_the_privilege_to_reserve_it_goes_on_and_says_what_to_do() {
    need_root!();
    private_machine(|| {
        // As in most containers.
        mount_bind("/proc/sys", "/proc/sys").unwrap();
        mount_remount("/proc/sys", MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
        let folder = Holders::new();
        let (mut ports, recovered) = open(&folder);
        let warning = recovered.unprotected.unwrap().to_string();
        assert!(warning.contains("Read-only file system"), "{warning}");
        assert!(warning.ends_with("sysctl -w net.ipv4.ip_local_reserved_ports=20000-30003"), "{warning}");
        let lease = ports.lease(request("web-0", "1", &["http"])).unwrap();
        assert!(is_held(lease.ports[0].host.first()));
        end(&mut ports, &lease);
        assert_eq!(ports.close().problems, Vec::<String>::new());
    });
}

#[test]
fn ports_that_others_have_reserved_are_left_to_them_and_stay_reserved() {
    need_root!();
    private_namespace(|| {
        fs::write(reserve::PATH, "8080,30000-30002\n").unwrap();
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let lease = ports.lease(request("web-0", "1", &["http,pool=tiny"])).unwrap();
        assert_eq!(lease.ports[0].host.first(), 30_003);
        let error = ports.lease(request("web-1", "1", &["http,pool=tiny"])).unwrap_err().to_string();
        assert!(
            error.contains("3 reserved by others in ip_local_reserved_ports or by static host ports"),
            "{error}"
        );
        end(&mut ports, &lease);
        assert_eq!(ports.close().kept, 0);
        assert_eq!(fs::read_to_string(reserve::PATH).unwrap().trim(), "8080,30000-30002");
    });
}

#[test]
fn two_of_them_in_one_folder_is_an_error_that_names_the_first() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let _first = open(&folder);
        let error =
            Ports::open(config(folder.path(), &[("default", "20000-29999")])).unwrap_err().to_string();
        let who = format!("is in use by another portolan (process {})", std::process::id());
        assert!(error.contains(&who), "{error}");
    });
}

#[test]
fn two_of_them_in_two_folders_with_one_pool_give_every_port_once() {
    need_root!();
    private_namespace(|| {
        let (one, two) = (Holders::new(), Holders::new());
        let pools = [("default", "20000-20019")];
        let (mut first, _) = Ports::open(config(one.path(), &pools)).unwrap();
        let (mut second, _) = Ports::open(config(two.path(), &pools)).unwrap();
        let mut numbers = Vec::new();
        for n in 0..10 {
            for ports in [&mut first, &mut second] {
                numbers
                    .push(ports.lease(request(&format!("web-{n}"), "1", &["http"])).unwrap().ports[0].host);
            }
        }
        numbers.sort();
        numbers.dedup();
        assert_eq!(numbers.len(), 20);
        assert!(first.lease(request("one-more", "1", &["http"])).is_err());
    });
}

#[test]
fn a_damaged_journal_is_told_and_the_rest_of_it_counts() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let leases: Vec<_> =
            (0..3).map(|n| ports.lease(request(&format!("web-{n}"), "1", &["http"])).unwrap()).collect();
        drop(ports);
        let path = folder.path().join("leases.journal");
        let text = fs::read_to_string(&path).unwrap().replace("\"web-1\"", "\"web-x\"");
        fs::write(&path, &text[..text.len() - 7]).unwrap();
        let (mut ports, recovered) = open(&folder);
        assert_eq!(recovered.damage.len(), 2, "{:?}", recovered.damage);
        assert_eq!(recovered.kept, leases[..1]);
        assert_eq!(recovered.strays.len(), 2, "what was in the lost records is nobody's");
        let again = ports.lease(request("web-1", "1", &["http"])).unwrap();
        assert!(is_held(again.ports[0].host.first()));
    });
}
