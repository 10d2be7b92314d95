//! Servers that say who they are and who asked: `"<name> <peer address>\n"`.
//!
//! The peer address tells a test whether the source address was kept; the name tells which backend answered.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::net::Namespace;

/// How long a server sleeps before it looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(50);
/// How long a connection may stay silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running echo server; it ends with this value.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// A TCP server at `address` (port 0: any) inside `namespace`.
    ///
    /// It answers at once when it accepts, then sends back every byte that it gets.
    #[track_caller]
    pub fn tcp(namespace: &Namespace, name: &str, address: &str) -> Self {
        let listener = namespace.run(|| bind(TcpListener::bind, address));
        Self::serve_tcp(listener, name)
    }

    /// A UDP server at `address` (port 0: any) inside `namespace`: one answer for one datagram.
    #[track_caller]
    pub fn udp(namespace: &Namespace, name: &str, address: &str) -> Self {
        let socket = namespace.run(|| bind(UdpSocket::bind, address));
        Self::serve_udp(socket, name)
    }

    /// A TCP server on a listener that is bound already, wherever that is.
    pub fn serve_tcp(listener: TcpListener, name: &str) -> Self {
        let address = listener.local_addr().expect("a listener has an address");
        let name = name.to_owned();
        Self::start(address, move |stop, answered| {
            listener.set_nonblocking(true).expect("listeners can be made nonblocking");
            while !stop.load(Ordering::Relaxed) {
                wait_for_input(&listener);
                let Ok((stream, peer)) = listener.accept() else { continue };
                let greeting = format!("{name} {peer}\n");
                // Counted before the answer: who has one finds itself counted.
                answered.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || {
                    let _ = converse(stream, &greeting);
                });
            }
        })
    }

    /// A UDP server on a socket that is bound already, wherever that is.
    pub fn serve_udp(socket: UdpSocket, name: &str) -> Self {
        let address = socket.local_addr().expect("a bound socket has an address");
        let name = name.to_owned();
        Self::start(address, move |stop, answered| {
            socket.set_nonblocking(true).expect("sockets can be made nonblocking");
            let mut datagram = [0; 65536];
            while !stop.load(Ordering::Relaxed) {
                wait_for_input(&socket);
                let Ok((_, peer)) = socket.recv_from(&mut datagram) else { continue };
                answered.fetch_add(1, Ordering::Relaxed);
                let _ = socket.send_to(format!("{name} {peer}\n").as_bytes(), peer);
            }
        })
    }

    fn start(
        address: SocketAddr,
        serve: impl FnOnce(Arc<AtomicBool>, Arc<AtomicUsize>) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let thread = thread::spawn({
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            move || serve(stop, answered)
        });
        Self { address, answered, stop, thread: Some(thread) }
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections or datagrams it has answered.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[track_caller]
fn bind<S>(how: impl FnOnce(SocketAddr) -> io::Result<S>, address: &str) -> S {
    let parsed = address.parse().unwrap_or_else(|_| panic!("{address} is no socket address"));
    how(parsed).unwrap_or_else(|error| panic!("cannot bind {address}: {error}"))
}

fn wait_for_input(socket: &impl std::os::fd::AsFd) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
    let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout));
}

fn converse(mut stream: TcpStream, greeting: &str) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(greeting.as_bytes())?;
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            count => stream.write_all(&bytes[..count])?,
        }
    }
}
