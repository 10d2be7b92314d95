//! The sockets: inherited ones, else the port that `portolan run` chose, else one that the kernel chooses.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context;
use portolan_model::{Protocol, PublishedPort};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use super::inherited;
use crate::output::problem::Hint;

/// What the server listens on.
pub(crate) struct Sockets {
    pub(crate) tcp: TcpListener,
    /// The number that the server itself listens on.
    pub(crate) port: u16,
    /// Whether IPv6 is served by the same socket.
    pub(crate) dual_stack: bool,
    /// The echo's socket.
    pub(crate) udp: Option<UdpSocket>,
    /// What `portolan run` published, if it started this server.
    pub(crate) published: Vec<PublishedPort>,
}

/// Opens them; UDP only when `udp_echo`.
pub(crate) fn open(udp_echo: bool) -> anyhow::Result<Sockets> {
    let published = published()?;
    let mut inherited = inherited::sockets()?;
    let wanted = |protocol| {
        published.iter().find(|port| port.protocols.contains(protocol)).map_or(0, |port| port.container)
    };
    let tcp: std::net::TcpListener = match inherited.tcp.pop() {
        Some(socket) => socket.into(),
        None => {
            let port = wanted(Protocol::Tcp);
            bind(Type::STREAM, port).with_context(|| format!("cannot listen on TCP port {port}"))?.into()
        }
    };
    tcp.set_nonblocking(true)?;
    let local = tcp.local_addr().context("cannot read which port the server listens on")?;
    let udp = match (udp_echo, inherited.udp.pop()) {
        (false, _) => None,
        (true, Some(socket)) => Some(std::net::UdpSocket::from(socket)),
        (true, None) => Some(match wanted(Protocol::Udp) {
            0 => bind(Type::DGRAM, local.port())
                .or_else(|_| bind(Type::DGRAM, 0))
                .context("cannot open a UDP socket")?
                .into(),
            port => bind(Type::DGRAM, port)
                .with_context(|| format!("cannot open UDP port {port}"))
                .hint("another process has it: see `portolan ports` and `ss -lunp`")?
                .into(),
        }),
    };
    let udp = udp.map(|udp| udp.set_nonblocking(true).and_then(|()| UdpSocket::from_std(udp))).transpose()?;
    Ok(Sockets {
        tcp: TcpListener::from_std(tcp)?,
        port: local.port(),
        dual_stack: local.is_ipv6() && local.ip().is_unspecified(),
        udp,
        published,
    })
}

/// The ports that `portolan run` told in `PORTOLAN_PORTS`. `PORT` alone is too common a name to be believed.
fn published() -> anyhow::Result<Vec<PublishedPort>> {
    match std::env::var("PORTOLAN_PORTS") {
        Ok(text) => serde_json::from_str(&text)
            .context("the variable PORTOLAN_PORTS is not what `portolan run` writes"),
        Err(_) => Ok(Vec::new()),
    }
}

/// Both families on one socket and so on one number; IPv4 alone where the kernel has no IPv6.
fn bind(kind: Type, port: u16) -> std::io::Result<Socket> {
    let attempt = |domain, address: SocketAddr| {
        let socket = Socket::new(domain, kind, None)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        if kind == Type::STREAM && port != 0 {
            // A server that is started again at its port must not wait for connections of its last life to leave
            // TIME_WAIT. Nobody else can listen there all the same (socket(7)).
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        if kind == Type::STREAM {
            socket.listen(1024)?;
        }
        Ok::<_, std::io::Error>(socket)
    };
    attempt(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()).or_else(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Err(error),
        _ => attempt(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_serves_both_families() {
        let listener: std::net::TcpListener = bind(Type::STREAM, 0).unwrap().into();
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn a_taken_port_is_refused_and_not_shared() {
        let first: std::net::TcpListener = bind(Type::STREAM, 0).unwrap().into();
        let port = first.local_addr().unwrap().port();
        assert_eq!(bind(Type::STREAM, port).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    }
}
