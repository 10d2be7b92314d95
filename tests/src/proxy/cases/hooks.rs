//! F31 and F36: where in the kernel's hooks a proxy does its work, which others rely on, and packets that are out of line.

use std::net::{IpAddr, SocketAddr};

use portolan_testkit::{eventually_ok, programs};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, sendto, socket_with};
use serde_json::json;

use super::{NODE, OUTSIDE, POD, family_name};
use crate::proxy::{
    case::{Case, Scene},
    probe::connect,
    service::{Protocol, Service},
    world::{FAMILIES, Family, Place, node_addresses, pod_address},
};

const TCP: Protocol = Protocol::Tcp;

pub(super) fn cases() -> Vec<Case> {
    FAMILIES.into_iter().flat_map(|family| [hooks(family), out_of_line(family)]).collect()
}

const fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Which of the counters of a table have counted.
fn counted(scene: Scene<'_>, table: &str, counters: &[&str]) -> String {
    let count = |counter: &&&str| {
        let words = ["list", "counter", "inet", table, counter];
        !programs::run(scene.world.at(NODE).command("nft").args(words)).contains("packets 0 ")
    };
    counters.iter().filter(count).copied().collect::<Vec<_>>().join(" ")
}

fn add(scene: Scene<'_>, rules: &str) {
    programs::run(scene.world.at(NODE).command("nft").arg(rules));
}

/// F31: source ranges at dstnat - 10, DNAT at dstnat, refusals at filter, SNAT at srcnat: one before and one after each.
fn hooks(family: Family) -> Case {
    let table = format!("hooks-{}", word(family));
    let open = Service::new(family, TCP).balancer().at(&["2a"]);
    let nobody = Service::new(family, TCP).balancer().at(&[]);
    let range = if family == Family::V4 { "203.0.113.0/24" } else { "2001:db8:dead::/48" };
    let guarded = Service::new(family, TCP).with("loadBalancerSourceRanges", json!([range]));
    let guarded = guarded.balancer().at(&["2a"]);
    let at = |service: &Service| service.at_balancer(family, TCP).address.ip();
    let (client, endpoint) = (OUTSIDE.address(family), pod_address(2, 'a', family));
    let (ip, own) = (word(family), node_addresses(1, family)[0]);
    let chain = |name: &str, hook: &str, priority: i32, rules: &[(String, &str)]| {
        let rules = rules.iter().map(|(what, counter)| format!("{what} counter name {counter};"));
        let rules: String = rules.collect();
        format!("chain {name} {{ type filter hook {hook} priority {priority}; {rules} }};")
    };
    let from = |source: IpAddr, to: IpAddr| format!("{ip} saddr {source} {ip} daddr {to}");
    let rules = [
        chain("a", "prerouting", -111, &[(from(client, at(&guarded)), "asked")]),
        chain("b", "prerouting", -109, &[(from(client, at(&guarded)), "admitted")]),
        chain("c", "prerouting", -101, &[(from(client, at(&open)), "frontend")]),
        chain(
            "d",
            "prerouting",
            -99,
            &[(from(client, at(&open)), "untranslated"), (from(client, endpoint), "backend")],
        ),
        chain("e", "forward", -1, &[(from(client, at(&nobody)), "unrefused")]),
        chain("f", "forward", 1, &[(from(client, at(&nobody)), "forwarded")]),
        chain("g", "postrouting", 99, &[(from(client, endpoint), "unmasked")]),
        chain(
            "h",
            "postrouting",
            101,
            &[(from(client, endpoint), "clients"), (from(own, endpoint), "masked")],
        ),
    ];
    let counters = [
        "asked",
        "admitted",
        "frontend",
        "untranslated",
        "backend",
        "unrefused",
        "forwarded",
        "unmasked",
        "clients",
        "masked",
    ];
    let named: String = counters.iter().map(|name| format!("counter {name} {{ }};")).collect();
    let rules = format!("table inet {table} {{ {named} {} }}", rules.concat());
    let name = format!("F31 others find their place before and after each step, {}", family_name(family));
    Case::new(name, &[&open, &nobody, &guarded])
        .then(move |scene| add(scene, &rules))
        .ask(OUTSIDE, open.at_balancer(family, TCP), "2a +m")
        .ask(OUTSIDE, nobody.at_balancer(family, TCP), "refused")
        .ask(OUTSIDE, guarded.at_balancer(family, TCP), "silence")
        .look(
            "seen",
            move |scene| counted(scene, &table, &counters),
            "asked frontend backend unrefused unmasked masked",
        )
}

/// F36: a segment of an endpoint that is far out of its window does not come to the client as one of a stranger's, whom it
/// would answer with a reset (kubernetes/kubernetes#74839).
fn out_of_line(family: Family) -> Case {
    let service = Service::new(family, TCP).at(&["1a"]);
    let target = service.cluster(family, TCP).address;
    let (client, server) = (POD.address(family), pod_address(1, 'a', family));
    let (ip, table) = (word(family), format!("window-{}", word(family)));
    let name = format!("F36 a segment out of its window resets nobody, {}", family_name(family));
    Case::new(name, &[&service]).ask(POD, service.cluster(family, TCP), "1a").look(
        "conversation",
        move |scene| {
            let Ok(stream) = scene.world.at(POD).run(|| connect(client, 0, target)) else {
                return "no connection".to_owned();
            };
            let port = stream.local_addr().map_or(0, |address| address.port());
            let _ = programs::output(scene.world.at(NODE).command("nft").args(["delete", "table", "inet", &table]));
            add(
                scene,
                &format!(
                    "table inet {table} {{ counter strange {{ }}; counter resets {{ }}; chain watched {{ type filter hook prerouting priority -310; \
                     {ip} saddr {server} tcp dport {port} tcp sequence {SEQUENCE} counter name strange; \
                     {ip} saddr {client} tcp sport {port} tcp flags & rst == rst counter name resets; }}; }}"
                ),
            );
            let sent = scene.world.at(Place::Pod(1, 'a')).run(|| send_strange(server, client, port));
            if let Err(error) = sent {
                return error.to_string();
            }
            let came = eventually_ok(std::time::Duration::from_secs(5), || match counted(scene, &table, &["strange"]).as_str() {
                "strange" => Ok(()),
                other => Err(other.to_owned()),
            });
            // What a reset would need to come back is less than an answer of the server needs.
            let answer = answers(stream);
            format!("{} then {answer}; {}", if came.is_ok() { "strange" } else { "nothing" }, counted(scene, &table, &["resets"]))
        },
        "strange then 1a; ",
    )
}

/// Of the segment that nobody expects.
const SEQUENCE: u32 = 0x7ace_0001;

/// Says something, and reads who answers.
fn answers(stream: std::net::TcpStream) -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let mut stream = BufReader::new(stream);
    let (mut first, mut second) = (String::new(), String::new());
    let said = stream.read_line(&mut first).and_then(|_| stream.get_mut().write_all(b"still there?\n"));
    match said.and_then(|()| stream.read_line(&mut second)) {
        Ok(_) => crate::proxy::echo::parse(&second).map_or(second, |(name, ..)| name),
        Err(error) => error.to_string(),
    }
}

/// A segment from port 8080 of one address to a port of the other, with a sequence number from nowhere.
fn send_strange(from: IpAddr, to: IpAddr, port: u16) -> std::io::Result<()> {
    let mut segment = Vec::new();
    segment.extend(8080_u16.to_be_bytes());
    segment.extend(port.to_be_bytes());
    segment.extend(SEQUENCE.to_be_bytes());
    segment.extend(0x1357_9bdf_u32.to_be_bytes());
    // Five words of header; ACK; a window; the checksum; not urgent.
    segment.extend([0x50, 0x10, 0x10, 0x00, 0, 0, 0, 0]);
    segment.extend(*b"late");
    let sum = checksum(from, to, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    bind(&socket, &SocketAddr::new(from, 0))?;
    sendto(&socket, &segment, rustix::net::SendFlags::empty(), &SocketAddr::new(to, 0))?;
    Ok(())
}

/// Over the pseudo-header and the segment (RFC 9293, section 3.1; RFC 8200, section 8.1).
fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend((segment.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, 6]);
    bytes.extend(segment);
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
