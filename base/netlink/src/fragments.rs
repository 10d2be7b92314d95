//! Datagrams that are larger than the path: let the kernel take them apart.
//!
//! `quinn-udp` sets up its sockets for QUIC, which probes the path by itself and must never be fragmented. A relay
//! passes on what others send, whatever its size.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};

/// Undoes on a UDP socket what forbids fragments; `v6`: its family.
///
/// # Errors
/// It is no such socket.
pub fn allow(socket: impl AsFd, v6: bool) -> io::Result<()> {
    let socket = socket.as_fd();
    // Also on an IPv6 socket, which may carry IPv4.
    set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::WANT)?;
    if v6 {
        set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::WANT)?;
        dont_fragment_off(socket.as_raw_fd())?;
    }
    Ok(())
}

/// `IPV6_DONTFRAG` (RFC 3542 section 11.2), which no safe crate offers.
#[expect(unsafe_code, reason = "setsockopt(2) of an option that rustix and socket2 do not know")]
fn dont_fragment_off(socket: std::os::fd::RawFd) -> io::Result<()> {
    let off: libc::c_int = 0;
    // SAFETY: the pointer is to an integer that lives until the call returns, and the length is its own; the
    // descriptor is borrowed by the caller for as long.
    let result = unsafe {
        libc::setsockopt(
            socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_DONTFRAG,
            std::ptr::from_ref(&off).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
