//! SCTP without a kernel that speaks it: the first two packets of an association, made by hand over raw sockets.
//!
//! Netfilter tracks and translates SCTP by itself (`net/netfilter/nf_conntrack_proto_sctp.c`), sockets are not needed
//! for that. The client sends an INIT with a valid checksum, the server answers with an INIT ACK that carries, in a
//! parameter which receivers are to skip, the same words as the other servers (RFC 9260, sections 3.2.1, 3.3.2, 3.3.3).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send, socket_with,
    },
};

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// A parameter of a kind that nobody knows and nobody complains about.
const WORDS: u16 = 0x80f1;

/// A raw socket for SCTP at this address.
#[track_caller]
pub fn server(address: IpAddr) -> OwnedFd {
    let socket = raw(address).and_then(|socket| bind(&socket, &SocketAddr::new(address, 0)).map(|()| socket));
    socket.unwrap_or_else(|error| panic!("no raw socket at {address}: {error}"))
}

/// Answers every INIT that comes.
pub async fn serve(socket: OwnedFd, name: String, address: IpAddr) {
    // Raw sockets receive from and send to, as those of UDP do; the runtime need not know the difference.
    let Ok(socket) = tokio::net::UdpSocket::from_std(socket.into()) else { return };
    let mut bytes = [0; 2048];
    loop {
        let Ok((count, peer)) = socket.recv_from(&mut bytes).await else { continue };
        let Some(packet) = Packet::parse(&bytes[..count], address) else { continue };
        if packet.kind == INIT {
            let answer = Packet {
                from: packet.to,
                to: packet.from,
                tag: packet.initiate,
                kind: INIT_ACK,
                initiate: 7,
                words: format!("{name} {} {}", packet.to, peer.ip()),
            };
            let _ = socket.send_to(&answer.bytes(), SocketAddr::new(peer.ip(), 0)).await;
        }
    }
}

/// Sends an INIT from `source`, or from wherever the kernel would, and gives the words of the answer.
///
/// Runs in the namespace of the calling thread. Only one at a time may wait for answers of one address in a namespace:
/// raw sockets have no ports, and an error that comes back is everybody's.
pub fn ask(source: Option<IpAddr>, target: SocketAddr, patience: Duration) -> io::Result<String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let port = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 40_000;
    let socket = raw(target.ip())?;
    if let Some(source) = source {
        bind(&socket, &SocketAddr::new(source, 0))?;
    }
    connect(&socket, &SocketAddr::new(target.ip(), 0))?;
    let init =
        Packet { from: port, to: target.port(), tag: 0, kind: INIT, initiate: 1, words: String::new() };
    match send(&socket, &init.bytes(), SendFlags::empty()) {
        // As for UDP: whether it was dropped or refused is told afterwards.
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let deadline = Instant::now() + patience;
    let mut bytes = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&left))?;
        match recv(&socket, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((count, _)) => {
                if let Some(packet) = Packet::parse(&bytes[..count], target.ip())
                    && (packet.kind, packet.to, packet.from) == (INIT_ACK, port, target.port())
                {
                    return Ok(packet.words);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Nobody speaks SCTP there: what a closed port is for the others.
            Err(Errno::NOPROTOOPT) => return Err(io::ErrorKind::ConnectionRefused.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn raw(address: IpAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(family, SocketType::RAW, flags, Some(rustix::net::ipproto::SCTP))
}

/// A packet with one INIT or INIT ACK.
struct Packet {
    from: u16,
    to: u16,
    tag: u32,
    kind: u8,
    initiate: u32,
    words: String,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.from.to_be_bytes());
        bytes.extend(self.to.to_be_bytes());
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        let mut words = self.words.clone().into_bytes();
        let length = words.len() as u16 + 4;
        words.resize(words.len().next_multiple_of(4), 0);
        let parameter = if self.words.is_empty() { 0 } else { 4 + words.len() as u16 };
        bytes.extend([self.kind, 0]);
        bytes.extend((20 + parameter).to_be_bytes());
        bytes.extend(self.initiate.to_be_bytes());
        // The window, streams out and in, the first number.
        bytes.extend(0x1_0000_u32.to_be_bytes());
        bytes.extend([0, 1, 0, 1, 0, 0, 0, 1]);
        if parameter > 0 {
            bytes.extend(WORDS.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.extend(words);
        }
        let sum = checksum(&bytes);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Raw sockets of IPv4 give the header of the network too, those of IPv6 do not.
    fn parse(bytes: &[u8], address: IpAddr) -> Option<Self> {
        let header = if address.is_ipv4() { usize::from(bytes.first()? & 15) * 4 } else { 0 };
        let bytes = bytes.get(header..)?;
        let two = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let four = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let words = match (two(32), two(34)) {
            (Some(WORDS), Some(length)) => bytes.get(36..32 + usize::from(length)).unwrap_or_default(),
            _ => &[],
        };
        Some(Self {
            from: two(0)?,
            to: two(2)?,
            tag: four(4)?,
            kind: *bytes.get(12)?,
            initiate: four(16)?,
            words: String::from_utf8_lossy(words).into_owned(),
        })
    }
}

/// CRC32c (RFC 9260, appendix A).
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // RFC 7143, appendix A.4: thirty-two bytes of zeros.
        assert_eq!(checksum(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    }
}
