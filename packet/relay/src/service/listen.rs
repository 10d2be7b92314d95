//! Sockets of frontends.

use std::{io, net::SocketAddr, os::fd::OwnedFd};

use portolan_model::Protocol;
use portolan_netlink::{process, sockdiag};
use socket2::{Domain, SockRef, Socket, Type};

use super::FrontendKey;
use crate::filter;

/// Connections that are complete and not yet accepted.
pub(crate) const BACKLOG: i32 = 1024;
/// Asked of the kernel for UDP, so that a burst is not lost while something else has the processor.
const UDP_BUFFER: usize = 4 << 20;

/// A frontend that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot serve {service} on {key}: {reason}")]
pub struct ListenError {
    /// Where.
    pub key: FrontendKey,
    /// `NAMESPACE/NAME:PORT`.
    pub service: String,
    /// What is in the way, and what to do about it.
    pub reason: String,
}

/// Binds, and for TCP listens.
pub(crate) fn bind(key: FrontendKey, loopback_only: bool) -> Result<OwnedFd, String> {
    let kind = match key.protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
        Protocol::Sctp => {
            return Err(
                "SCTP is not relayed in user space: use `portolan proxy`, which does it in the kernel"
                    .to_owned(),
            );
        }
    };
    socket(key, kind, loopback_only).map_err(|error| reason(&error, key))
}

fn socket(key: FrontendKey, kind: Type, loopback_only: bool) -> io::Result<OwnedFd> {
    let address = key.listen;
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if key.protocol == Protocol::Tcp {
        // Connections of a former life in TIME_WAIT are not in the way of this one.
        socket.set_reuse_address(true)?;
    } else {
        // The kernel gives what net.core.rmem_max and wmem_max allow; less is no fault.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        let _ = socket.set_send_buffer_size(UDP_BUFFER);
    }
    if loopback_only {
        // Before anything could come in.
        filter::attach(&SockRef::from(&socket))?;
    }
    socket.bind(&address.into())?;
    if key.protocol == Protocol::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

/// What is in the way in words, with the process that has the port as far as this user may see it.
fn reason(error: &io::Error, key: FrontendKey) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = holder(key.listen, key.protocol);
            let by = holder.map(|holder| format!(" by {holder}")).unwrap_or_default();
            format!("the port is in use{by}: stop that, or give the Service another nodePort")
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose a higher one".to_owned()
        }
        _ => error.to_string(),
    }
}

fn holder(address: SocketAddr, protocol: Protocol) -> Option<String> {
    let sockets = sockdiag::bound(protocol, address.port()).ok()?;
    sockets
        .iter()
        .filter(|socket| address.ip().is_unspecified() || socket.serves(address.ip()))
        .find_map(|socket| process::owner_of(socket.inode))
        .map(|process| process.to_string())
}
