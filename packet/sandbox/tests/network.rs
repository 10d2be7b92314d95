//! What works in a sandbox, with real packets. Each test is a machine of its own: namespaces and mounts that end with
//! it.
#![allow(clippy::unwrap_used)]

use std::{
    net::{IpAddr, TcpListener, UdpSocket},
    process::Command,
};

use portolan_model::Name;
use portolan_netlink::{namespace::Namespace, sysctl};
use portolan_sandbox::{Forwarding, Sandbox, SandboxConfig, Sandboxes};
use portolan_testkit::{ask, echo::Echo, need_root, net::private_machine};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn create(sandboxes: &Sandboxes, text: &str) -> Sandbox {
    let name = name(text);
    let (v4, v6) = sandboxes.choose_addresses(&name, &[].into()).unwrap();
    sandboxes.create(&name, v4, v6).unwrap()
}

fn addresses(sandbox: &Sandbox) -> [IpAddr; 2] {
    [sandbox.v4.unwrap().into(), sandbox.v6.unwrap().into()]
}

fn inside<T: Send>(sandbox: &Sandbox, work: impl FnOnce() -> T + Send) -> T {
    Namespace::open(&sandbox.namespace).unwrap().run(work).unwrap()
}

/// One server per protocol in the sandbox on this address.
fn serve(sandbox: &Sandbox, text: &str, address: IpAddr) -> (Echo, Echo) {
    inside(sandbox, || {
        (
            Echo::serve_tcp(TcpListener::bind((address, 0)).unwrap(), text),
            Echo::serve_udp(UdpSocket::bind((address, 0)).unwrap(), text),
        )
    })
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_host_and_an_instance_reach_each_other_at_once_over_both_families() {
    need_root!();
    private_machine(|| {
        let sandboxes = Sandboxes::open(SandboxConfig::default()).unwrap();
        let sandbox = create(&sandboxes, "web-0");
        for (own, gateway) in addresses(&sandbox).into_iter().zip(sandboxes.config().gateways()) {
            // From the host, with the gateway as the source. Nothing waits for ARP, NDP or duplicate detection.
            let (tcp, udp) = serve(&sandbox, "web-0", own);
            for answer in [ask::tcp(tcp.address()).unwrap(), ask::udp(udp.address()).unwrap()] {
                assert!(answer.starts_with("web-0 ") && answer.contains(&gateway.to_string()), "{answer}");
            }
            // From the instance, with its own address as the source.
            let tcp = Echo::serve_tcp(TcpListener::bind((gateway, 0)).unwrap(), "host");
            let udp = Echo::serve_udp(UdpSocket::bind((gateway, 0)).unwrap(), "host");
            for answer in inside(&sandbox, || [ask::tcp(tcp.address()), ask::udp(udp.address())]) {
                let answer = answer.unwrap();
                assert!(answer.starts_with("host ") && answer.contains(&own.to_string()), "{answer}");
            }
        }
    });
}

#[test]
fn two_instances_reach_each_other_through_the_host() {
    need_root!();
    private_machine(|| {
        let folder = tempfile::tempdir().unwrap();
        let forwarding = Forwarding::open(&folder.path().join("sysctls.json")).unwrap();
        let sandboxes = Sandboxes::open(SandboxConfig::default()).unwrap();
        let (one, other) = (create(&sandboxes, "web-0"), create(&sandboxes, "web-1"));
        for (from, to) in addresses(&one).into_iter().zip(addresses(&other)) {
            let (tcp, udp) = serve(&other, "web-1", to);
            for answer in inside(&one, || [ask::tcp(tcp.address()), ask::udp(udp.address())]) {
                let answer = answer.unwrap();
                assert!(answer.starts_with("web-1 ") && answer.contains(&from.to_string()), "{answer}");
            }
        }
        forwarding.restore().unwrap();
    });
}

#[test]
fn an_instance_reaches_a_network_outside_that_knows_the_way_back() {
    need_root!();
    private_machine(|| {
        let folder = tempfile::tempdir().unwrap();
        let _forwarding = Forwarding::open(&folder.path().join("sysctls.json")).unwrap();
        let sandboxes = Sandboxes::open(SandboxConfig::default()).unwrap();
        let outside = portolan_testkit::net::Namespace::new();
        // A router asks for a neighbour with its link-local address, which duplicate detection would hold back for a
        // second: on both ends there is none.
        sysctl::write("net/ipv6/conf/default/accept_dad", "0").unwrap();
        outside.sysctl("net/ipv6/conf/default/accept_dad", "0");
        ip(&format!("link add up0 type veth peer name eth0 netns {}", outside.name()));
        for (address, peer, subnet) in [
            ("192.0.2.1/24", "192.0.2.2/24", "10.213.0.0/16"),
            ("2001:db8::1/64", "2001:db8::2/64", "fd70:6f72:746f::/64"),
        ] {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            ip(&format!("address add {address} dev up0 {nodad}"));
            ip("link set up0 up");
            outside.ip(&format!("address add {peer} dev eth0 {nodad}"));
            outside.ip("link set eth0 up");
            outside.route(&format!("{subnet} via {}", address.split_once('/').unwrap().0));
        }
        let sandbox = create(&sandboxes, "web-0");
        for (own, world) in addresses(&sandbox).into_iter().zip(["192.0.2.2:0", "[2001:db8::2]:0"]) {
            let (tcp, udp) = (Echo::tcp(&outside, "outside", world), Echo::udp(&outside, "outside", world));
            for answer in inside(&sandbox, || [ask::tcp(tcp.address()), ask::udp(udp.address())]) {
                let answer = answer.unwrap();
                assert!(answer.starts_with("outside ") && answer.contains(&own.to_string()), "{answer}");
            }
            // And from outside to the instance.
            let (tcp, udp) = serve(&sandbox, "web-0", own);
            outside.run(|| (ask::tcp(tcp.address()).unwrap(), ask::udp(udp.address()).unwrap()));
        }
    });
}

#[test]
fn an_instance_cannot_send_with_the_address_of_another() {
    need_root!();
    private_machine(|| {
        let sandboxes = Sandboxes::open(SandboxConfig { v6: None, ..SandboxConfig::default() }).unwrap();
        let (honest, liar) = (create(&sandboxes, "web-0"), create(&sandboxes, "liar"));
        let gateway = sandboxes.config().gateway_v4().unwrap();
        let receiver = UdpSocket::bind((gateway, 0)).unwrap();
        let target = receiver.local_addr().unwrap();
        inside(&liar, || {
            ip(&format!("address add {}/32 dev lo", honest.v4.unwrap()));
            UdpSocket::bind((honest.v4.unwrap(), 0)).unwrap().send_to(b"forged", target).unwrap();
            UdpSocket::bind((liar.v4.unwrap(), 0)).unwrap().send_to(b"true", target).unwrap();
        });
        // Packets of one link keep their order: had the first come in, it would be here first.
        receiver.set_read_timeout(Some(ask::PATIENCE)).unwrap();
        let mut text = [0; 16];
        let (length, from) = receiver.recv_from(&mut text).unwrap();
        assert_eq!((&text[..length], from.ip()), (b"true".as_slice(), liar.v4.unwrap().into()));
    });
}

#[test]
fn a_sandbox_of_one_family_has_nothing_of_the_other() {
    need_root!();
    private_machine(|| {
        let sandboxes = Sandboxes::open(SandboxConfig { v6: None, ..SandboxConfig::default() }).unwrap();
        let sandbox = create(&sandboxes, "four");
        assert_eq!(sandbox.v6, None);
        let has_v6 = inside(&sandbox, || std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap());
        assert!(!has_v6.contains("eth0"), "{has_v6}");
        ask::tcp(serve(&sandbox, "four", sandbox.v4.unwrap().into()).0.address()).unwrap();
    });
    private_machine(|| {
        let sandboxes = Sandboxes::open(SandboxConfig { v4: None, ..SandboxConfig::default() }).unwrap();
        let sandbox = create(&sandboxes, "six");
        ask::tcp(serve(&sandbox, "six", sandbox.v6.unwrap().into()).0.address()).unwrap();
    });
}
