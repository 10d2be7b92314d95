//! One question from somewhere: who answers, or what comes instead, and which source address was seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{
    echo::{family_of, parse},
    sctp,
    service::{Protocol, Target},
    world::{Place, World, node_addresses},
};

/// How long a client waits. Longer than a lost first packet takes to be sent again, which is a second.
const PATIENCE: Duration = Duration::from_millis(1_800);
/// How often one asks: with two endpoints the chance to miss one of them is one in four million.
const TRIES: usize = 23;
/// How often one asks where nobody answers.
const SILENT_TRIES: usize = 2;

/// Asks so often that every endpoint answers, and says in words what came: `1a 2a`, `1a +m` where the endpoint saw an
/// address of the client's node instead of the client's, `refused`, `silence`.
pub fn probe(world: &World, place: Place, target: Target) -> String {
    probe_times(world, place, target, TRIES)
}

/// The same with another number of tries.
pub fn probe_times(world: &World, place: Place, target: Target, tries: usize) -> String {
    let mut seen = BTreeSet::new();
    let mut failures = BTreeMap::new();
    for _ in 0..tries {
        match ask(world, place, target) {
            Ok(answer) => {
                seen.insert(answer);
            }
            Err(failure) => {
                let count = failures.entry(failure).or_insert(0);
                *count += 1;
                if *count >= SILENT_TRIES {
                    break;
                }
            }
        }
    }
    let marks: BTreeSet<&str> = seen.iter().map(|(_, mark)| mark.as_str()).collect();
    // What all of them saw is said once, at the end.
    let (mut words, end): (Vec<String>, _) = match marks.into_iter().collect::<Vec<_>>().as_slice() {
        [mark] => (seen.iter().map(|(name, _)| name.clone()).collect(), (*mark).to_owned()),
        _ => (seen.iter().map(|(name, mark)| format!("{name}{mark}")).collect(), String::new()),
    };
    words.extend(failures.into_keys());
    format!("{}{end}", words.join(" "))
}

/// Asks once: who answered, and ` +m` if it saw an address of our node instead of ours, ` +node2` for another's.
pub fn ask(world: &World, place: Place, target: Target) -> Result<(String, String), String> {
    let own = place.address(family_of(target.address.ip()));
    let answer = ask_from(world, place, own, target)?;
    let (name, port, peer) = parse(&answer).ok_or_else(|| format!("{answer:?}"))?;
    // The port on which everything is expected goes without saying; raw sockets have those of the packets.
    let name = if matches!(port, 8080 | 8090) { name } else { format!("{name}:{port}") };
    if peer == own {
        return Ok((name, String::new()));
    }
    let seen = world.nodes().find(|node| node_addresses(*node, family_of(peer)).contains(&peer));
    match seen {
        Some(node) if node == place.node() => Ok((name, " +m".to_owned())),
        Some(node) => Ok((name, format!(" +node{node}"))),
        None => Err(format!("{name} saw {peer}")),
    }
}

/// Asks once with a source address; the words of the answer, or what came instead.
pub fn ask_from(world: &World, place: Place, source: IpAddr, target: Target) -> Result<String, String> {
    let _alone = (target.protocol == Protocol::Sctp).then(|| one_at_a_time(place, target.address.ip()));
    let _alone = _alone.as_ref().map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner));
    let answer = world.at(place).run(|| match target.protocol {
        Protocol::Tcp => tcp(source, target.address),
        Protocol::Udp => udp(source, target.address),
        Protocol::Sctp => sctp::ask(Some(source), target.address, PATIENCE),
    });
    answer.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "silence".to_owned(),
        _ => error.to_string(),
    })
}

fn tcp(source: IpAddr, target: SocketAddr) -> io::Result<String> {
    let stream = connect(source, 0, target)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

/// A connection from an address and a port, or any port for 0, in the namespace of the calling thread.
pub fn connect(source: IpAddr, port: u16, target: SocketAddr) -> io::Result<std::net::TcpStream> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::new(source, port))?;
    // It is how long a connect may take as well (socket(7)).
    for timeout in [rustix::net::sockopt::Timeout::Send, rustix::net::sockopt::Timeout::Recv] {
        rustix::net::sockopt::set_socket_timeout(&socket, timeout, Some(PATIENCE))?;
    }
    match rustix::net::connect(&socket, &target) {
        Ok(()) => Ok(socket.into()),
        Err(rustix::io::Errno::INPROGRESS) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error.into()),
    }
}

fn udp(source: IpAddr, target: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind((source, 0))?;
    udp_by(&socket, target)
}

/// One datagram and its answer.
pub fn udp_by(socket: &UdpSocket, target: SocketAddr) -> io::Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(target)?;
    match socket.send(b"who are you?") {
        // What netfilter drops or refuses on its way out may not be sent; which of them it was is the next thing to hear.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    let mut datagram = [0; 256];
    let count = socket.recv(&mut datagram)?;
    Ok(String::from_utf8_lossy(&datagram[..count]).into_owned())
}

/// Those who share an address in a namespace go one after the other.
fn one_at_a_time(place: Place, address: IpAddr) -> Arc<Mutex<()>> {
    type Locks = BTreeMap<(Place, IpAddr), Arc<Mutex<()>>>;
    static LOCKS: Mutex<Locks> = Mutex::new(BTreeMap::new());
    let mut locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(locks.entry((place, address)).or_default())
}
