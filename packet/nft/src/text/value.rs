//! Single values and keys.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{Data, DataType, Element, ElementValue, Set, SetValue};

/// One field of this type.
pub(crate) fn field(data_type: DataType, bytes: &[u8]) -> String {
    let number = || bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
    match (data_type, bytes.len()) {
        (DataType::Ipv4Addr, 4) => {
            <[u8; 4]>::try_from(bytes).map(Ipv4Addr::from).map_or_else(|_| hex(bytes), |a| a.to_string())
        }
        (DataType::Ipv6Addr, 16) => {
            <[u8; 16]>::try_from(bytes).map(Ipv6Addr::from).map_or_else(|_| hex(bytes), |a| a.to_string())
        }
        (DataType::InetProto, 1) => protocol(bytes[0]),
        (DataType::NfProto, 1) => match bytes[0] {
            2 => "ipv4".to_owned(),
            10 => "ipv6".to_owned(),
            other => other.to_string(),
        },
        (DataType::InetService, 2) => u16::from_be_bytes([bytes[0], bytes[1]]).to_string(),
        (DataType::CtDirection, 1) => if bytes[0] == 0 { "original" } else { "reply" }.to_owned(),
        (DataType::Integer | DataType::InterfaceIndex, 4) => number().to_string(),
        (DataType::Mark, 4) => format!("{:#010x}", number()),
        (DataType::FibAddrType, 4) => address_type(number()),
        (DataType::CtState, 4) => bits(number(), &STATES),
        (DataType::CtStatus, 4) => bits(number(), &STATUSES),
        (DataType::InterfaceName, 16) => {
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            super::quoted(&String::from_utf8_lossy(&bytes[..end]))
        }
        // A prefix of a name: all that begin so.
        (DataType::InterfaceName, _) => super::quoted(&format!("{}*", String::from_utf8_lossy(bytes))),
        (BOOLEAN, _) => if bytes.iter().all(|byte| *byte == 0) { "missing" } else { "exists" }.to_owned(),
        _ => hex(bytes),
    }
}

/// nft's `boolean`, which `fib` gives when it is only asked whether.
pub(super) const BOOLEAN: DataType = DataType::Other(39, 1);

const STATES: [(u32, &str); 5] =
    [(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
const STATUSES: [(u32, &str); 6] =
    [(1, "expected"), (2, "seen-reply"), (4, "assured"), (8, "confirmed"), (16, "snat"), (32, "dnat")];

fn bits(number: u32, names: &[(u32, &str)]) -> String {
    let named: u32 = names.iter().map(|(bit, _)| bit).sum();
    if number == 0 || number & !named != 0 {
        return format!("{number:#x}");
    }
    let set: Vec<_> = names.iter().filter(|(bit, _)| number & bit != 0).map(|(_, name)| *name).collect();
    set.join(",")
}

fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// `RTN_*` of `linux/rtnetlink.h`.
fn address_type(number: u32) -> String {
    match number {
        1 => "unicast".to_owned(),
        2 => "local".to_owned(),
        3 => "broadcast".to_owned(),
        5 => "multicast".to_owned(),
        other => other.to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Fields side by side.
fn concatenation(types: &[DataType], data: &Data) -> String {
    let lengths: Vec<usize> = types.iter().map(|field| field.length()).collect();
    let fields: Vec<_> =
        types.iter().zip(data.split(&lengths)).map(|(one, bytes)| field(*one, bytes)).collect();
    fields.join(" . ")
}

/// An element's key: `10.0.0.1 . tcp . 80-90`.
pub(crate) fn element_key(set: &Set, element: &Element) -> String {
    let lengths: Vec<usize> = set.key.iter().map(|field| field.length()).collect();
    let (first, last) = (element.key.split(&lengths), element.last().split(&lengths));
    let fields = set.key.iter().zip(first.zip(last)).map(|(one, (first, last))| interval(*one, first, last));
    let fields: Vec<_> = fields.collect();
    fields.join(" . ")
}

fn interval(data_type: DataType, first: &[u8], last: &[u8]) -> String {
    if first == last {
        return field(data_type, first);
    }
    let address = matches!(data_type, DataType::Ipv4Addr | DataType::Ipv6Addr);
    match prefix_length(first, last).filter(|_| address) {
        Some(length) => format!("{}/{length}", field(data_type, first)),
        None => format!("{}-{}", field(data_type, first), field(data_type, last)),
    }
}

/// The length of the prefix that is exactly this interval.
fn prefix_length(first: &[u8], last: &[u8]) -> Option<u32> {
    let differ: Vec<u8> = first.iter().zip(last).map(|(one, two)| one ^ two).collect();
    let length: u32 = ones_from_left(&differ.iter().map(|byte| !byte).collect::<Vec<_>>())?;
    let zero_below = first.iter().zip(&differ).all(|(byte, differ)| byte & differ == 0);
    zero_below.then_some(length)
}

/// How many bits from the left are one; `None` when others are one too.
pub(super) fn ones_from_left(bytes: &[u8]) -> Option<u32> {
    let length: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
    let leading = bytes.iter().take_while(|byte| **byte == u8::MAX).count() as u32 * 8
        + bytes.iter().find(|byte| **byte != u8::MAX).map_or(0, |byte| byte.leading_ones());
    (length == leading).then_some(length)
}

/// An element as `nft list` prints it.
pub(super) fn element(set: &Set, element: &Element) -> String {
    let mut text = element_key(set, element);
    if let Some(counter) = &element.counter {
        text += &format!(" counter packets {} bytes {}", counter.packets, counter.bytes);
    }
    if let Some(timeout) = element.timeout {
        text += &format!(" timeout {}", super::time(timeout));
    }
    if let Some(expires) = element.expires {
        text += &format!(" expires {}", super::time(expires));
    }
    if let Some(comment) = &element.comment {
        text += &format!(" comment {}", super::quoted(comment));
    }
    match (&element.value, &set.value) {
        (Some(ElementValue::Data(data)), SetValue::Data(types)) => {
            text += &format!(" : {}", concatenation(types, data));
        }
        (Some(ElementValue::Verdict(verdict)), _) => text += &format!(" : {verdict}"),
        _ => {}
    }
    text
}
