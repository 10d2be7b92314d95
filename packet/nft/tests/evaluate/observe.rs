//! What the kernel did with each numbered packet, told by a table of its own that looks and changes nothing.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use portolan_nft::{
    Bitwise, Chain, ChainKind, Compare, ComparisonOperator, Data, DataType, Dynset, DynsetOperation,
    Expression, Family, Hook, MetaKey, Nft, Payload, PayloadBase, Register, Rule, Ruleset, Selector, Set,
    Table,
    evaluate::{Fate, Outcome},
    load, matches,
};

/// How a packet ended, as far as both sides tell it alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Delivered {
        source: SocketAddr,
        destination: SocketAddr,
        mark: u32,
        interface: String,
    },
    Sent {
        source: SocketAddr,
        destination: SocketAddr,
        mark: u32,
        interface: String,
    },
    /// With this type and code of ICMP, or a reset.
    Rejected(Option<(u8, u8)>),
    Dropped,
}

impl End {
    /// What the evaluator says, in the same words.
    pub fn of(outcome: &Outcome) -> Self {
        let packet = &outcome.packet;
        let (source, destination, mark) = (packet.source, packet.destination, packet.mark);
        match &outcome.fate {
            Fate::Delivered => {
                let interface = packet.input.clone().unwrap_or_default();
                Self::Delivered { source, destination, mark, interface }
            }
            Fate::Sent { interface } => {
                let interface = interface.clone().unwrap_or_default();
                Self::Sent { source, destination, mark, interface }
            }
            Fate::Dropped { .. } => Self::Dropped,
            Fate::Rejected { how, .. } => {
                // include/net/netfilter/nf_reject.h and nft_reject.c, v6.18: icmpx codes by family.
                let icmpx = |code: u8| match (packet.is_ipv4(), code) {
                    (true, 0) => (3, 0),
                    (true, 1) => (3, 3),
                    (true, 2) => (3, 1),
                    (true, _) => (3, 13),
                    (false, 0) => (1, 0),
                    (false, 1) => (1, 4),
                    (false, 2) => (1, 3),
                    (false, _) => (1, 1),
                };
                Self::Rejected(match how {
                    portolan_nft::Reject::TcpReset => None,
                    portolan_nft::Reject::Icmpx(code) => Some(icmpx(*code)),
                    portolan_nft::Reject::Icmp(code) => Some((if packet.is_ipv4() { 3 } else { 1 }, *code)),
                })
            }
            Fate::Unroutable => Self::Dropped,
        }
    }

    /// Without the source port, which the kernel chooses where it masquerades.
    pub fn without_source_port(self) -> Self {
        let no_port = |source: SocketAddr| SocketAddr::new(source.ip(), 0);
        match self {
            Self::Sent { source, destination, mark, interface } => {
                Self::Sent { source: no_port(source), destination, mark, interface }
            }
            Self::Delivered { source, destination, mark, interface } => {
                Self::Delivered { source: no_port(source), destination, mark, interface }
            }
            other => other,
        }
    }
}

/// The protocols of probes and where each has its number, from the header above IP on.
const NUMBERS: [(u8, u32); 3] = [(6, 4), (17, 8), (132, 16)];

fn number(base_offset: u32, to: Register) -> Expression {
    Expression::Payload(Payload { base: PayloadBase::Transport, offset: base_offset, length: 4, to })
}

fn byte(offset: u32, to: Register) -> Expression {
    Expression::Payload(Payload { base: PayloadBase::Transport, offset, length: 1, to })
}

fn add(set: &str) -> Expression {
    Expression::Dynset(Dynset {
        operation: DynsetOperation::Add,
        set: set.to_owned(),
        key: Register::R1,
        value: None,
        timeout: None,
        expressions: Vec::new(),
    })
}

/// Number, addresses, ports, mark, interface.
fn lengths(ipv4: bool) -> impl Iterator<Item = usize> {
    let address = if ipv4 { 4 } else { 16 };
    [4, address, address, 2, 2, 4, 16].into_iter()
}

pub fn table() -> Ruleset {
    let base = |name: &str, hook, priority| Chain::base(name, ChainKind::Filter, hook, priority);
    let dynamic = |name: &str, types: &[DataType]| Set::new(name, types).dynamic(65_535);
    let mut ruleset = Ruleset::new(Table::new(Family::Inet, "observer"));
    let mut left = Vec::new();
    let mut came = Vec::new();
    let mut refused = Vec::new();
    for ipv4 in [true, false] {
        let (address, suffix) = if ipv4 { (DataType::Ipv4Addr, "4") } else { (DataType::Ipv6Addr, "6") };
        // One field for nft, which knows five at most; several for us.
        let key =
            [DataType::Other(5, lengths(ipv4).map(|field| field.next_multiple_of(4)).sum::<usize>() as u8)];
        for name in ["left", "came"] {
            ruleset = ruleset.set(dynamic(&format!("{name}{suffix}"), &key), []);
        }
        for (protocol, offset) in NUMBERS {
            let rule = |chain: &str, interface: MetaKey, set: &str| {
                let addresses = if ipv4 {
                    [Selector::IpSource, Selector::IpDestination]
                } else {
                    [Selector::Ip6Source, Selector::Ip6Destination]
                };
                let selectors = [
                    addresses[0],
                    addresses[1],
                    Selector::SourcePort,
                    Selector::DestinationPort,
                    Selector::Mark,
                ];
                let lengths: usize = 4 + 2 * address.length() + 12;
                let not_reset = if protocol == 6 { not_reset() } else { Vec::new() };
                Rule::new(chain)
                    .then(if ipv4 { matches::ipv4() } else { matches::ipv6() })
                    .then(matches::protocol(protocol))
                    .then(not_reset)
                    .then(number(offset, Register::R1))
                    .then(load(&selectors, Register::R1.after(4)))
                    .then(Expression::Meta { key: interface, to: Register::R1.after(lengths) })
                    .then(add(&format!("{set}{suffix}")))
            };
            left.push(rule("left", MetaKey::OutputInterfaceName, "left"));
            came.push(rule("came", MetaKey::InputInterfaceName, "came"));
            // Behind 8 bytes of ICMP and the IP header of the refused packet.
            let inner = 8 + if ipv4 { 20 } else { 40 };
            let protocol_at = if ipv4 { 8 + 9 } else { 8 + 6 };
            refused.push(
                Rule::new("refused")
                    .then(matches::protocol(if ipv4 { 1 } else { 58 }))
                    .then(byte(protocol_at, Register::R1))
                    .then(equal(Data::new().field(&[protocol])))
                    .then(number(inner + offset, Register::R1))
                    .then(byte(0, Register::R1.after(4)))
                    .then(byte(1, Register::R1.after(8)))
                    .then(add("refused")),
            );
        }
    }
    let reset = Rule::new("refused")
        .then(matches::protocol(6))
        .then(flag(ComparisonOperator::NotEqual))
        .then(number(8, Register::R1))
        .then(add("reset"));
    refused.push(reset);
    ruleset
        .set(dynamic("refused", &[DataType::Integer, DataType::InetProto, DataType::InetProto]), [])
        .set(dynamic("reset", &[DataType::Integer]), [])
        .chain(base("left", Hook::Postrouting, 2000), left)
        .chain(base("came", Hook::Input, 2000), came)
        .chain(base("refused", Hook::Output, -500), refused)
}

fn equal(value: Data) -> Expression {
    Expression::Compare(Compare { operator: ComparisonOperator::Equal, register: Register::R1, value })
}

/// The reset flag is set (not equal to zero), or not (equal).
fn flag(operator: ComparisonOperator) -> Vec<Expression> {
    let (mask, xor) = (Data::new().field(&[4]), Data::new().field(&[0]));
    vec![
        byte(13, Register::R1),
        Expression::Bitwise(Bitwise { from: Register::R1, to: Register::R1, mask, xor }),
        Expression::Compare(Compare { operator, register: Register::R1, value: Data::new().field(&[0]) }),
    ]
}

fn not_reset() -> Vec<Expression> {
    flag(ComparisonOperator::Equal)
}

/// Everything that was seen until now, by number. What reached a socket's door or left ended so, whatever anybody
/// answered to it later; what left by the loopback only did not.
pub fn seen(nft: &mut dyn Nft) -> BTreeMap<u32, End> {
    let ruleset = nft.dump(&table().table).unwrap().unwrap();
    let mut seen = BTreeMap::new();
    for fields in keys(&ruleset, "reset") {
        // The reset acknowledges the SYN: its sequence number and one.
        seen.insert(id(&fields[0]).wrapping_sub(1), End::Rejected(None));
    }
    for fields in keys(&ruleset, "refused") {
        seen.insert(id(&fields[0]), End::Rejected(Some((fields[1][0], fields[2][0]))));
    }
    for set in ["left4", "left6", "came4", "came6"] {
        for fields in keys(&ruleset, set) {
            let source = SocketAddr::new(address(&fields[1]), port(&fields[3]));
            let destination = SocketAddr::new(address(&fields[2]), port(&fields[4]));
            let mark = u32::from_ne_bytes(fields[5].as_slice().try_into().unwrap());
            let name: Vec<u8> = fields[6].iter().copied().take_while(|byte| *byte != 0).collect();
            let interface = String::from_utf8(name).unwrap();
            if set.starts_with("came") {
                seen.insert(id(&fields[0]), End::Delivered { source, destination, mark, interface });
            } else if interface != "lo" {
                seen.insert(id(&fields[0]), End::Sent { source, destination, mark, interface });
            }
        }
    }
    seen
}

/// The keys of a set, field by field.
fn keys(ruleset: &Ruleset, name: &str) -> Vec<Vec<Vec<u8>>> {
    let filled = ruleset.find_set(name).unwrap();
    let lengths: Vec<usize> = match name {
        "left4" | "came4" => lengths(true).collect(),
        "left6" | "came6" => lengths(false).collect(),
        _ => filled.set.key.iter().map(|field| field.length()).collect(),
    };
    let fields = |key: &Data| key.split(&lengths).map(<[u8]>::to_vec).collect::<Vec<_>>();
    filled.elements.iter().map(|element| fields(&element.key)).collect()
}

fn id(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(octets) => IpAddr::from(octets),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap()),
    }
}

fn port(bytes: &[u8]) -> u16 {
    u16::from_be_bytes(bytes.try_into().unwrap())
}
