//! The socket filter: only what came in by `lo` to a loopback address gets through.
//!
//! Classic BPF (`linux/filter.h`, socket(7) SO_ATTACH_FILTER), run by the kernel before it looks at a segment or
//! queues a datagram (`tcp_filter`, `udp_queue_rcv_one_skb`); a connection that is accepted inherits it. What it drops
//! is as if it had been lost on the way.

use std::io;

use socket2::{SockFilter, SockRef};

/// Loads relative to the IP header: `SKF_NET_OFF`.
const NETWORK: u32 = -0x10_0000_i32 as u32;
/// The interface's index: `SKF_AD_OFF + SKF_AD_IFINDEX`.
const INTERFACE: u32 = (-0x1000_i32 + 8) as u32;
/// `LOOPBACK_IFINDEX` of `net/flow.h`: `lo` is the first interface of every namespace. By its address alone a packet
/// of a neighbour could pass where `route_localnet` is set.
const LO: u32 = 1;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const SHIFT_RIGHT: u16 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Lets through what is for the loopback, on a socket of either family.
pub(crate) fn attach(socket: &SockRef<'_>) -> io::Result<()> {
    socket.attach_filter(&loopback_only())
}

/// Lets everything through again; fine if there was no filter.
pub(crate) fn detach(socket: &SockRef<'_>) -> io::Result<()> {
    match socket.detach_filter() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn loopback_only() -> [SockFilter; 18] {
    const DROP: u8 = 16;
    const PASS: u8 = 17;
    let load = |code, from| SockFilter::new(code, 0, 0, from);
    // At this place: where to go on when the loaded value is this one, and when not. Jumps count from the next one.
    let equal =
        |at: u8, value, yes: u8, no: u8| SockFilter::new(JUMP_EQUAL, yes - at - 1, no - at - 1, value);
    [
        load(LOAD_WORD, INTERFACE),
        equal(1, LO, 2, DROP),
        // The version, the upper half of the first byte.
        load(LOAD_BYTE, NETWORK),
        load(SHIFT_RIGHT, 4),
        equal(4, 4, 5, 7),
        // IPv4 destination: 127.0.0.0/8.
        load(LOAD_BYTE, NETWORK + 16),
        equal(6, 127, PASS, DROP),
        // IPv6 destination: ::1.
        equal(7, 6, 8, DROP),
        load(LOAD_WORD, NETWORK + 24),
        equal(9, 0, 10, DROP),
        load(LOAD_WORD, NETWORK + 28),
        equal(11, 0, 12, DROP),
        load(LOAD_WORD, NETWORK + 32),
        equal(13, 0, 14, DROP),
        load(LOAD_WORD, NETWORK + 36),
        equal(15, 1, PASS, DROP),
        load(RETURN, 0),
        load(RETURN, u32::MAX),
    ]
}
