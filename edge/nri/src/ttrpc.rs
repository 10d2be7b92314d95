//! ttrpc: calls over a stream of bytes, for processes of one machine.
//!
//! A message is a header of ten bytes (length of the payload, stream, type, flags) and a payload. A call is a
//! [`Request`] on a new odd stream and one [`Response`] on the same stream; NRI uses nothing else of the
//! [protocol](https://github.com/containerd/ttrpc/blob/v1.2.9/PROTOCOL.md). Messages of other types are passed on and
//! ignored above, as the protocol asks for the sake of its future.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Length of a message's header.
pub(crate) const HEADER: usize = 10;
/// No payload is longer; both ends refuse to send and to read more.
pub(crate) const PAYLOAD_LIMIT: usize = 4 << 20;

/// The type of a message that begins a call.
pub(crate) const REQUEST: u8 = 1;
/// The type of a message that ends it.
pub(crate) const RESPONSE: u8 = 2;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) stream: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) payload: Bytes,
}

/// The payload of a call (`request.proto` of ttrpc).
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) payload: Bytes,
    /// How long the caller waits; 0 when for ever.
    #[prost(int64, tag = "4")]
    pub(crate) timeout_nano: i64,
}

/// The payload of an answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    /// Not there when all is well.
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<Status>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) payload: Bytes,
}

/// What went wrong (`google.rpc.Status`).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

/// Codes of [`Status`], those of gRPC. `DEADLINE_EXCEEDED` is none of them: the runtime takes a plugin that says so
/// for one that hangs.
pub(crate) mod code {
    /// What is asked for cannot be done as things are; trying again may help.
    pub(crate) const FAILED_PRECONDITION: i32 = 9;
    /// Nobody here knows the method. Runtimes look for it: they fall back on the older `StateChange`.
    pub(crate) const UNIMPLEMENTED: i32 = 12;
    /// A defect of ours.
    pub(crate) const INTERNAL: i32 = 13;
    /// No answer in time.
    pub(crate) const UNAVAILABLE: i32 = 14;
}

/// A header announces more than may be: what comes is not ttrpc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {length} bytes: ttrpc allows {PAYLOAD_LIMIT}")]
pub(crate) struct MessageTooLong {
    length: usize,
}

impl Message {
    /// As bytes; `None` when the payload is longer than the protocol allows.
    pub(crate) fn encode(&self) -> Option<Bytes> {
        if self.payload.len() > PAYLOAD_LIMIT {
            return None;
        }
        let mut out = BytesMut::with_capacity(HEADER + self.payload.len());
        out.put_u32(u32::try_from(self.payload.len()).ok()?);
        out.put_u32(self.stream);
        out.put_u8(self.kind);
        out.put_u8(self.flags);
        out.put_slice(&self.payload);
        Some(out.freeze())
    }

    /// Takes the next whole message from `buffer`; `None` when more bytes are needed.
    pub(crate) fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, MessageTooLong> {
        let Some(mut header) = buffer.get(..HEADER) else { return Ok(None) };
        let length = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
        let (stream, kind, flags) = (header.get_u32(), header.get_u8(), header.get_u8());
        if length > PAYLOAD_LIMIT {
            return Err(MessageTooLong { length });
        }
        if buffer.len() < HEADER + length {
            return Ok(None);
        }
        buffer.advance(HEADER);
        Ok(Some(Self { stream, kind, flags, payload: buffer.split_to(length).freeze() }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        (any::<u32>(), any::<u8>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300)).prop_map(
            |(stream, kind, flags, payload)| Message { stream, kind, flags, payload: payload.into() },
        )
    }

    proptest! {
        #[test]
        fn messages_arrive_in_order_wherever_the_bytes_are_cut(
            messages in proptest::collection::vec(message(), 0..6),
            cut in 1_usize..50,
        ) {
            let wire: Vec<u8> = messages.iter().flat_map(|m| m.encode().unwrap().to_vec()).collect();
            let mut buffer = BytesMut::new();
            let mut read = Vec::new();
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(message) = Message::decode(&mut buffer).unwrap() {
                    read.push(message);
                }
            }
            prop_assert_eq!(read, messages);
            prop_assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_payload_over_four_megabytes_is_neither_sent_nor_read() {
        let message =
            |length| Message { stream: 1, kind: REQUEST, flags: 0, payload: vec![0; length].into() };
        assert!(message(PAYLOAD_LIMIT).encode().is_some());
        assert!(message(PAYLOAD_LIMIT + 1).encode().is_none());
        let mut buffer = BytesMut::from(&[0, 0x40, 0, 1, 0, 0, 0, 1, 1, 0][..]);
        assert!(Message::decode(&mut buffer).is_err());
    }
}
