//! The PROXY protocol: the first bytes of a connection to a backend say who the client is
//! (haproxy.org/download/3.0/doc/proxy-protocol.txt, versions 1 and 2).

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// The twelve bytes by which version 2 is known (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl ProxyProtocol {
    /// What goes before the client's own bytes. Where only one of both addresses is of IPv6, the other is written as
    /// one (RFC 4291 section 2.5.5.2): a header has one family.
    pub(crate) fn header(self, client: SocketAddr, asked: SocketAddr) -> Vec<u8> {
        let (from, to) = match (client.ip().to_canonical(), asked.ip().to_canonical()) {
            (IpAddr::V4(from), IpAddr::V6(to)) => (IpAddr::V6(from.to_ipv6_mapped()), IpAddr::V6(to)),
            (IpAddr::V6(from), IpAddr::V4(to)) => (IpAddr::V6(from), IpAddr::V6(to.to_ipv6_mapped())),
            same => same,
        };
        match self {
            Self::V1 => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), asked.port()).into_bytes()
            }
            Self::V2 => {
                let mut header = SIGNATURE.to_vec();
                let (family, length) = if from.is_ipv4() { (TCP4, 12u16) } else { (TCP6, 36) };
                header.extend([PROXY, family]);
                header.extend(length.to_be_bytes());
                for address in [from, to] {
                    match address {
                        IpAddr::V4(v4) => header.extend(v4.octets()),
                        IpAddr::V6(v6) => header.extend(v6.octets()),
                    }
                }
                header.extend(client.port().to_be_bytes());
                header.extend(asked.port().to_be_bytes());
                header
            }
        }
    }
}

impl fmt::Display for ProxyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

impl FromStr for ProxyProtocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "v1" | "1" => Ok(Self::V1),
            "v2" | "2" => Ok(Self::V2),
            _ => Err(format!("{text:?} is no version of the PROXY protocol: use v1 or v2")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn version_1_is_the_line_of_the_specification() {
        let header = ProxyProtocol::V1.header(address("192.168.0.1:56324"), address("192.168.0.11:443"));
        assert_eq!(header, b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
        let header = ProxyProtocol::V1.header(address("[fd00::1]:1"), address("10.0.0.1:2"));
        assert_eq!(header, b"PROXY TCP6 fd00::1 ::ffff:10.0.0.1 1 2\r\n");
    }

    #[test]
    fn version_2_is_its_bytes() {
        let header = ProxyProtocol::V2.header(address("192.0.2.1:256"), address("[::ffff:192.0.2.2]:80"));
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
        expected.extend([192, 0, 2, 1, 192, 0, 2, 2, 1, 0, 0, 80]);
        assert_eq!(header, expected);
        assert_eq!(ProxyProtocol::V2.header(address("[::1]:1"), address("[::1]:2")).len(), 16 + 36);
    }
}
