//! One hold: a socket that is bound and nothing else.
//!
//! * It never listens. A listening holder completes handshakes before any rule is there, and clients hang instead of
//!   being refused (kubernetes/kubernetes#108496, #106713, containers/podman#27311). A bound TCP socket refuses.
//! * Once bound it has no SO_REUSEADDR. With it on both sides another process could bind the port and listen (socket(7));
//!   without it, bind(2) of anybody fails with EADDRINUSE, and connect(2) and bind(0) never choose the port.
//! * One `[::]` socket with IPV6_V6ONLY off covers both families.
//!
//! Who keeps these sockets is [`crate::holder`].

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use portolan_model::{PortRange, Protocol, PublishedPort};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

/// Ports to hold: one protocol, one address or all, one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hold {
    /// The protocol.
    pub protocol: Protocol,
    /// The only host address; an unspecified one is all of its family, `None` all of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The ports.
    pub ports: PortRange,
}

impl Hold {
    /// What must be held for a published port: one hold for each of its protocols.
    pub fn of(port: &PublishedPort) -> impl Iterator<Item = Self> {
        let (address, ports) = (port.address, port.host);
        port.protocols.iter().map(move |protocol| Self { protocol, address, ports })
    }

    /// The same, one hold for each of its ports.
    pub fn each(self) -> impl Iterator<Item = Self> {
        self.ports.iter().filter_map(move |port| Some(Self { ports: PortRange::single(port).ok()?, ..self }))
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => write!(f, "{}/{}", self.ports, self.protocol),
            Some(IpAddr::V4(address)) => write!(f, "{address}:{}/{}", self.ports, self.protocol),
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}/{}", self.ports, self.protocol),
        }
    }
}

/// Binds one port. `None` when the kernel has no sockets of this protocol: then nobody can take the number either.
///
/// The errors are the kernel's: EADDRINUSE when somebody has the port, EADDRNOTAVAIL when the machine does not have
/// the address, EACCES below `ip_unprivileged_port_start` without the privilege.
pub fn bind(protocol: Protocol, address: Option<IpAddr>, port: u16) -> io::Result<Option<OwnedFd>> {
    let wildcard = address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    match bind_to(protocol, SocketAddr::new(wildcard, port), address.is_some()) {
        // A kernel without IPv6 (`ipv6.disable=1`): IPv4 is all there is to hold.
        Err(error) if address.is_none() && error.raw_os_error() == Some(EAFNOSUPPORT) => {
            bind_to(protocol, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), false)
        }
        result => result,
    }
}

/// A socket for [`bind_spare`]: for a port on all addresses of both families. `None` when the kernel has none such.
pub(crate) fn spare(protocol: Protocol) -> Option<OwnedFd> {
    unbound(protocol, Domain::IPV6, false).ok().flatten().map(OwnedFd::from)
}

/// Binds a port on all addresses, as [`bind`] does, to a socket that is there already.
pub(crate) fn bind_spare(spare: OwnedFd, protocol: Protocol, port: u16) -> io::Result<OwnedFd> {
    let socket = Socket::from(spare);
    bind_socket(&socket, protocol, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))?;
    Ok(socket.into())
}

const EADDRINUSE: i32 = rustix::io::Errno::ADDRINUSE.raw_os_error();
const EAFNOSUPPORT: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
const EPROTONOSUPPORT: i32 = rustix::io::Errno::PROTONOSUPPORT.raw_os_error();

fn bind_to(protocol: Protocol, address: SocketAddr, only_v6: bool) -> io::Result<Option<OwnedFd>> {
    let Some(socket) = unbound(protocol, Domain::for_address(address), only_v6)? else { return Ok(None) };
    bind_socket(&socket, protocol, address)?;
    Ok(Some(socket.into()))
}

/// A socket that can be bound to hold a port; `None` when the kernel does not have the protocol.
fn unbound(protocol: Protocol, domain: Domain, only_v6: bool) -> io::Result<Option<Socket>> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (Type::STREAM, socket2::Protocol::TCP),
        Protocol::Udp => (Type::DGRAM, socket2::Protocol::UDP),
        Protocol::Sctp => (Type::STREAM, socket2::Protocol::SCTP),
    };
    let socket = match Socket::new(domain, kind, Some(number)) {
        Ok(socket) => socket,
        Err(error) if protocol == Protocol::Sctp && error.raw_os_error() == Some(EPROTONOSUPPORT) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if domain == Domain::IPV6 {
        // `net.ipv6.bindv6only` may have changed the default.
        socket.set_only_v6(only_v6)?;
    }
    if protocol == Protocol::Udp {
        // Nobody reads this socket. The kernel's least buffer (some 2 KiB, one datagram) instead of 208 KiB keeps
        // strangers from filling memory through held ports. A failure costs memory, nothing else.
        let _ = socket.set_recv_buffer_size(0);
    }
    Ok(Some(socket))
}

fn bind_socket(socket: &Socket, protocol: Protocol, address: SocketAddr) -> io::Result<()> {
    match socket.bind(&address.into()) {
        // Connections that a relay on this port has closed are remembered for a minute (TIME-WAIT), and keep everybody
        // from the port who does not say SO_REUSEADDR; what listens keeps that one away too.
        Err(error) if protocol == Protocol::Tcp && error.raw_os_error() == Some(EADDRINUSE) => {
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.set_reuse_address(false)
        }
        bound => bound,
    }
}

/// Makes a held socket fit for its new owner: a UDP hold gets a receive buffer of normal size, emptied of what came
/// while it was held.
pub fn prepare_for_use(protocol: Protocol, fd: OwnedFd) -> io::Result<OwnedFd> {
    if protocol != Protocol::Udp {
        return Ok(fd);
    }
    let normal = Socket::new(Domain::IPV4, Type::DGRAM, Some(socket2::Protocol::UDP))?.recv_buffer_size()?;
    let socket = Socket::from(fd);
    // The kernel doubles what it is given and reports the double (socket(7), SO_RCVBUF).
    socket.set_recv_buffer_size(normal / 2)?;
    let flags = rustix::net::RecvFlags::DONTWAIT | rustix::net::RecvFlags::TRUNC;
    let mut one = [0u8; 1];
    // Bounded: the buffer was tiny, and somebody may be sending all the time.
    for _ in 0..64 {
        if rustix::net::recv(&socket, one.as_mut_slice(), flags).is_err() {
            break;
        }
    }
    Ok(socket.into())
}

/// Makes a held socket that was in use one that is only bound again. A failure leaves it as it is: the port is held.
pub(crate) fn only_bound(protocol: Protocol, fd: &OwnedFd) {
    let socket = socket2::SockRef::from(fd);
    match protocol {
        Protocol::Udp => {
            let _ = socket.set_recv_buffer_size(0);
        }
        // Of a socket that listens this ends just that; its port stays bound, as bind(2) was asked for it by number
        // (tcp_disconnect, v6.12). Others are left alone: it would keep them from ever receiving.
        Protocol::Tcp | Protocol::Sctp => {
            let _ = socket.set_reuse_address(false);
            if socket.is_listener().unwrap_or(false) {
                let _ = socket.shutdown(std::net::Shutdown::Read);
            }
        }
    }
}
