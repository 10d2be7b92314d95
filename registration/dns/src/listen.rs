//! The sockets of a listener: one for UDP and one for TCP, on the same address and port.

use std::{io, net::SocketAddr};

use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

/// Asked of the kernel for the UDP socket, so that a burst is not lost while something else has the processor.
const UDP_BUFFER: usize = 1 << 20;

/// Attempts to find a number that is free for both protocols when any number will do.
const ATTEMPTS: usize = 16;

/// An address to answer on.
#[derive(Debug)]
pub struct Listener {
    /// Address and port, both UDP and TCP. Port 0 takes a free one.
    pub address: SocketAddr,
    /// Clients for whom names outside the zone are asked of this machine's resolvers. All others are refused those.
    pub forward_for: Vec<IpNet>,
    /// Whether to listen although no interface has the address yet (`IP_FREEBIND`, ip(7)): the gateway's comes
    /// with the first namespace.
    pub before_address: bool,
    /// UDP and TCP sockets that somebody has bound already; `None` binds `address`.
    pub sockets: Option<(std::net::UdpSocket, std::net::TcpListener)>,
}

impl Listener {
    /// A listener that answers names in the zone only.
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, forward_for: Vec::new(), before_address: false, sockets: None }
    }

    /// As [`Listener::new`], on sockets that are bound already: a program that takes all its addresses before it
    /// changes anything hands them over. Both should have the same address and port.
    pub fn bound(udp: std::net::UdpSocket, tcp: std::net::TcpListener) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let address = udp.local_addr()?;
        Ok(Self { sockets: Some((udp, tcp)), ..Self::new(address) })
    }

    /// Takes its sockets, or makes them.
    pub(crate) fn bind(&mut self) -> Result<Bound, DnsError> {
        bind(self)
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// A socket that cannot be had.
    #[error("cannot listen for DNS on {address} ({protocol}): {source}; {hint}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
}

/// Both sockets of a listener.
pub(crate) struct Bound {
    pub(crate) address: SocketAddr,
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

/// Both sockets of a listener. TCP first: it refuses a second server on the address in every case.
fn bind(listener: &mut Listener) -> Result<Bound, DnsError> {
    if let Some((udp, tcp)) = listener.sockets.take() {
        let address = listener.address;
        let failed = |protocol| {
            move |source| DnsError::Listen {
                address,
                protocol,
                source,
                hint: "this is a fault of the program",
            }
        };
        let udp = UdpSocket::from_std(udp).map_err(failed("udp"))?;
        let tcp = TcpListener::from_std(tcp).map_err(failed("tcp"))?;
        return Ok(Bound { address, udp, tcp });
    }
    let address = listener.address;
    let mut attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let failed = |protocol| {
            move |source: io::Error| {
                let hint = match source.kind() {
                    io::ErrorKind::AddrInUse => {
                        "another program answers there: stop it, or choose another address"
                    }
                    io::ErrorKind::PermissionDenied => "ports below 1024 need root: choose a higher one",
                    io::ErrorKind::AddrNotAvailable => "no interface has this address",
                    _ => "choose another address",
                };
                DnsError::Listen { address, protocol, source, hint }
            }
        };
        let tcp = tcp(listener, address).map_err(failed("tcp"))?;
        let bound = tcp.local_addr().map_err(failed("tcp"))?;
        match udp(listener, bound) {
            Ok(udp) => return Ok(Bound { address: bound, udp, tcp }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            Err(error) => return Err(failed("udp")(error)),
        }
    }
}

fn socket(listener: &Listener, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(listener.address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if listener.address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    match (listener.before_address, listener.address.is_ipv4()) {
        (false, _) => {}
        (true, true) => socket.set_freebind_v4(true)?,
        (true, false) => socket.set_freebind_v6(true)?,
    }
    Ok(socket)
}

fn tcp(listener: &Listener, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(listener, Type::STREAM, Protocol::TCP)?;
    // Connections of a server that has just ended are in TIME_WAIT; a server that still runs is refused all the same.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

fn udp(listener: &Listener, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(listener, Type::DGRAM, Protocol::UDP)?;
    // The kernel gives what net.core.rmem_max allows; less is no fault.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
