//! Values as the kernel stores them: the bytes of one field, or of several beside each other (a concatenation).

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The smallest piece of memory that allocators give has room for this: nearly all keys of IPv4.
const ROOM: usize = 24;

/// A key, an interval's end or a map's value: bytes in the order in which the registers hold them.
///
/// Fields of a concatenation begin at multiples of 4 bytes; a single field keeps its own length, as the kernel
/// wants it. Made field by field, in the order of the set's types: `Data::new().protocol(6).port(80)`.
#[derive(Clone, Default)]
pub struct Data {
    bytes: Vec<u8>,
    // How many fields were appended: decides about padding. Not on the wire, so not compared.
    fields: u8,
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Data {}

impl PartialOrd for Data {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Data {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes.cmp(&other.bytes)
    }
}

impl Hash for Data {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl Data {
    /// No field yet.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), fields: 0 }
    }

    /// Raw bytes from the kernel, which hold `fields` fields with their padding already.
    pub fn from_wire(bytes: &[u8], fields: usize) -> Self {
        Self { bytes: bytes.to_vec(), fields: u8::try_from(fields).unwrap_or(u8::MAX) }
    }

    /// One more field of these bytes.
    #[must_use]
    pub fn field(mut self, bytes: &[u8]) -> Self {
        if self.fields > 0 {
            self.pad();
        } else {
            self.bytes.reserve_exact(bytes.len().max(ROOM));
        }
        self.bytes.extend_from_slice(bytes);
        self.fields = self.fields.saturating_add(1);
        if self.fields > 1 {
            self.pad();
        }
        self
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    /// An address of either family.
    #[must_use]
    pub fn ip(self, address: impl Into<IpAddr>) -> Self {
        match address.into() {
            IpAddr::V4(address) => self.ipv4(address),
            IpAddr::V6(address) => self.ipv6(address),
        }
    }

    /// An IPv4 address (`ipv4_addr`).
    #[must_use]
    pub fn ipv4(self, address: Ipv4Addr) -> Self {
        self.field(&address.octets())
    }

    /// An IPv6 address (`ipv6_addr`).
    #[must_use]
    pub fn ipv6(self, address: Ipv6Addr) -> Self {
        self.field(&address.octets())
    }

    /// A protocol above IP (`inet_proto`): 6 TCP, 17 UDP, 132 SCTP.
    #[must_use]
    pub fn protocol(self, number: u8) -> Self {
        self.field(&[number])
    }

    /// A port (`inet_service`), in network byte order on the wire.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.field(&port.to_be_bytes())
    }

    /// A number in the machine's byte order: packet marks, interface indices, `numgen`, `jhash`.
    #[must_use]
    pub fn number(self, number: u32) -> Self {
        self.field(&number.to_ne_bytes())
    }

    /// An interface's name (`ifname`), padded with zeros to 16 bytes; longer names are cut, as the kernel has none.
    #[must_use]
    pub fn interface(self, name: &str) -> Self {
        let mut bytes = [0; 16];
        let length = name.len().min(15);
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        self.field(&bytes)
    }

    /// The bytes, padding included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many fields it has.
    pub const fn fields(&self) -> usize {
        self.fields as usize
    }

    /// The bytes of its fields with these lengths, in order; fewer when the data is shorter.
    pub fn split<'a>(&'a self, lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> + 'a {
        let mut at = 0;
        lengths.iter().map_while(move |length| {
            let field = self.bytes.get(at..at + length)?;
            at += length.next_multiple_of(4);
            Some(field)
        })
    }

    /// The value one greater, or `None` when all bits are set. Big-endian, as intervals are ordered.
    #[must_use]
    pub fn successor(&self) -> Option<Self> {
        self.step(u8::MAX, 0, |byte| byte + 1)
    }

    /// The value one less, or `None` for zero.
    #[must_use]
    pub fn predecessor(&self) -> Option<Self> {
        self.step(0, u8::MAX, |byte| byte - 1)
    }

    fn step(&self, last: u8, wrapped: u8, next: impl Fn(u8) -> u8) -> Option<Self> {
        let mut result = self.clone();
        for byte in result.bytes.iter_mut().rev() {
            if *byte == last {
                *byte = wrapped;
            } else {
                *byte = next(*byte);
                return Some(result);
            }
        }
        None
    }
}

impl From<Ipv4Addr> for Data {
    fn from(address: Ipv4Addr) -> Self {
        Self::new().ipv4(address)
    }
}

impl From<Ipv6Addr> for Data {
    fn from(address: Ipv6Addr) -> Self {
        Self::new().ipv6(address)
    }
}

impl From<IpAddr> for Data {
    fn from(address: IpAddr) -> Self {
        Self::new().ip(address)
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data(")?;
        for (at, byte) in self.bytes.iter().enumerate() {
            write!(f, "{}{byte:02x}", if at > 0 && at % 4 == 0 { " " } else { "" })?;
        }
        write!(f, ")")
    }
}

#[cfg(test)]
mod tests;
