//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{RouteError, Rtnl, family, read_address, write_address};
use crate::message::{CREATE, EXCLUSIVE, Message};

const NEW: u16 = 20;
const DELETE: u16 = 21;
const GET: u16 = 22;

/// The size of `struct ifaddrmsg`.
const FIXED: usize = 8;

// enum IFA_* in include/uapi/linux/if_addr.h.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const FLAGS: u16 = 8;

const TEMPORARY: u32 = 0x01;
const NO_DAD: u32 = 0x02;
const DAD_FAILED: u32 = 0x08;
const DEPRECATED: u32 = 0x20;
const TENTATIVE: u32 = 0x40;

/// How far an address counts (rtnetlink(7), `ifa_scope`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// On this link only.
    Link,
    /// On this machine only.
    Host,
    /// Another number.
    Other(u8),
}

impl Scope {
    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Global,
            253 => Self::Link,
            254 => Self::Host,
            other => Self::Other(other),
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Global => 0,
            Self::Link => 253,
            Self::Host => 254,
            Self::Other(number) => number,
        }
    }
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface's number.
    pub index: u32,
    /// The address with its prefix length.
    pub net: IpNet,
    /// How far it counts. For IPv6 the kernel tells it from the address itself; a unique local one is global.
    pub scope: Scope,
    /// Whether it may be used as a source now: not tentative, not failed, not deprecated.
    pub usable: bool,
    /// IPv6: one that changes every day or so (RFC 8981). IPv4: not the first of its subnet.
    pub secondary: bool,
}

/// An address to be added.
#[derive(Clone, Copy, Debug)]
pub struct NewAddress {
    /// The interface's number.
    pub index: u32,
    /// The address with its prefix length.
    pub net: IpNet,
    /// How far it counts; without effect for IPv6.
    pub scope: Scope,
}

impl Rtnl {
    /// All addresses of both families.
    pub fn addresses(&self) -> Result<Vec<Address>, RouteError> {
        self.socket
            .dump(GET, |w| w.raw(&[0; FIXED]), Vec::new, |found, message| found.extend(parse(message)))
            .map_err(RouteError::during("listing the addresses"))
    }

    /// Adds an address. An IPv6 address can be used at once: no duplicate address detection (RFC 4862, 5.4), which
    /// takes a second or two and has no sense on a link that has no other owner.
    pub fn add_address(&self, new: &NewAddress) -> Result<(), RouteError> {
        let address = new.net.addr();
        self.socket
            .transact(NEW, CREATE | EXCLUSIVE, |w| {
                w.raw(&fixed(new.index, new.net, new.scope));
                write_address(w, LOCAL, address);
                write_address(w, ADDRESS, address);
                if address.is_ipv6() {
                    w.u32(FLAGS, NO_DAD);
                }
            })
            .map_err(RouteError::during(format!("adding the address {} to interface {}", new.net, new.index)))
    }

    /// Takes an address away; `false` when it was not there.
    pub fn delete_address(&self, index: u32, net: IpNet) -> Result<bool, RouteError> {
        let result = self.socket.transact(DELETE, 0, |w| {
            w.raw(&fixed(index, net, Scope::Global));
            write_address(w, LOCAL, net.addr());
        });
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(source) => Err(RouteError::Netlink {
                action: format!("deleting the address {net} of interface {index}"),
                source,
            }),
        }
    }
}

/// `struct ifaddrmsg`.
fn fixed(index: u32, net: IpNet, scope: Scope) -> [u8; FIXED] {
    let mut fixed = [family(net.addr()), net.prefix_len(), 0, scope.number(), 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed
}

fn parse(message: &Message<'_>) -> Option<Address> {
    let fixed: &[u8; FIXED] = message.payload.first_chunk().filter(|_| message.kind == NEW)?;
    let attributes = message.attributes(FIXED);
    // On a point-to-point link ADDRESS is the other side's; LOCAL, where there is one, is always ours.
    let address = attributes.find(LOCAL).or_else(|| attributes.find(ADDRESS))?;
    let address: IpAddr = read_address(&address)?;
    // The 8 bits in the fixed part are the low ones of the attribute, which not every kernel sends.
    let flags = attributes.find(FLAGS).and_then(|flags| flags.u32()).unwrap_or(u32::from(fixed[2]));
    Some(Address {
        index: u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
        net: IpNet::new(address, fixed[1]).ok()?,
        scope: Scope::from_number(fixed[3]),
        usable: flags & (TENTATIVE | DAD_FAILED | DEPRECATED) == 0,
        secondary: flags & TEMPORARY != 0,
    })
}
