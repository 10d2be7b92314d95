//! The namespaces: nodes on the cluster's bridge, Pods and an outside behind each node.
//!
//! ```text
//!   1a 10.244.1.10 ─┐
//!   1b 10.244.1.11 ─┤ node 1 10.240.0.11 ─┬─ the cluster's bridge ─┬─ node 2 ─ …
//!   1c 10.244.1.12 ─┤                     │                        │
//!   outside 198.51.1.2 ─ 198.51.1.1       └── API server 10.240.0.2
//! ```
//! `1a` and `1b` answer, `1c` asks. Everything has IPv6 as well. The outside of a node reaches the addresses of Services
//! through its node, and is answered through it whoever answers: so what a proxy does to a connection is seen by its ends.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Stdio,
};

use portolan_cluster::{Cluster, node_name};
use portolan_testkit::{net::Namespace, programs};
use serde_json::{Value, json};

use super::api::{Api, NODES};

/// The address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Somewhere in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A Pod: its node's number, and `a`, `b` or `c`.
    Pod(u8, char),
    /// A node.
    Node(u8),
    /// The outside behind a node.
    Outside(u8),
}

impl Place {
    /// The number of its node.
    pub fn node(self) -> u8 {
        match self {
            Self::Pod(node, _) | Self::Node(node) | Self::Outside(node) => node,
        }
    }

    /// The address from which it asks. A node asks from one that no proxy would choose: a masquerade can be seen.
    pub fn address(self, family: Family) -> IpAddr {
        match self {
            Self::Pod(node, letter) => pod_address(node, letter, family),
            Self::Node(node) => outside_address(node, 1, family),
            Self::Outside(node) => outside_address(node, 2, family),
        }
    }
}

/// The address of a Pod.
pub fn pod_address(node: u8, letter: char, family: Family) -> IpAddr {
    let host = 10 + letter as u16 - 'a' as u16;
    match family {
        Family::V4 => Ipv4Addr::new(10, 244, node, host as u8).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x244, node.into(), 0, 0, 0, host).into(),
    }
}

/// The first address of a node: the one in its Node object.
pub fn node_address(node: u8, family: Family) -> IpAddr {
    let (four, six) = portolan_cluster::node_addresses(node.into());
    match family {
        Family::V4 => four.into(),
        Family::V6 => six.into(),
    }
}

/// An address in the network between a node and its outside: the node is 1, the outside 2.
pub fn outside_address(node: u8, host: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 51, node, host).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, node.into(), 0, 0, 0, 0, host.into()).into(),
    }
}

/// All addresses of a node: on the cluster's bridge, as the gateway of its Pods, as that of its outside.
pub fn node_addresses(node: u8, family: Family) -> [IpAddr; 3] {
    let pods: IpAddr = match family {
        Family::V4 => Ipv4Addr::new(10, 244, node, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x244, node.into(), 0, 0, 0, 1).into(),
    };
    [node_address(node, family), pods, outside_address(node, 1, family)]
}

/// Nodes with their Pods and outsides.
#[derive(Debug)]
pub struct World {
    nodes: u8,
    places: BTreeMap<Place, Namespace>,
}

impl World {
    /// Makes this many nodes on the cluster's bridge.
    #[track_caller]
    pub fn new(cluster: &Cluster, nodes: u8) -> Self {
        let file = cluster.network_namespace("lan");
        let bridge = Namespace::existing(file.file_name().and_then(|name| name.to_str()).unwrap_or_default());
        let places = std::thread::scope(|scope| {
            let bridge = &bridge;
            let all: Vec<_> =
                (1..=nodes).map(|node| scope.spawn(move || make(bridge, node, nodes))).collect();
            all.into_iter()
                .flat_map(|made| made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        nowhere(cluster, nodes);
        Self { nodes, places }
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.nodes
    }

    /// The namespace of a place.
    #[track_caller]
    pub fn at(&self, place: Place) -> &Namespace {
        self.places.get(&place).unwrap_or_else(|| panic!("{place:?} is not in this world"))
    }

    /// All places.
    pub fn places(&self) -> impl Iterator<Item = (Place, &Namespace)> {
        self.places.iter().map(|(place, namespace)| (*place, namespace))
    }
}

/// Writes the Node objects; node 1 and 4 are in zone a, 2 and 5 in zone b, and so on.
#[track_caller]
pub fn write_nodes(api: &Api, nodes: u8) {
    for node in 1..=nodes {
        let name = node_name(node.into());
        api.delete(&format!("{NODES}/{name}"));
        api.create(NODES, &node_object(node));
        let addresses = [Family::V4, Family::V6]
            .map(|family| json!({"type": "InternalIP", "address": node_address(node, family)}));
        api.patch(&format!("{NODES}/{name}/status"), &json!({"status": {"addresses": addresses}}));
    }
}

/// The zone of a node.
pub fn zone(node: u8) -> &'static str {
    ["zone-a", "zone-b", "zone-c"][(usize::from(node) - 1) % 3]
}

fn node_object(node: u8) -> Value {
    json!({
        "metadata": {"name": node_name(node.into()), "labels": {"topology.kubernetes.io/zone": zone(node)}},
        "spec": {
            "podCIDR": format!("10.244.{node}.0/24"),
            "podCIDRs": [format!("10.244.{node}.0/24"), format!("fd00:10:244:{node}::/64")],
        },
    })
}

/// What no proxy catches comes to the API server's namespace, which has all addresses of Services and refuses: so what
/// is dropped on the way is silent, and what is left alone is not.
#[track_caller]
fn nowhere(cluster: &Cluster, nodes: u8) {
    let file = cluster.network_namespace("control");
    let control = Namespace::existing(file.file_name().and_then(|name| name.to_str()).unwrap_or_default());
    let mut words: Vec<String> =
        ["10.96.0.0/15", "100.64.0.0/13"].map(|all| format!("route replace local {all} dev lo")).to_vec();
    words.extend(
        ["fd00:10:96::/112", "fd00:10:97::/112", "2001:db8:ffff::/48"]
            .map(|all| format!("route replace local {all} dev lo")),
    );
    for node in 1..=nodes {
        let (four, six) = (node_address(node, Family::V4), node_address(node, Family::V6));
        words.push(format!("route replace 10.244.{node}.0/24 via {four}"));
        words.push(format!("route replace 198.51.{node}.0/24 via {four}"));
        words.push(format!("route replace fd00:10:244:{node}::/64 via {six}"));
        words.push(format!("route replace 2001:db8:{node}::/64 via {six}"));
    }
    batch(&control, &words);
}

/// One node with everything behind it.
fn make(bridge: &Namespace, node: u8, nodes: u8) -> Vec<(Place, Namespace)> {
    let here = Namespace::new();
    let mut made = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let (four, six) = (node_address(node, Family::V4), node_address(node, Family::V6));
    let port = format!("lan{}", here.name().trim_start_matches("ptk-").replace('-', ""));
    words.push(format!("link add eth0 type veth peer name {port} netns {}", bridge.name()));
    words.push(format!("addr add {four}/16 dev eth0"));
    words.push(format!("addr add {six}/64 dev eth0 nodad"));
    words.push("link set eth0 up".to_owned());
    // Each Pod has a link of its own to the one gateway, as with the ptp plugin.
    for letter in ['a', 'b', 'c'] {
        let pod = Namespace::new();
        behind(
            &here,
            &pod,
            &format!("pod{letter}"),
            &mut words,
            (
                [format!("10.244.{node}.1"), format!("fd00:10:244:{node}::1")],
                [Family::V4, Family::V6].map(|family| pod_address(node, letter, family).to_string()),
            ),
        );
        made.push((Place::Pod(node, letter), pod));
    }
    let outside = Namespace::new();
    behind(
        &here,
        &outside,
        "outside",
        &mut words,
        (
            [Family::V4, Family::V6].map(|family| outside_address(node, 1, family).to_string()),
            [Family::V4, Family::V6].map(|family| outside_address(node, 2, family).to_string()),
        ),
    );
    made.push((Place::Outside(node), outside));
    for other in (1..=nodes).filter(|other| *other != node) {
        let (four, six) = (node_address(other, Family::V4), node_address(other, Family::V6));
        words.push(format!("route add 10.244.{other}.0/24 via {four}"));
        words.push(format!("route add 198.51.{other}.0/24 via {four}"));
        words.push(format!("route add fd00:10:244:{other}::/64 via {six}"));
        words.push(format!("route add 2001:db8:{other}::/64 via {six}"));
    }
    // See `nowhere`.
    words.push("route add default via 10.240.0.2".to_owned());
    words.push("route add default via fd00:10:240::2".to_owned());
    batch(&here, &words);
    batch(bridge, &[format!("link set {port} master br0 up")]);
    here.forward();
    // Errors are to be seen each time: the kernel sends one in a second to a destination (icmp(7)).
    for (setting, value) in [
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv6/icmp/ratelimit", "0"),
        ("ipv4/icmp_msgs_per_sec", "100000"),
        ("ipv4/icmp_msgs_burst", "10000"),
    ] {
        here.sysctl(&format!("net/{setting}"), value);
    }
    made.push((Place::Node(node), here));
    made
}

/// Something on a link of its own behind a node.
fn behind(
    node: &Namespace,
    what: &Namespace,
    link: &str,
    words: &mut Vec<String>,
    (gateway, address): ([String; 2], [String; 2]),
) {
    words.push(format!("link add {link} type veth peer name eth0 netns {}", what.name()));
    words.push(format!("addr add {}/32 dev {link}", gateway[0]));
    words.push(format!("addr add {}/128 dev {link} nodad", gateway[1]));
    words.push(format!("link set {link} up"));
    words.push(format!("route add {}/32 dev {link} src {}", address[0], gateway[0]));
    words.push(format!("route add {}/128 dev {link} src {}", address[1], gateway[1]));
    let inner = [
        format!("addr add {}/32 dev eth0", address[0]),
        format!("addr add {}/128 dev eth0 nodad", address[1]),
        "link set eth0 up".to_owned(),
        format!("route add {}/32 dev eth0", gateway[0]),
        format!("route add default via {} src {}", gateway[0], address[0]),
        format!("route add {}/128 dev eth0", gateway[1]),
        format!("route add default via {} src {}", gateway[1], address[1]),
    ];
    batch(node, &std::mem::take(words));
    batch(what, &inner);
}

/// Runs lines of `ip` in a namespace.
#[track_caller]
fn batch(namespace: &Namespace, lines: &[String]) {
    let mut command = programs::command("ip", ["-n", namespace.name(), "-batch", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = command.spawn().and_then(|mut child| {
        if let Some(mut input) = child.stdin.take() {
            input.write_all(lines.join("\n").as_bytes())?;
        }
        child.wait_with_output()
    });
    match started {
        Ok(output) if output.status.success() => {}
        other => panic!("ip -n {}:\n{}\n{other:?}", namespace.name(), lines.join("\n")),
    }
}
