//! Servers behind Services: they say who they are, on which port they were reached, and who asked.
//!
//! `1a 8080 10.244.1.12\n` over TCP when a connection comes, and for every line after that; over UDP for every datagram;
//! over SCTP in the answer to an INIT ([`super::sctp`]). One runtime serves all of them: sockets belong to the namespace
//! in which they were made, whoever reads them.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    runtime::Runtime,
};

use super::{
    sctp,
    world::{FAMILIES, Family, Place, World, node_address, pod_address},
};

/// The ports on which every Pod `a` and `b` answers; nothing listens on others.
pub const PORTS: [u16; 3] = [8080, 8081, 9090];
/// The port on which every node answers itself, as a Pod of its network would.
pub const NODE_PORT: u16 = 8090;

/// All servers of a world; they end with this value.
#[derive(Debug)]
pub struct Servers {
    runtime: Option<Runtime>,
}

impl Servers {
    /// Starts them.
    #[track_caller]
    pub fn start(world: &World) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
        let _inside = runtime.enter();
        for node in world.nodes() {
            for letter in ['a', 'b'] {
                let place = Place::Pod(node, letter);
                for family in FAMILIES {
                    let address = pod_address(node, letter, family);
                    serve(
                        world,
                        place,
                        &format!("{node}{letter}"),
                        &PORTS.map(|port| (address, port).into()),
                    );
                    let socket = world.at(place).run(|| sctp::server(address));
                    runtime.spawn(sctp::serve(socket, format!("{node}{letter}"), address));
                }
            }
            for family in FAMILIES {
                let address = SocketAddr::new(node_address(node, family), NODE_PORT);
                serve(world, Place::Node(node), &format!("node{node}"), &[address]);
            }
        }
        drop(_inside);
        Self { runtime: Some(runtime) }
    }

    /// Where asynchronous clients may run too.
    pub fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("there until the end")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

/// TCP and UDP at these addresses.
fn serve(world: &World, place: Place, name: &str, addresses: &[SocketAddr]) {
    let sockets = world.at(place).run(|| {
        let both = |address: &SocketAddr| {
            let tcp =
                TcpListener::bind(address).and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
            let udp =
                UdpSocket::bind(address).and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
            (
                tcp.unwrap_or_else(|e| panic!("{address}: {e}")),
                udp.unwrap_or_else(|e| panic!("{address}: {e}")),
            )
        };
        addresses.iter().map(both).collect::<Vec<_>>()
    });
    for (tcp, udp) in sockets {
        let port = tcp.local_addr().map(|address| address.port()).unwrap_or_default();
        tokio::spawn(answer_connections(tcp, name.to_owned(), port));
        tokio::spawn(answer_datagrams(udp, name.to_owned(), port));
    }
}

async fn answer_connections(listener: TcpListener, name: String, port: u16) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let line = format!("{name} {port} {}\n", peer.ip());
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut heard = String::new();
            while stream.write_all(line.as_bytes()).await.is_ok() {
                heard.clear();
                match stream.read_line(&mut heard).await {
                    Ok(1..) => {}
                    _ => return,
                }
            }
        });
    }
}

async fn answer_datagrams(socket: UdpSocket, name: String, port: u16) {
    let Ok(socket) = tokio::net::UdpSocket::from_std(socket) else { return };
    let mut datagram = [0; 2048];
    loop {
        // An error is the port unreachable of a client that has gone.
        let Ok((_, peer)) = socket.recv_from(&mut datagram).await else { continue };
        let _ = socket.send_to(format!("{name} {port} {}\n", peer.ip()).as_bytes(), peer).await;
    }
}

/// What an answer says: who, on which port, and whom it saw.
pub fn parse(answer: &str) -> Option<(String, u16, std::net::IpAddr)> {
    let mut words = answer.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// The family of an address.
pub fn family_of(address: std::net::IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}
