//! Frames: two logical connections through one unix socket.
//!
//! Both ends send requests, and a ttrpc connection has a client and a server end, so NRI runs two of them over the
//! socket: on [`PLUGIN`] the runtime asks, on [`RUNTIME`] the plugin does. A frame is the connection's number and the
//! payload's length, both 32 bits in network order, and the payload (nri, `pkg/net/multiplex/mux.go`). [`crate::link`]
//! reads and writes them on a socket.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::ttrpc;

/// The logical connection on which the runtime is the client: the service `Plugin`.
pub(crate) const PLUGIN: u32 = 1;
/// The logical connection on which the plugin is the client: the service `Runtime`.
pub(crate) const RUNTIME: u32 = 2;

/// Length of a frame's header.
const HEADER: usize = 8;
/// A ttrpc message in one frame is the largest that either end sends.
const PAYLOAD_LIMIT: usize = ttrpc::HEADER + ttrpc::PAYLOAD_LIMIT;
/// What the reader at the other end can take at the beginning of a message.
///
/// Its ttrpc reads through a `bufio.Reader` of 4096 bytes, and the multiplexer below it hands out whole frames or
/// fails: a frame that is longer than the buffer it is asked for ends the connection. Only the rest of a long payload
/// is read straight into a buffer of its size.
const FIRST: usize = 4096;

/// The payload of one frame, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) connection: u32,
    pub(crate) payload: Bytes,
}

/// A frame announces more than any message has: what comes is not NRI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes on connection {connection}: no message is longer than {PAYLOAD_LIMIT}")]
pub(crate) struct FrameTooLong {
    connection: u32,
    length: usize,
}

/// Appends `message` to `out` as the one or two frames that the other end can read.
pub(crate) fn encode(connection: u32, message: &[u8], out: &mut BytesMut) {
    let (first, rest) = message.split_at(message.len().min(FIRST));
    out.reserve(message.len() + 2 * HEADER);
    for payload in [first, rest] {
        if !payload.is_empty() {
            out.put_u32(connection);
            // A message is at most `PAYLOAD_LIMIT` long.
            out.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
            out.put_slice(payload);
        }
    }
}

/// Takes the next whole frame from `buffer`; `None` when more bytes are needed.
pub(crate) fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameTooLong> {
    let Some(mut header) = buffer.get(..HEADER) else { return Ok(None) };
    let (connection, length) = (header.get_u32(), header.get_u32());
    // Where usize has fewer than 32 bits the limit below refuses what does not fit.
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > PAYLOAD_LIMIT {
        return Err(FrameTooLong { connection, length });
    }
    if buffer.len() < HEADER + length {
        return Ok(None);
    }
    buffer.advance(HEADER);
    Ok(Some(Frame { connection, payload: buffer.split_to(length).freeze() }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the reader at the other end does: frames of one connection, joined.
    fn decode_all(buffer: &mut BytesMut) -> Vec<Frame> {
        std::iter::from_fn(|| decode(buffer).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn a_message_arrives_whole_and_its_first_frame_fits_the_other_ends_buffer(
            connection: u32,
            length in prop_oneof![1_usize..40, 4090_usize..4100, 8000_usize..20_000],
        ) {
            let message: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut wire = BytesMut::new();
            encode(connection, &message, &mut wire);
            let frames = decode_all(&mut wire);
            prop_assert!(frames.iter().all(|frame| frame.connection == connection));
            prop_assert!(frames[0].payload.len() <= 4096);
            prop_assert!(frames.len() <= 2);
            prop_assert_eq!(frames.iter().flat_map(|frame| frame.payload.to_vec()).collect::<Vec<_>>(), message);
            prop_assert!(wire.is_empty());
        }

        #[test]
        fn anything_at_all_is_frames_or_an_error(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&noise[..]);
            while let Ok(Some(frame)) = decode(&mut buffer) {
                prop_assert!(frame.payload.len() <= noise.len());
            }
        }
    }

    #[test]
    fn a_frame_that_announces_gigabytes_is_refused_before_it_is_read() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 1, 0xff, 0, 0, 0][..]);
        assert!(decode(&mut buffer).is_err());
    }
}
