//! Mappings to the instances of the tests.
#![allow(unreachable_pub, reason = "shared by several test binaries")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::{Ipv4Addr, Ipv6Addr};

use portolan_model::{Mapping, PortRange, Protocol};

pub fn v4(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 213, high, low)
}

pub fn v6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd70, 0x6f72, 0x746f, 0, 0, 0, 0, number)
}

/// A mapping of one port to instance `number`, both families.
pub fn port(protocol: Protocol, host: u16, number: u16, container: u16) -> Mapping {
    let host = PortRange::single(host).unwrap();
    Mapping { protocol, address: None, host, container, v4: Some(v4(number)), v6: Some(v6(number)) }
}

/// A mapping of a block to instance `number`, both families.
pub fn block(protocol: Protocol, first: u16, last: u16, number: u16) -> Mapping {
    Mapping { host: PortRange::new(first, last).unwrap(), ..port(protocol, first, number, first) }
}

pub mod cluster;
pub mod site;
