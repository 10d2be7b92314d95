//! Packets made by hand and sent through raw sockets: any source, and a number in them that nobody rewrites.

use std::net::{IpAddr, SocketAddr};

use portolan_nft::evaluate::Packet;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// `IPPROTO_RAW`: the IP header comes from us.
const RAW: i32 = 255;

/// Sends both families from the namespace of the calling thread.
pub struct Sender {
    v4: Socket,
    v6: Socket,
}

impl Sender {
    pub fn open() -> Self {
        let open = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(RAW))).unwrap();
        Self { v4: open(Domain::IPV4), v6: open(Domain::IPV6) }
    }

    pub fn send(&self, packet: &Packet, number: u32) {
        let socket = if packet.is_ipv4() { &self.v4 } else { &self.v6 };
        // The port of a raw socket's destination means nothing, and must be zero for IPv6.
        let to = SockAddr::from(SocketAddr::new(packet.destination.ip(), 0));
        match socket.send_to(&bytes(packet, number), &to) {
            Ok(_) => {}
            // A rule of the sender's own machine drops it.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error) => panic!("cannot send {packet:?}: {error}"),
        }
    }
}

/// The packet with its number: in the sequence number of TCP, the payload of UDP, the initiate tag of SCTP.
fn bytes(packet: &Packet, number: u32) -> Vec<u8> {
    let ports = [packet.source.port().to_be_bytes(), packet.destination.port().to_be_bytes()].concat();
    let number = number.to_be_bytes();
    let mut above = ports;
    let checksum_at = match packet.protocol {
        6 => {
            above.extend(number);
            above.extend([0, 0, 0, 0, 0x50, packet.tcp_flags, 0xff, 0xff, 0, 0, 0, 0]);
            16
        }
        17 => {
            above.extend([0, 12, 0, 0]);
            above.extend(number);
            6
        }
        132 => {
            // RFC 9260, section 3.3.2: INIT, of 20 bytes; window, streams, first number.
            above.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20]);
            above.extend(number);
            above.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
            8
        }
        other => panic!("no packet of protocol {other}"),
    };
    if packet.protocol == 132 {
        let sum = crc32c(&above).to_le_bytes();
        above[8..12].copy_from_slice(&sum);
    } else {
        let sum = internet_checksum(packet, &above).to_be_bytes();
        above[checksum_at..checksum_at + 2].copy_from_slice(&sum);
    }
    let mut bytes = header(packet, above.len() as u16);
    bytes.extend(above);
    bytes
}

fn header(packet: &Packet, length: u16) -> Vec<u8> {
    match (packet.source.ip(), packet.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            // The kernel fills in the checksum.
            let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, packet.protocol, 0, 0];
            bytes[2..4].copy_from_slice(&(20 + length).to_be_bytes());
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut bytes = vec![0x60, 0, 0, 0, 0, 0, packet.protocol, 64];
            bytes[4..6].copy_from_slice(&length.to_be_bytes());
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes
        }
        _ => panic!("a packet of two families"),
    }
}

/// RFC 1071, with the pseudo header.
fn internet_checksum(packet: &Packet, above: &[u8]) -> u16 {
    let mut all = Vec::new();
    for address in [packet.source.ip(), packet.destination.ip()] {
        match address {
            IpAddr::V4(address) => all.extend(address.octets()),
            IpAddr::V6(address) => all.extend(address.octets()),
        }
    }
    all.extend((above.len() as u32).to_be_bytes());
    all.extend([0, 0, 0, packet.protocol]);
    all.extend(above);
    all.resize(all.len().next_multiple_of(2), 0);
    let sum: u32 = all.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    match !(folded as u16) {
        0 => 0xffff,
        sum => sum,
    }
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(u32::MAX, byte)
}
