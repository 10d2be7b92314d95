//! Which sockets are bound to which port: the kernel's own answer over `NETLINK_SOCK_DIAG` (sock_diag(7)).
//!
//! It sees every socket of the namespace, whoever has it, also those that are bound and neither listen nor are
//! connected (TCP: since kernel 6.8, `TCP_BOUND_INACTIVE`). Who has a socket open tells [`crate::process::owner_of`]
//! by the inode.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use portolan_model::Protocol;

use crate::{
    error::NetlinkError,
    message::Message,
    socket::{Bus, Socket},
};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [2, 10];
/// The size of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// The size of `struct inet_diag_msg`.
const ANSWER: usize = 72;
/// `INET_DIAG_SKV6ONLY`.
const V6_ONLY: u16 = 11;

/// Why the sockets could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    /// The kernel has no diagnosis for this protocol: its module (`tcp_diag`, `udp_diag`, `sctp_diag`) is missing.
    #[error("this kernel cannot list the {0} sockets (module {0}_diag): load it, or see /proc/net/{0}")]
    Unsupported(Protocol),
    /// The exchange failed.
    #[error("listing the {protocol} sockets: {source}")]
    Netlink {
        /// Whose sockets.
        protocol: Protocol,
        /// Why.
        source: NetlinkError,
    },
}

/// What a socket with a local port does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has the port, and neither listens nor is connected: a hold, or a UDP socket that receives from all.
    Bound,
    /// It accepts connections.
    Listening,
    /// It is connected.
    Connected,
    /// It is about to be connected, or being closed; the last TCP state `TIME_WAIT` has no owner any more.
    Other(u8),
}

/// A socket with a local port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSocket {
    /// Its own address; unspecified when it takes packets for all.
    pub local: SocketAddr,
    /// The other side's, for a connected one.
    pub remote: Option<SocketAddr>,
    /// What it does.
    pub state: State,
    /// The user who made it.
    pub uid: u32,
    /// Its inode in `/proc/PID/fd`; 0 when no process has it any more.
    pub inode: u64,
    /// For an IPv6 socket that is not connected: whether it leaves IPv4 to others (`IPV6_V6ONLY`).
    pub v6_only: Option<bool>,
}

impl BoundSocket {
    /// Whether it takes what is sent to `address`: its own, or all, of the families that it serves.
    pub fn serves(&self, address: IpAddr) -> bool {
        match (self.local.ip(), address) {
            (IpAddr::V6(any), IpAddr::V4(_)) if any.is_unspecified() => self.v6_only == Some(false),
            (own, address) if own.is_unspecified() => own.is_ipv4() == address.is_ipv4(),
            (own, address) => own.to_canonical() == address.to_canonical(),
        }
    }
}

/// The sockets of this network namespace whose local port is `port`.
pub fn bound(protocol: Protocol, port: u16) -> Result<Vec<BoundSocket>, SockDiagError> {
    list(protocol, Some(port))
}

/// The sockets of this network namespace which have a local port.
pub fn all(protocol: Protocol) -> Result<Vec<BoundSocket>, SockDiagError> {
    list(protocol, None)
}

fn list(protocol: Protocol, port: Option<u16>) -> Result<Vec<BoundSocket>, SockDiagError> {
    let fail = |source: NetlinkError| {
        if !source.is_absent() {
            return SockDiagError::Netlink { protocol, source };
        }
        SockDiagError::Unsupported(protocol)
    };
    let socket = Socket::open(Bus::SockDiag).map_err(fail)?;
    let mut sockets = Vec::new();
    for family in FAMILIES {
        let request = request(family, protocol, port);
        let found = socket.dump(
            BY_FAMILY,
            |w| w.raw(&request),
            Vec::new,
            |found, message| {
                found.extend(
                    parse(message).filter(|s| port.map_or(s.local.port() != 0, |p| s.local.port() == p)),
                );
            },
        );
        match found {
            Ok(found) => sockets.extend(found),
            // Without the protocol itself there is nothing to list.
            Err(error) if error.is_absent() && protocol == Protocol::Sctp && !has_sctp() => {}
            Err(error) => return Err(fail(error)),
        }
    }
    Ok(sockets)
}

fn has_sctp() -> bool {
    Path::new("/proc/net/sctp").exists()
}

/// `struct inet_diag_req_v2`: all states, filtered by the kernel for the port.
fn request(family: u8, protocol: Protocol, port: Option<u16>) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    request[0] = family;
    request[1] = protocol.number();
    request[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    request[8..10].copy_from_slice(&port.unwrap_or(0).to_be_bytes());
    // No cookie is INET_DIAG_NOCOOKIE, all ones.
    request[48..56].copy_from_slice(&[0xff; 8]);
    request
}

/// Reads `struct inet_diag_msg`.
fn parse(message: &Message<'_>) -> Option<BoundSocket> {
    let fixed: &[u8; ANSWER] = message.payload.first_chunk()?;
    let word = |at: usize| u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let port = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let address = |at: usize| -> Option<IpAddr> {
        Some(match fixed[0] {
            2 => Ipv4Addr::from(*fixed.get(at..)?.first_chunk::<4>()?).into(),
            10 => Ipv6Addr::from(*fixed.get(at..)?.first_chunk::<16>()?).into(),
            _ => return None,
        })
    };
    let local = SocketAddr::new(address(8)?, port(4));
    let remote = Some(SocketAddr::new(address(24)?, port(6))).filter(|remote| remote.port() != 0);
    Some(BoundSocket {
        local,
        remote,
        // include/net/tcp_states.h; UDP and SCTP use the same numbers.
        state: match fixed[1] {
            1 => State::Connected,
            7 | 13 => State::Bound,
            10 => State::Listening,
            other => State::Other(other),
        },
        uid: word(64),
        inode: u64::from(word(68)),
        v6_only: message.attributes(ANSWER).find(V6_ONLY).and_then(|a| a.u8()).map(|only| only != 0),
    })
}

#[cfg(test)]
mod tests;
