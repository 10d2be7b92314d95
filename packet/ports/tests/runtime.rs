//! What runtimes of containers are promised: sandboxes that follow each other, a holder of their own, other pools.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::Path,
    time::Duration,
};

use portolan_model::PortRanges;
use portolan_ports::{
    Dropped, HolderMode, Lease, LeaseRequest, Network, Owner, Pool, Pools, Ports, PortsConfig, PortsError,
    Recovered,
    holder::HolderClient,
    overlap::{NODE_PORTS, Other},
    owner, reserve,
};
use portolan_testkit::{
    Background, eventually, need_root,
    net::{private_machine, private_namespace},
};
use rustix::{mount::mount_bind, process::Signal};
use socket2::Type;

mod support;
use support::{Holders, bind, connect, connect_tcp, hold, holder_program};

fn pools(pools: &[(&str, &str)]) -> Pools {
    let pool =
        |(name, range): &(&str, &str)| Pool::new(name.parse().unwrap(), range.parse::<PortRanges>().unwrap());
    Pools::new(pools.iter().map(pool).collect()).unwrap()
}

fn config(folder: &Path) -> PortsConfig {
    PortsConfig {
        folder: folder.to_owned(),
        pools: pools(&[("default", "20000-29999")]),
        holder: HolderMode::Spawn { program: holder_program(), args: Vec::new() },
        holder_socket: None,
        reserved_ports: Some(reserve::PATH.into()),
        patience: Duration::ZERO,
        durable: true,
    }
}

fn open(folder: &Holders) -> (Ports, Recovered) {
    Ports::open(config(folder.path())).unwrap()
}

fn sandbox(id: &str) -> Owner {
    Owner::Sandbox { id: id.to_owned() }
}

fn request(instance: &str, owner: Owner, life: &str, specs: &[&str]) -> LeaseRequest {
    LeaseRequest {
        instance: instance.parse().unwrap(),
        incarnation: life.parse().unwrap(),
        owner,
        requests: specs.iter().map(|spec| spec.parse().unwrap()).collect(),
        network: Network::Own,
        v4: None,
        v6: None,
        local: Vec::new(),
        attachment: None,
    }
}

fn pod(life: &str, specs: &[&str]) -> LeaseRequest {
    request("default/web-0", sandbox(life), life, specs)
}

fn end(ports: &mut Ports, lease: &Lease) -> bool {
    ports.release(&lease.request.instance, &lease.request.incarnation).is_some()
}

fn is_held(port: u16) -> bool {
    bind(Type::STREAM, &format!("[::]:{port}"), true).is_err()
}

/// The kernel answers the first read(2) only.
fn reserved() -> String {
    let mut buffer = [0; 4096];
    let length = std::io::Read::read(&mut fs::File::open(reserve::PATH).unwrap(), &mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
}

#[test]
fn the_next_sandbox_of_a_pod_has_the_ports_while_the_last_one_is_still_there() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let first = ports.lease(pod("a", &["http", "web=8080"])).unwrap();
        let second = ports.lease(pod("b", &["http", "web=8080"])).unwrap();
        assert_eq!(second.ports, first.ports);
        assert!(!end(&mut ports, &first), "late");
        // Something else is asked for: what fits is the same, what is not asked for any more is free.
        let third = ports.lease(pod("c", &["http", "more"])).unwrap();
        assert_eq!(third.ports[0], first.ports[0]);
        assert!(!is_held(8080) && is_held(third.ports[1].host.first()));
        assert!(!end(&mut ports, &first) && !end(&mut ports, &second));
        assert!(end(&mut ports, &third) && !end(&mut ports, &third));
    });
}

#[test]
fn a_process_that_lives_is_nobodys_predecessor() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let own = owner::this_process().unwrap();
        ports.lease(request("web-0", own.clone(), "a", &["http"])).unwrap();
        let error = ports.lease(request("web-0", sandbox("b"), "b", &["http"])).unwrap_err();
        assert!(matches!(error, PortsError::InUse { .. }), "{error}");
        let expected = format!("the instance web-0 has a lease already, of process {}", std::process::id());
        assert!(error.to_string().starts_with(&expected), "{error}");
        // Nor does a process come after a sandbox that is there.
        ports.lease(pod("a", &["http"])).unwrap();
        let error = ports.lease(request("default/web-0", own, "b", &["http"])).unwrap_err().to_string();
        assert!(error.contains("of sandbox a"), "{error}");
    });
}

#[test]
fn a_sandbox_that_moves_from_the_hosts_network_to_its_own_has_its_ports_held() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let host = |life: &str| LeaseRequest { network: Network::Host, ..pod(life, &["http"]) };
        let first = ports.lease(host("a")).unwrap();
        let port = first.ports[0].host.first();
        ports.give_up_hold(&first.request.instance).unwrap();
        let server = TcpListener::bind(("::", port)).unwrap();
        // Its next sandbox on the same network, while the last process is on its way out.
        let second = ports.lease(host("b")).unwrap();
        assert_eq!((&second.ports, second.held), (&first.ports, true));
        assert_eq!(ports.unheld().count(), 1);
        drop(server);
        ports.maintain();
        assert!(is_held(port));
        let third = ports.lease(pod("c", &["http"])).unwrap();
        assert_eq!(third.ports[0].host.first(), port);
        assert!(is_held(port));
    });
}

#[test]
fn a_lease_ends_with_its_namespace() {
    need_root!();
    private_namespace(|| {
        let (folder, namespaces) = (Holders::new(), tempfile::tempdir().unwrap());
        let path = namespaces.path().join("cni-1");
        fs::write(&path, "").unwrap();
        mount_bind("/proc/thread-self/ns/net", &path).unwrap();
        let (mut ports, _) = open(&folder);
        let lease =
            ports.lease(request("default/a", owner::namespace(&path).unwrap(), "a", &["http"])).unwrap();
        assert!(ports.maintain().dropped.is_empty());
        // The file stays, the namespace is not there any more: what a crashed runtime leaves.
        rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(ports.maintain().dropped, std::slice::from_ref(&lease));
        assert!(!is_held(lease.ports[0].host.first()));
    });
}

#[test]
fn after_a_reboot_the_same_pod_has_the_same_numbers_and_nobody_else_had_them() {
    need_root!();
    private_machine(|| {
        let folder = Holders::new();
        let boot = folder.path().join("boot");
        fs::write(&boot, "00000000-0000-0000-0000-000000000001\n").unwrap();
        mount_bind(&boot, "/proc/sys/kernel/random/boot_id").unwrap();
        let mut config = config(folder.path());
        config.pools = pools(&[("default", "20000-20003")]);
        let (mut ports, _) = Ports::open(config.clone()).unwrap();
        let lease = ports.lease(pod("a", &["http", "game/udp"])).unwrap();
        drop(ports);
        HolderClient::end_all(&folder.path().join("holder.sock")).unwrap();
        fs::write(reserve::PATH, "\n").unwrap();
        fs::write(&boot, "00000000-0000-0000-0000-000000000002\n").unwrap();

        let (mut ports, recovered) = Ports::open(config).unwrap();
        assert!(recovered.kept.is_empty());
        assert_eq!(recovered.dropped, [(lease.clone(), Dropped::Rebooted)]);
        assert_eq!(reserved(), "20000-20003");
        let mut others = Vec::new();
        while let Ok(other) =
            ports.lease(request(&format!("other-{}", others.len()), sandbox("x"), "x", &["p/tcp+udp"]))
        {
            others.push(other.ports[0].host);
        }
        assert!(
            !others.is_empty() && lease.ports.iter().all(|port| !others.contains(&port.host)),
            "{others:?}"
        );
        let again = ports.lease(pod("b", &["http", "game/udp"])).unwrap();
        assert_eq!(again.ports, lease.ports);
    });
}

#[test]
fn pools_change_and_leases_live_on() {
    need_root!();
    private_namespace(|| {
        fs::write(reserve::PATH, "8080,31005\n").unwrap();
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let lease = ports.lease(pod("a", &["http", "web=9000"])).unwrap();
        assert_eq!(reserved(), "8080,20000-29999,31005");
        let changed =
            ports.set_pools(pools(&[("default", "31000-31001,31004-31005"), ("media", "32000-32099")]));
        assert_eq!(changed.outside, std::slice::from_ref(&lease.request.instance));
        assert!(changed.unprotected.is_none());
        assert_eq!(reserved(), "8080,31000-31001,31004-31005,32000-32099");
        assert!(is_held(lease.ports[0].host.first()));
        let got: Vec<_> = (0..3)
            .map(|n| {
                ports.lease(request(&format!("n-{n}"), sandbox("x"), "x", &["p"])).unwrap().ports[0]
                    .host
                    .first()
            })
            .collect();
        assert!(
            got.iter().all(|port| [31_000, 31_001, 31_004].contains(port)),
            "31005 is somebody else's: {got:?}"
        );
        let block = ports.lease(request("block", sandbox("x"), "x", &["b:3"])).unwrap_err().to_string();
        assert!(
            block.contains(
                "a block of 3 cannot fit in the pool default (31000-31001,31004-31005), which has 2"
            ),
            "{block}"
        );
        // Its next life is in a pool again; the static port needs none.
        let next = ports.lease(pod("b", &["http,pool=media", "web=9000"])).unwrap();
        assert!((32_000..32_100).contains(&next.ports[0].host.first()));
        assert!(ports.outside().is_empty());
        drop(ports);
        let mut config = config(folder.path());
        config.pools = Pools::none();
        let (mut ports, recovered) = Ports::open(config).unwrap();
        assert_eq!(recovered.kept.len(), 4);
        assert_eq!(reserved(), "8080,31005");
        let error = ports.lease(request("c", sandbox("c"), "c", &["p"])).unwrap_err().to_string();
        assert!(error.starts_with("port p: no pool of ports is configured"), "{error}");
        ports.lease(request("c", sandbox("c"), "c", &["p=9001"])).unwrap();
    });
}

#[test]
fn a_pool_is_for_its_protocols_only() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        let mut media: Vec<Pool> = pools(&[("media", "31000-31009")]).iter().cloned().collect();
        media[0].protocols = portolan_model::Protocols::UDP;
        ports.set_pools(Pools::new(media).unwrap());
        let error = ports.lease(pod("a", &["x/tcp+udp"])).unwrap_err().to_string();
        assert_eq!(
            error,
            "port x: the pool media is for udp, not for tcp+udp: name another pool, or another protocol"
        );
        ports.lease(pod("a", &["x/udp"])).unwrap();
        assert_eq!(ports.usage()[0].free, 9);
    });
}

#[test]
fn announced_static_ports_are_passed_over_and_can_be_asked_for() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let (mut ports, _) = open(&folder);
        ports.set_pools(pools(&[("default", "31000-31003")]));
        let announced = |range: &str| vec![("tcp".parse().unwrap(), range.parse().unwrap())];
        ports.avoid("default/a", announced("31000-31001"));
        ports.avoid("default/b", announced("31003"));
        let lease = ports.lease(request("n", sandbox("x"), "x", &["p"])).unwrap();
        assert_eq!(lease.ports[0].host.first(), 31_002);
        let error = ports.lease(request("m", sandbox("x"), "x", &["p"])).unwrap_err().to_string();
        assert!(error.contains("1 of 4 in use, 0 in quarantine, 3 reserved by others"), "{error}");
        ports.lease(request("u", sandbox("x"), "x", &["p/udp:4"])).unwrap();
        ports.lease(request("s", sandbox("x"), "x", &["p=31000"])).unwrap();
        let others = [Other::NodePorts(NODE_PORTS.parse().unwrap())];
        let texts: Vec<String> = ports.overlaps(&others).iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].contains("the node ports of Kubernetes (30000-32767)"), "{texts:?}");
        ports.avoid("default/b", Vec::new());
        let next = ports.lease(request("m", sandbox("x"), "x", &["p"])).unwrap();
        assert_eq!(next.ports[0].host.first(), 31_003);
    });
}

#[test]
fn a_holder_in_a_container_of_its_own_is_waited_for_and_after_its_restart_it_holds_the_same() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let socket = folder.path().join("shared/holder.sock");
        let mut config = config(folder.path());
        config.holder = HolderMode::Connect { patience: Duration::from_millis(100) };
        config.holder_socket = Some(socket.clone());
        let error = Ports::open(config.clone()).unwrap_err().to_string();
        assert!(
            error.contains("no holder of ports answers at") && error.contains("portolan holder --socket"),
            "{error}"
        );

        config.holder = HolderMode::Connect { patience: Duration::from_secs(20) };
        let start = || {
            let mut command = std::process::Command::new(holder_program());
            Background::start(command.arg("--socket").arg(&socket).args(["--limit", "100"]))
        };
        // It comes up while it is waited for.
        let (mut ports, mut holder) = std::thread::scope(|scope| {
            let waits = scope.spawn(|| Ports::open(config.clone()).unwrap().0);
            std::thread::sleep(Duration::from_millis(200));
            let holder = start();
            (waits.join().unwrap(), holder)
        });
        let lease = ports.lease(pod("a", &["http"])).unwrap();
        let port = lease.ports[0].host.first();
        assert!(is_held(port));
        holder.signal(Signal::KILL);
        holder.wait(Duration::from_secs(10));
        eventually(Duration::from_secs(5), || !is_held(port));
        let mut holder = start();
        // The next lease finds out, and everything is held again.
        let other = ports.lease(request("b", sandbox("b"), "b", &["http"])).unwrap();
        assert!(is_held(port) && is_held(other.ports[0].host.first()));
        assert_eq!(ports.holder_pids(), [holder.pid()]);
        // There is no second one to go to.
        let error = ports.lease(request("c", sandbox("c"), "c", &["b:200"])).unwrap_err().to_string();
        assert!(error.contains("the holder has reached its limit of open files"), "{error}");
        assert_eq!(ports.leases().count(), 2);
        holder.signal(Signal::KILL);
        holder.wait(Duration::from_secs(10));
    });
}

#[test]
fn a_lent_socket_is_the_very_one_and_is_only_bound_again_when_its_borrower_is_gone() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let mut client = connect(folder.path(), &[]);
        client.hold(&[hold("20000/tcp"), hold("20001/udp"), hold("127.0.0.1:20002/tcp")]).unwrap();
        let mut relay = connect(folder.path(), &[]);
        let listener = socket2::Socket::from(relay.borrow(hold("20000/tcp")).unwrap().unwrap());
        listener.listen(8).unwrap();
        connect_tcp("127.0.0.1:20000").unwrap();
        connect_tcp("[::1]:20000").unwrap();
        assert!(bind(Type::STREAM, "[::]:20000", true).is_err());
        let udp = UdpSocket::from(relay.borrow(hold("20001/udp")).unwrap().unwrap());
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[7; 9000], "127.0.0.1:20001").unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(udp.recv(&mut [0; 10_000]).unwrap(), 9000);
        assert!(relay.borrow(hold("20009/tcp")).unwrap().is_none(), "nobody holds it");
        assert_eq!(client.count().unwrap(), 3, "lent is held");
        // A relay that has crashed: its descriptors and its connection are gone.
        drop((listener, udp, relay));
        eventually(Duration::from_secs(5), || connect_tcp("127.0.0.1:20000").is_err());
        assert!(bind(Type::STREAM, "[::]:20000", true).is_err(), "held all the time");
        // And the next one begins anew.
        let mut relay = connect(folder.path(), &[]);
        let listener = socket2::Socket::from(relay.borrow(hold("20000/tcp")).unwrap().unwrap());
        listener.listen(8).unwrap();
        connect_tcp("127.0.0.1:20000").unwrap();
        relay.give_back(hold("20000/tcp")).unwrap();
        assert!(connect_tcp("127.0.0.1:20000").is_err());
        assert_eq!(client.count().unwrap(), 3);
    });
}

#[test]
fn a_holder_that_holds_something_stays_when_nobody_comes_back() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let program = folder.path().join("forever");
        // Without the quarter of an hour that the tests' holder has by default.
        fs::write(
            &program,
            format!(
                "#!/bin/sh\nexec {} \"$@\" --abandoned-ms never --idle-ms 50\n",
                holder_program().display()
            ),
        )
        .unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let socket = folder.path().join("holder.sock");
        let mut client = HolderClient::connect_or_spawn(&program, &[], &socket).unwrap();
        client.hold(&[hold("20000/tcp")]).unwrap();
        let pid = portolan_netlink::process::PidIdentity::of(client.pids()[0]).unwrap();
        drop(client);
        std::thread::sleep(Duration::from_millis(300));
        assert!(pid.is_alive() && is_held(20_000));
        let mut client = HolderClient::connect_or_spawn(&program, &[], &socket).unwrap();
        assert_eq!(client.pids(), [pid.pid]);
        client.release(&[hold("20000/tcp")]).unwrap();
        drop(client);
        eventually(Duration::from_secs(5), || !pid.is_alive());
    });
}

#[test]
fn everything_can_be_taken_away_whoever_left_it() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let data = folder.path().join("data");
        let mut config = config(&data);
        config.pools = pools(&[("default", "31000-31003")]);
        let wipe = || Ports::wipe(&data, None, reserve::PATH.as_ref(), Duration::from_millis(50));
        assert_eq!(wipe(), Vec::<String>::new(), "nothing there is nothing to do");
        let (mut ports, _) = Ports::open(config).unwrap();
        let lease = ports.lease(pod("a", &["http"])).unwrap();
        let failures = wipe();
        assert!(failures[0].contains("is in use by another portolan"), "{failures:?}");
        drop(ports);
        assert_eq!(wipe(), Vec::<String>::new());
        eventually(Duration::from_secs(5), || !is_held(lease.ports[0].host.first()));
        assert_eq!((reserved().as_str(), data.exists()), ("", false));
    });
}

#[test]
fn a_holder_whose_folder_was_removed_leaves_the_next_one_alone_and_ends() {
    need_root!();
    private_namespace(|| {
        let folder = Holders::new();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let connect =
            || HolderClient::connect_or_spawn(&holder_program(), &[], &data.join("holder.sock")).unwrap();
        let mut first = connect();
        first.hold(&[hold("20000/tcp")]).unwrap();
        let old = portolan_netlink::process::PidIdentity::of(first.pids()[0]).unwrap();
        fs::remove_dir_all(&data).unwrap();
        fs::create_dir(&data).unwrap();
        let mut second = connect();
        second.hold(&[hold("20001/tcp")]).unwrap();
        assert_ne!(second.pids(), [old.pid]);
        drop(first);
        eventually(Duration::from_secs(30), || !old.is_alive());
        assert!(!is_held(20_000) && is_held(20_001));
        assert_eq!(connect().pids(), second.pids());
        second.shutdown().unwrap();
    });
}
