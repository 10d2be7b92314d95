//! What is promised about sockets. Ports are chosen by the kernel, so the tests meet nobody else's.

use std::net::{TcpListener, TcpStream, UdpSocket};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};

use super::*;
use crate::process::owner_of;

#[test]
fn a_listener_is_found_with_its_owner_and_its_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (_server, _) = listener.accept().unwrap();
    let found = bound(Protocol::Tcp, address.port()).unwrap();
    let listening = found.iter().find(|s| s.state == State::Listening).unwrap();
    assert_eq!((listening.local, listening.remote), (address, None));
    assert_eq!(listening.uid, rustix::process::geteuid().as_raw());
    assert_eq!(owner_of(listening.inode).unwrap().pid, std::process::id());
    let accepted = found.iter().find(|s| s.state == State::Connected).unwrap();
    assert_eq!(accepted.remote, Some(client.local_addr().unwrap()));
    assert!(bound(Protocol::Udp, address.port()).unwrap().is_empty());
}

#[test]
fn a_udp_socket_is_found_and_serves_what_it_is_bound_to() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let found = bound(Protocol::Udp, port).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].state, State::Bound);
    assert!(found[0].serves([127, 0, 0, 1].into()) && !found[0].serves([127, 0, 0, 2].into()));
    assert!(all(Protocol::Udp).unwrap().contains(&found[0]));
}

#[test]
fn a_tcp_socket_that_is_only_bound_is_found() {
    let release = rustix::system::uname();
    let mut version = release.release().to_str().unwrap().split(['.', '-']).flat_map(str::parse::<u32>);
    if (version.next(), version.next()) < (Some(6), Some(8)) {
        return portolan_testkit::skip("kernels before 6.8 do not list TCP sockets that are only bound");
    }
    let held = socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
    sockopt::set_ipv6_v6only(&held, false).unwrap();
    bind(&held, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    let address = SocketAddr::try_from(getsockname(&held).unwrap()).unwrap();
    let found = bound(Protocol::Tcp, address.port()).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].local, found[0].state, found[0].v6_only), (address, State::Bound, Some(false)));
    assert!(found[0].serves([192, 0, 2, 1].into()) && found[0].serves(Ipv6Addr::LOCALHOST.into()));
}

#[test]
fn sctp_is_listed_or_said_to_be_unsupported() {
    match bound(Protocol::Sctp, 9) {
        Ok(found) => assert!(found.is_empty()),
        Err(error) => assert!(matches!(error, SockDiagError::Unsupported(Protocol::Sctp)), "{error}"),
    }
}
