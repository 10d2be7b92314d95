//! Clients: many questions at once from wherever each is asked, and what became of them.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

use portolan_model::Protocol;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{reference::Asked, site::Site};

/// Silence for so long is an answer, if it comes twice.
pub const SILENCE: Duration = Duration::from_millis(150);

/// What a client saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// This server answered, and it saw this client.
    Answered { by: SocketAddr, source: SocketAddr },
    /// At once: a reset, or port unreachable.
    Refused,
    /// Nothing.
    Silent,
    /// Something else.
    Failed(ErrorKind),
}

/// TCP and UDP only.
pub fn ask(site: &Site, questions: &[Asked], silence: Duration) -> Vec<Seen> {
    let mut seen: Vec<Option<Seen>> = vec![None; questions.len()];
    let mut open: Vec<(usize, Socket)> = Vec::new();
    // Namespace by namespace: a thread has to enter each.
    let mut by_interface: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
    for (index, asked) in questions.iter().enumerate() {
        by_interface.entry(asked.interface.as_deref()).or_default().push(index);
    }
    for (interface, indices) in by_interface {
        let namespace = interface.map_or(&site.node, |interface| &site.behind(interface).namespace);
        let begun: Vec<_> = namespace
            .run(|| indices.iter().map(|index| (*index, begin(&questions[*index]))).collect::<Vec<_>>());
        for (index, begun) in begun {
            match begun {
                Ok(socket) => open.push((index, socket)),
                Err(error) => seen[index] = Some(failed(&error)),
            }
        }
    }
    let mut until = Instant::now() + silence;
    while !open.is_empty() && Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now());
        let mut polled: Vec<PollFd<'_>> =
            open.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::IN)).collect();
        let wait = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let _ = poll(&mut polled, Some(&wait));
        let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        if ready.iter().any(|ready| *ready) {
            until = Instant::now() + silence;
        }
        let mut place = 0;
        open.retain_mut(|(index, socket)| {
            place += 1;
            if ready[place - 1] {
                seen[*index] = read(socket);
            }
            seen[*index].is_none()
        });
    }
    seen.into_iter().map(|seen| seen.unwrap_or(Seen::Silent)).collect()
}

fn begin(asked: &Asked) -> io::Result<Socket> {
    let kind = if asked.protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(Domain::for_address(asked.destination), kind, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(SocketAddr::new(asked.source, 0)))?;
    match socket.connect(&asked.destination.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            return Err(error);
        }
        _ => {}
    }
    // A client on the node is refused while its `connect` still holds the socket: the kernel keeps that for the next SYN,
    // a second later, and says it before only when asked (`sk_err_soft` in `tcp_v4_err` and `tcp_v6_err`, v6.18).
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    if asked.protocol == Protocol::Udp {
        match socket.send(b"?") {
            // A rule of the sender's own machine dropped it, and may have told the socket why.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            sent => drop(sent?),
        }
    }
    Ok(socket)
}

fn read(socket: &mut Socket) -> Option<Seen> {
    let mut bytes = [0; 256];
    match socket.read(&mut bytes) {
        Ok(length) => {
            let text = String::from_utf8_lossy(&bytes[..length]);
            let mut words = text.split_whitespace().map(str::parse::<SocketAddr>);
            match (words.next(), words.next()) {
                (Some(Ok(by)), Some(Ok(source))) => Some(Seen::Answered { by, source }),
                _ => Some(Seen::Failed(ErrorKind::InvalidData)),
            }
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => Some(failed(&error)),
    }
}

fn failed(error: &io::Error) -> Seen {
    match error.kind() {
        ErrorKind::ConnectionRefused => Seen::Refused,
        other => Seen::Failed(other),
    }
}
