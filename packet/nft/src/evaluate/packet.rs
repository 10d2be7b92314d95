//! The packet that rules look at, and its bytes.

use std::net::{IpAddr, SocketAddr};

use super::Tuple;

/// Protocols above IP whose headers begin with two ports, and those that the evaluator writes headers for.
pub(super) mod protocol {
    pub(in crate::evaluate) const ICMP: u8 = 1;
    pub(in crate::evaluate) const TCP: u8 = 6;
    pub(in crate::evaluate) const UDP: u8 = 17;
    pub(in crate::evaluate) const ICMPV6: u8 = 58;
    pub(in crate::evaluate) const SCTP: u8 = 132;
}

/// The flag that begins a TCP connection.
const TCP_SYN: u8 = 2;

/// A packet: what of it rules can see. Its family is that of its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// The protocol above IP: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// Where it comes from. Echo requests have their identifier as port, protocols without ports have 0.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// `meta mark`.
    pub mark: u32,
    /// The interface it came in by.
    pub input: Option<String>,
    /// The interface it goes out by.
    pub output: Option<String>,
    /// Flags of TCP; a new packet has SYN.
    pub tcp_flags: u8,
}

impl Packet {
    /// The first packet of a connection. Both addresses are of one family.
    pub const fn new(protocol: u8, source: SocketAddr, destination: SocketAddr) -> Self {
        Self { protocol, source, destination, mark: 0, input: None, output: None, tcp_flags: TCP_SYN }
    }

    /// With this mark.
    #[must_use]
    pub const fn mark(mut self, mark: u32) -> Self {
        self.mark = mark;
        self
    }

    /// With these flags of TCP.
    #[must_use]
    pub const fn tcp_flags(mut self, flags: u8) -> Self {
        self.tcp_flags = flags;
        self
    }

    /// Whether it is of IPv4.
    pub const fn is_ipv4(&self) -> bool {
        self.destination.is_ipv4()
    }

    /// From where to where, as connection tracking sees it.
    pub const fn tuple(&self) -> Tuple {
        Tuple { protocol: self.protocol, source: self.source, destination: self.destination }
    }

    /// The IP header, without options or extension headers.
    pub(super) fn network_header(&self) -> Vec<u8> {
        let length = self.transport_header().len() as u16;
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                // RFC 791, section 3.1: version and length, total length, don't fragment, time to live.
                let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, self.protocol, 0, 0];
                bytes[2..4].copy_from_slice(&(20 + length).to_be_bytes());
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes
            }
            (source, destination) => {
                // RFC 8200, section 3.
                let mut bytes = vec![0x60, 0, 0, 0, 0, 0, self.protocol, 64];
                bytes[4..6].copy_from_slice(&length.to_be_bytes());
                bytes.extend(octets6(source));
                bytes.extend(octets6(destination));
                bytes
            }
        }
    }

    /// The header above IP; empty for protocols that have none here. Checksums are left zero.
    pub(super) fn transport_header(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ports = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()].concat();
        match self.protocol {
            protocol::TCP => {
                bytes.extend(ports);
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, self.tcp_flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            protocol::UDP => {
                bytes.extend(ports);
                bytes.extend([0, 8, 0, 0]);
            }
            protocol::SCTP => {
                bytes.extend(ports);
                // Verification tag, checksum, and the head of an INIT chunk: RFC 9260, sections 3.1 and 3.3.2.
                bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20]);
            }
            protocol::ICMP | protocol::ICMPV6 => {
                let echo_request = if self.protocol == protocol::ICMP { 8 } else { 128 };
                let id = self.source.port().to_be_bytes();
                bytes.extend([echo_request, 0, 0, 0, id[0], id[1], 0, 1]);
            }
            _ => {}
        }
        bytes
    }
}

fn octets6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
