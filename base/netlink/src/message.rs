//! Messages: the headers that a netlink datagram is made of, and the answers `NLMSG_ERROR` and `NLMSG_DONE`.
//!
//! [`MessageWriter`] puts any number of messages after each other in one buffer, which is what a transaction of
//! nf_tables is; [`messages`] takes a received datagram apart. Inside a message are a fixed part and [`attribute`]s;
//! a [`crate::Socket`] carries the buffer. Layout: `struct nlmsghdr` in `include/uapi/linux/netlink.h`.

use std::ops::{Deref, DerefMut, Range};

use crate::{
    attribute::{self, Attributes, Oversize, Writer, attributes},
    error::KernelError,
};

/// Bytes of a message's header.
pub const HEADER: usize = 16;

/// `NLMSG_ERROR`: an acknowledgement (errno 0) or a refusal.
pub const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const DONE: u16 = 3;

/// `NLM_F_REQUEST`: from us to the kernel.
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: answer also when all went well.
pub const ACK: u16 = 0x4;
/// `NLM_F_DUMP_INTR`: what is dumped changed meanwhile.
pub const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_DUMP`: all objects instead of one (`NLM_F_ROOT | NLM_F_MATCH`).
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`: put it in the place of one that is there.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`: refuse when it is there.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`: make it when it is not there.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: at the end of the list.
pub const APPEND: u16 = 0x800;

/// `NLM_F_CAPPED`: the refusal does not repeat the whole of our message.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow, the extended acknowledgement.
const ACK_ATTRIBUTES: u16 = 0x200;

/// Writes messages into one buffer.
///
/// Between [`MessageWriter::begin`] and [`MessageWriter::finish`] the fixed part and the attributes are written with
/// the methods of [`Writer`], to which it dereferences.
#[derive(Debug, Default)]
pub struct MessageWriter {
    writer: Writer,
    start: usize,
}

impl MessageWriter {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { writer: Writer::with_capacity(bytes), start: 0 }
    }

    /// Begins a message. `flags` are those of this module; [`REQUEST`] is added.
    pub fn begin(&mut self, kind: u16, flags: u16, sequence: u32) {
        self.start = self.writer.len();
        let mut header = [0; HEADER];
        header[4..6].copy_from_slice(&kind.to_ne_bytes());
        header[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        header[8..12].copy_from_slice(&sequence.to_ne_bytes());
        // The port id stays 0: the kernel takes the socket's.
        self.writer.raw(&header);
    }

    /// Ends the message and says where in the buffer it is. A message with an attribute that is too long is taken out
    /// again, and the writer stays usable.
    pub fn finish(&mut self) -> Result<Range<usize>, Oversize> {
        let Range { start, end } = self.start..self.writer.len();
        if let Err(oversize) = self.writer.check() {
            self.writer.truncate(start);
            return Err(oversize);
        }
        let length = u32::try_from(end - start).map_err(|_| Oversize { kind: 0, bytes: end - start })?;
        self.writer.patch(start..start + 4, &length.to_ne_bytes());
        Ok(start..end)
    }

    /// Asks for an acknowledgement of the message at `message` (a range that [`MessageWriter::finish`] returned), for
    /// a batch where only the last message is to be acknowledged and which one that is shows late.
    pub fn acknowledge(&mut self, message: &Range<usize>) {
        let place = message.start + 6..message.start + 8;
        if let Some(&[low, high]) = self.writer.as_bytes().get(place.clone()) {
            let flags = u16::from_ne_bytes([low, high]) | ACK;
            self.writer.patch(place, &flags.to_ne_bytes());
        }
    }

    /// The finished messages, to be sent.
    pub fn into_bytes(self) -> Vec<u8> {
        self.writer.into_bytes()
    }
}

impl Deref for MessageWriter {
    type Target = Writer;
    fn deref(&self) -> &Writer {
        &self.writer
    }
}

impl DerefMut for MessageWriter {
    fn deref_mut(&mut self) -> &mut Writer {
        &mut self.writer
    }
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// The number of the request that this answers; 0 in most notifications.
    pub sequence: u32,
    /// To which socket this is addressed, or which one caused a notification.
    pub port_id: u32,
    /// All after the header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes after a fixed part of `fixed` bytes.
    pub fn attributes(&self, fixed: usize) -> Attributes<'a> {
        attributes(self.payload.get(fixed.next_multiple_of(4)..).unwrap_or_default())
    }

    /// For `NLMSG_ERROR` and `NLMSG_DONE` what the kernel says about the request: yes, or its refusal.
    /// `None` for every other message.
    pub fn outcome(&self) -> Option<Result<(), KernelError>> {
        if self.kind != ERROR && self.kind != DONE {
            return None;
        }
        // A DONE without payload is a good end; so it was before kernels put an error there.
        let code = self.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        if code >= 0 {
            return Some(Ok(()));
        }
        let mut refusal = KernelError {
            errno: code.saturating_neg(),
            message: None,
            offset: None,
            missing: None,
            sequence: self.sequence,
        };
        if self.flags & ACK_ATTRIBUTES != 0 {
            self.read_extended(&mut refusal);
        }
        Some(Err(refusal))
    }

    /// Reads the attributes of an extended acknowledgement (`enum nlmsgerr_attrs`).
    fn read_extended(&self, refusal: &mut KernelError) {
        let fixed = match self.kind {
            DONE => 4,
            // Errno, then our header, then, unless capped, the rest of our message.
            _ if self.flags & CAPPED != 0 => 4 + HEADER,
            _ => {
                let echoed = self.payload.get(4..8).and_then(|bytes| bytes.try_into().ok());
                4 + echoed.map_or(HEADER, |bytes| u32::from_ne_bytes(bytes) as usize)
            }
        };
        for attribute in self.attributes(fixed) {
            match attribute.kind {
                1 => refusal.message = attribute.str().map(str::to_owned),
                2 => refusal.offset = attribute.u32(),
                5 => refusal.missing = attribute.u32(),
                _ => {}
            }
        }
    }
}

/// Iterator of [`messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a>(&'a [u8]);

/// The messages in a received datagram. A header that does not fit ends the iteration.
pub fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages(datagram)
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.first_chunk::<HEADER>()?;
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = word(0) as usize;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: word(8),
            port_id: word(12),
            payload: self.0.get(HEADER..length)?,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// The least that a message with one attribute of `payload` bytes takes, for those who cut a transaction into parts.
pub const fn size_of_one(payload: usize) -> usize {
    HEADER + attribute::HEADER + payload.next_multiple_of(4)
}

#[cfg(test)]
mod tests;
