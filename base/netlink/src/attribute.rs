//! Attributes: the type-length-value layer inside every netlink message, flat in one buffer both ways.
//!
//! [`Writer`] appends to one `Vec<u8>` and patches the length of a nest when it ends, so that 20,000 set elements cost
//! no allocation each. [`attributes`] reads without copying. Layout and alignment: `struct nlattr` in
//! `include/uapi/linux/netlink.h`, <https://docs.kernel.org/userspace-api/netlink/intro.html>.
//! Around attributes goes a message: [`crate::message`].

use std::ops::Range;

/// Bytes of an attribute's header: length and type, 16 bits each.
pub const HEADER: usize = 4;
/// The longest payload that an attribute's 16 bit length can say.
pub const LONGEST: usize = u16::MAX as usize - HEADER;
/// `NLA_F_NESTED`, the flag in the type of an attribute that holds attributes.
const NESTED: u16 = 1 << 15;
/// `NLA_TYPE_MASK`: the type without the flags for nesting and byte order.
const TYPE: u16 = 0x3fff;

/// An attribute that is longer than its length field can say. The message that has it must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "attribute {kind} has {bytes} bytes, and a netlink attribute holds {LONGEST}: write it in several parts"
)]
pub struct Oversize {
    /// The attribute's type.
    pub kind: u16,
    /// How many bytes its payload has.
    pub bytes: usize,
}

/// Appends attributes to one flat buffer.
///
/// An attribute that is too long is remembered and reported once by [`Writer::check`] (which
/// [`crate::message::MessageWriter::finish`] calls), so that the many calls before need no `?` each.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
    oversize: Option<Oversize>,
}

/// A nest that was begun and not yet ended: where its header is.
#[derive(Debug)]
#[must_use = "a nest that is not ended has no length"]
pub struct Nest(usize);

impl Writer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { buffer: Vec::with_capacity(bytes), oversize: None }
    }

    /// How many bytes are written.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What is written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// What is written, and the writer's end.
    pub fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Forgets what was written after the first `len` bytes, and that something there was too long.
    pub fn truncate(&mut self, len: usize) {
        self.buffer.truncate(len);
        self.oversize = None;
    }

    /// Whether an attribute was too long since the last check or [`Writer::truncate`].
    pub fn check(&mut self) -> Result<(), Oversize> {
        self.oversize.take().map_or(Ok(()), Err)
    }

    /// Appends bytes that are no attribute, such as the fixed part of a message, and pads them to 4.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.pad();
    }

    /// Writes over bytes that are already there, such as a length that is known only now. Does nothing where `range`
    /// does not fit the buffer or `bytes`.
    pub fn patch(&mut self, range: Range<usize>, bytes: &[u8]) {
        if let Some(place) = self.buffer.get_mut(range).filter(|place| place.len() == bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// An attribute of any bytes.
    pub fn bytes(&mut self, kind: u16, payload: &[u8]) {
        self.header(kind, payload.len());
        self.raw(payload);
    }

    /// An attribute without payload: it is there or not (`NLA_FLAG`).
    pub fn flag(&mut self, kind: u16) {
        self.bytes(kind, &[]);
    }

    /// A byte.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// 16 bits in the machine's byte order.
    pub fn u16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// 32 bits in the machine's byte order.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// 64 bits in the machine's byte order.
    pub fn u64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// 16 bits in network byte order, as nf_tables and conntrack have them.
    pub fn be16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// 32 bits in network byte order.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// 64 bits in network byte order.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A text with the zero byte at its end that the kernel wants (`NLA_NUL_STRING`).
    pub fn str0(&mut self, kind: u16, text: &str) {
        self.header(kind, text.len() + 1);
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(0);
        self.pad();
    }

    /// An attribute whose payload are the attributes that `inside` writes.
    pub fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let nest = self.begin_nest(kind);
        inside(self);
        self.end_nest(nest);
    }

    /// Begins an attribute that holds attributes, for where a closure is in the way.
    pub fn begin_nest(&mut self, kind: u16) -> Nest {
        let start = self.buffer.len();
        self.header(kind | NESTED, 0);
        Nest(start)
    }

    /// Ends the nest: says in its header how long it became.
    pub fn end_nest(&mut self, nest: Nest) {
        let Nest(start) = nest;
        let payload = self.buffer.len().saturating_sub(start + HEADER);
        let kind = self.buffer.get(start + 2..start + 4).map_or(0, |b| u16::from_ne_bytes([b[0], b[1]]));
        let length = self.length(kind & TYPE, payload);
        self.patch(start..start + 2, &length.to_ne_bytes());
    }

    fn header(&mut self, kind: u16, payload: usize) {
        let length = self.length(kind & TYPE, payload);
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
    }

    fn length(&mut self, kind: u16, payload: usize) -> u16 {
        if payload > LONGEST {
            // The innermost nest that is too long is the useful one to name.
            self.oversize.get_or_insert(Oversize { kind, bytes: payload });
            return HEADER as u16;
        }
        (payload + HEADER) as u16
    }

    fn pad(&mut self) {
        let length = self.buffer.len().next_multiple_of(4);
        self.buffer.resize(length, 0);
    }
}

/// One attribute that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// The type, without the flags for nesting and byte order.
    pub kind: u16,
    /// The payload, without padding.
    pub payload: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The payload as a byte; `None` when it has another length. The same holds for all numbers here.
    pub fn u8(&self) -> Option<u8> {
        <[u8; 1]>::try_from(self.payload).ok().map(|[byte]| byte)
    }

    /// 16 bits in the machine's byte order.
    pub fn u16(&self) -> Option<u16> {
        self.payload.try_into().ok().map(u16::from_ne_bytes)
    }

    /// 32 bits in the machine's byte order.
    pub fn u32(&self) -> Option<u32> {
        self.payload.try_into().ok().map(u32::from_ne_bytes)
    }

    /// 64 bits in the machine's byte order.
    pub fn u64(&self) -> Option<u64> {
        self.payload.try_into().ok().map(u64::from_ne_bytes)
    }

    /// 16 bits in network byte order.
    pub fn be16(&self) -> Option<u16> {
        self.payload.try_into().ok().map(u16::from_be_bytes)
    }

    /// 32 bits in network byte order.
    pub fn be32(&self) -> Option<u32> {
        self.payload.try_into().ok().map(u32::from_be_bytes)
    }

    /// 64 bits in network byte order.
    pub fn be64(&self) -> Option<u64> {
        self.payload.try_into().ok().map(u64::from_be_bytes)
    }

    /// A text, up to its first zero byte; `None` when it is not UTF-8.
    pub fn str(&self) -> Option<&'a str> {
        let end = self.payload.iter().position(|&byte| byte == 0).unwrap_or(self.payload.len());
        std::str::from_utf8(&self.payload[..end]).ok()
    }

    /// The attributes in it.
    pub fn nested(&self) -> Attributes<'a> {
        attributes(self.payload)
    }
}

/// Iterator of [`attributes`].
#[derive(Clone, Debug)]
pub struct Attributes<'a>(&'a [u8]);

/// The attributes in `bytes`, one after the other. A header that does not fit ends the iteration: the kernel writes
/// none, and a reader of a cut message learns of the cut from [`crate::NetlinkError::Truncated`].
pub fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

impl<'a> Attributes<'a> {
    /// The first attribute of this type that is still to come.
    pub fn find(&self, kind: u16) -> Option<Attribute<'a>> {
        Iterator::find(&mut self.clone(), |attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let (header, _) = self.0.split_first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE;
        let payload = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute { kind, payload })
    }
}

#[cfg(test)]
mod tests;
