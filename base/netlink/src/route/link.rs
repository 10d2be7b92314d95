//! Links: what interfaces there are, veth pairs, up, MTU, delete.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::{RouteError, Rtnl};
use crate::message::{CREATE, EXCLUSIVE, Message, MessageWriter};

const NEW: u16 = 16;
const DELETE: u16 = 17;
const GET: u16 = 18;

/// The size of `struct ifinfomsg`.
const FIXED: usize = 16;

// enum IFLA_* in include/uapi/linux/if_link.h.
const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const LINK_INFO: u16 = 18;
const ALIAS: u16 = 20;
const NAMESPACE_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;

// enum net_device_flags in include/uapi/linux/if.h.
const UP: u32 = 1;
const LOOPBACK: u32 = 1 << 3;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number, unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is switched on (not: whether a cable is in it).
    pub up: bool,
    /// Whether it is a loopback.
    pub loopback: bool,
    /// The largest packet it carries, in bytes.
    pub mtu: u32,
    /// The link layer address, six bytes for Ethernet.
    pub mac: Vec<u8>,
    /// `veth`, `bridge` and so on; `None` for hardware.
    pub kind: Option<String>,
    /// A text that somebody put on it (`ip link set alias`).
    pub alias: Option<String>,
}

/// A veth pair to be made.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// The name of the end in this namespace.
    pub name: &'a str,
    /// A text on this end, by which its maker knows it again; at most 255 bytes.
    pub alias: Option<&'a str>,
    /// The name of the other end.
    pub peer: &'a str,
    /// Where the other end is; `None` for here.
    pub namespace: Option<BorrowedFd<'a>>,
    /// The MTU of both ends; `None` for the kernel's 1500.
    pub mtu: Option<u32>,
}

impl Rtnl {
    /// All interfaces.
    pub fn links(&self) -> Result<Vec<Link>, RouteError> {
        self.socket
            .dump(GET, |w| w.raw(&[0; FIXED]), Vec::new, |links, message| links.extend(parse(message)))
            .map_err(RouteError::during("listing the interfaces"))
    }

    /// The interface of this name.
    pub fn link(&self, name: &str) -> Result<Option<Link>, RouteError> {
        check_name(name)?;
        let write = |w: &mut MessageWriter| {
            w.raw(&[0; FIXED]);
            w.str0(NAME, name);
        };
        self.get(GET, write, parse).map_err(RouteError::during(format!("reading the interface {name}")))
    }

    /// Makes a veth pair, both ends down. Fails with [`RouteError::is_present`] when a name is taken. When it fails,
    /// nothing of the pair is left.
    pub fn create_veth(&self, veth: &Veth<'_>) -> Result<(), RouteError> {
        check_name(veth.name)?;
        check_name(veth.peer)?;
        let write = |w: &mut MessageWriter| {
            w.raw(&[0; FIXED]);
            w.str0(NAME, veth.name);
            if let Some(mtu) = veth.mtu {
                w.u32(MTU, mtu);
            }
            w.nest(LINK_INFO, |w| {
                w.str0(INFO_KIND, "veth");
                w.nest(INFO_DATA, |w| {
                    w.nest(VETH_PEER, |w| {
                        w.raw(&[0; FIXED]);
                        w.str0(NAME, veth.peer);
                        if let Some(mtu) = veth.mtu {
                            w.u32(MTU, mtu);
                        }
                        if let Some(namespace) = veth.namespace {
                            w.u32(NAMESPACE_FD, namespace.as_fd().as_raw_fd().cast_unsigned());
                        }
                    });
                });
            });
        };
        self.socket
            .transact(NEW, CREATE | EXCLUSIVE, write)
            .map_err(RouteError::during(format!("making the veth pair {} and {}", veth.name, veth.peer)))?;
        let Some(alias) = veth.alias else { return Ok(()) };
        // The kernel takes an alias only for an interface that is there.
        self.set_alias(veth.name, alias).inspect_err(|_| {
            if let Err(error) = self.delete_link(veth.name) {
                tracing::warn!(%error, "a half-made veth pair stays");
            }
        })
    }

    fn set_alias(&self, name: &str, alias: &str) -> Result<(), RouteError> {
        self.socket
            .transact(NEW, 0, |w| {
                w.raw(&[0; FIXED]);
                w.str0(NAME, name);
                w.str0(ALIAS, alias);
            })
            .map_err(RouteError::during(format!("setting the alias of interface {name}")))
    }

    /// Switches an interface on.
    pub fn set_up(&self, index: u32) -> Result<(), RouteError> {
        self.change(index, "switching on", UP, |_| {})
    }

    /// Sets the largest packet, in bytes. A veth's other end keeps its own.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), RouteError> {
        self.change(index, "setting the MTU of", 0, |w| w.u32(MTU, mtu))
    }

    fn change(
        &self,
        index: u32,
        action: &str,
        flags: u32,
        write: impl FnOnce(&mut MessageWriter),
    ) -> Result<(), RouteError> {
        self.socket
            .transact(NEW, 0, |w| {
                w.raw(&fixed(index, flags));
                write(w);
            })
            .map_err(RouteError::during(format!("{action} interface {index}")))
    }

    /// Deletes an interface, with a veth its other end too. `false` when there was none of this name.
    pub fn delete_link(&self, name: &str) -> Result<bool, RouteError> {
        check_name(name)?;
        let result = self.socket.transact(DELETE, 0, |w| {
            w.raw(&[0; FIXED]);
            w.str0(NAME, name);
        });
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(source) => {
                Err(RouteError::Netlink { action: format!("deleting the interface {name}"), source })
            }
        }
    }
}

/// `struct ifinfomsg` with these flags to be set.
fn fixed(index: u32, flags: u32) -> [u8; FIXED] {
    let mut fixed = [0; FIXED];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&flags.to_ne_bytes());
    fixed
}

fn parse(message: &Message<'_>) -> Option<Link> {
    let fixed: &[u8; FIXED] = message.payload.first_chunk().filter(|_| message.kind == NEW)?;
    let flags = u32::from_ne_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
    let mut link = Link {
        index: u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
        name: String::new(),
        up: flags & UP != 0,
        loopback: flags & LOOPBACK != 0,
        mtu: 0,
        mac: Vec::new(),
        kind: None,
        alias: None,
    };
    for attribute in message.attributes(FIXED) {
        match attribute.kind {
            ADDRESS => link.mac = attribute.payload.to_vec(),
            NAME => attribute.str()?.clone_into(&mut link.name),
            MTU => link.mtu = attribute.u32()?,
            ALIAS => link.alias = attribute.str().map(str::to_owned),
            LINK_INFO => {
                link.kind = attribute.nested().find(INFO_KIND).and_then(|kind| kind.str()).map(str::to_owned);
            }
            _ => {}
        }
    }
    Some(link)
}

/// `dev_valid_name` in the kernel's `net/core/dev.c`.
fn check_name(name: &str) -> Result<(), RouteError> {
    let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
    let plain = !name.bytes().any(|b| matches!(b, b'/' | b':' | 0) || b.is_ascii_whitespace());
    if fits && plain { Ok(()) } else { Err(RouteError::BadName(name.to_owned())) }
}
