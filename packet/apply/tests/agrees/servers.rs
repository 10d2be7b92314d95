//! Servers that say who they are and whom they saw: `"<own address> <peer's address>\n"`. One thread for all of them.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use portolan_testkit::net::Namespace;
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

enum Door {
    Tcp(TcpListener),
    // TCP that goes on: a byte back for each.
    Kept(TcpStream),
    Udp(UdpSocket, SocketAddr),
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Kept(stream) => stream.as_fd(),
            Self::Udp(socket, _) => socket.as_fd(),
        }
    }
}

pub struct Servers {
    more: Arc<Mutex<Vec<Door>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    pub fn start() -> Self {
        let (more, stop) = (Arc::<Mutex<Vec<Door>>>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (more, stop) = (Arc::clone(&more), Arc::clone(&stop));
            move || run(&more, &stop)
        });
        Self { more, stop, thread: Some(thread) }
    }

    /// Answers at these ports: TCP at every address of the namespace, UDP at these.
    pub fn answer(&self, namespace: &Namespace, addresses: &[IpAddr], ports: &[u16]) {
        let doors = namespace.run(|| {
            let mut doors = Vec::new();
            for port in ports {
                let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).unwrap();
                listener.set_nonblocking(true).unwrap();
                doors.push(Door::Tcp(listener));
                for address in addresses {
                    let address = SocketAddr::new(*address, *port);
                    let socket =
                        UdpSocket::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
                    socket.set_nonblocking(true).unwrap();
                    doors.push(Door::Udp(socket, address));
                }
            }
            doors
        });
        self.more.lock().unwrap().extend(doors);
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(more: &Mutex<Vec<Door>>, stop: &AtomicBool) {
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let mut doors: BTreeMap<u64, Door> = BTreeMap::new();
    let look = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let mut next = 0;
    let mut new: Vec<Door> = Vec::new();
    let mut events = Vec::with_capacity(64);
    while !stop.load(Ordering::Relaxed) {
        new.append(&mut more.lock().unwrap());
        for door in new.drain(..) {
            next += 1;
            epoll::add(&poller, &door, epoll::EventData::new_u64(next), epoll::EventFlags::IN).unwrap();
            doors.insert(next, door);
        }
        events.clear();
        let _ = epoll::wait(&poller, spare_capacity(&mut events), Some(&look));
        for event in &events {
            let number = event.data.u64();
            let Some(door) = doors.get(&number) else { continue };
            if !serve(door, &mut new) {
                // Closing alone would leave it in the poller while a child that is just being started has a copy.
                let _ = epoll::delete(&poller, door);
                doors.remove(&number);
            }
        }
    }
}

/// Whether it stays open.
fn serve(door: &Door, kept: &mut Vec<Door>) -> bool {
    match door {
        Door::Tcp(listener) => {
            while let Ok((mut stream, peer)) = listener.accept() {
                let Ok(own) = stream.local_addr() else { continue };
                let _ = stream.write_all(format!("{} {}\n", canonical(own), canonical(peer)).as_bytes());
                let _ = stream.set_nonblocking(true);
                kept.push(Door::Kept(stream));
            }
            true
        }
        Door::Kept(stream) => {
            let mut bytes = [0; 512];
            let mut stream = stream;
            match std::io::Read::read(&mut stream, &mut bytes) {
                Ok(0) | Err(_) => false,
                Ok(count) => stream.write_all(&bytes[..count]).is_ok(),
            }
        }
        Door::Udp(socket, own) => {
            let mut bytes = [0; 512];
            while let Ok((_, peer)) = socket.recv_from(&mut bytes) {
                let _ = socket.send_to(format!("{own} {peer}\n").as_bytes(), peer);
            }
            true
        }
    }
}

/// IPv4 as IPv4, whatever socket it came to.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
