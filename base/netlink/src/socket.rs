//! A blocking netlink socket: datagrams to and from one part of the kernel.
//!
//! A socket speaks to the network namespace in which it was opened, also when its thread moves on. What goes through it
//! is written by [`crate::message`]; the usual exchanges, request and answer, are in [`crate::exchange`]. Notifications come to a socket of their own which has [joined](Socket::join) a
//! group, so that they do not mix with answers.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher as _, Hasher as _},
    io,
    os::fd::{AsFd, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, sockopt},
};

use crate::error::NetlinkError;

/// Room for one datagram. The kernel fills dumps up to 32 KiB when the reader offers that much
/// (`netlink_recvmsg` in `net/netlink/af_netlink.c`); a single object may be larger. Memory that no datagram touches
/// is not used.
const DATAGRAM: usize = 256 * 1024;

/// A part of the kernel that speaks netlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// Links, addresses, routes (`NETLINK_ROUTE`).
    Route,
    /// nf_tables and conntrack (`NETLINK_NETFILTER`).
    Netfilter,
    /// Sockets of all processes (`NETLINK_SOCK_DIAG`).
    SockDiag,
}

impl Bus {
    const fn protocol(self) -> isize {
        use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_SOCK_DIAG};
        match self {
            Self::Route => NETLINK_ROUTE,
            Self::Netfilter => NETLINK_NETFILTER,
            Self::SockDiag => NETLINK_SOCK_DIAG,
        }
    }
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Route => "routes",
            Self::Netfilter => "netfilter",
            Self::SockDiag => "socket diagnosis",
        })
    }
}

/// A blocking netlink socket.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    port_id: u32,
    pub(crate) sequence: AtomicU32,
    /// The memory of the last exchange, so that a small transaction does not pay for mapping it anew.
    pub(crate) scratch: Mutex<Vec<u8>>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread, with extended acknowledgements on.
    pub fn open(bus: Bus) -> Result<Self, NetlinkError> {
        let open = |source| NetlinkError::Open { bus, source };
        let mut inner = netlink_sys::Socket::new(bus.protocol()).map_err(open)?;
        let address = inner.bind_auto().map_err(open)?;
        // Kernels since 4.12 know both; without them refusals are only shorter.
        for result in [inner.set_ext_ack(true), inner.set_cap_ack(true)] {
            if let Err(error) = result {
                tracing::debug!(%bus, %error, "no extended acknowledgements");
            }
        }
        if bus == Bus::Route
            && let Err(error) = inner.set_netlink_get_strict_chk(true)
        {
            tracing::debug!(%error, "the kernel does not filter dumps");
        }
        Ok(Self {
            inner,
            port_id: address.port_number(),
            sequence: AtomicU32::new(1),
            scratch: Mutex::default(),
        })
    }

    /// Goes on with a socket that another process has [opened](Socket::open) and handed over, in the network namespace
    /// in which that was. What was answered to the other one and not read by it is thrown away.
    ///
    /// A socket that lives longer than the process which uses it is worth having: the close of the last descriptor of one
    /// that spoke to nf_tables waits for what was deleted before to be freed, a grace period of RCU or some 10 ms
    /// (`nft_rcv_nl_event` calls `nf_tables_trans_destroy_flush_work` in `net/netfilter/nf_tables_api.c`, v6.18), and
    /// holds the lock of all transactions meanwhile. So it is no help to have somebody else close it soon, as the garbage
    /// collector of unix sockets would (`net/unix/garbage.c`): the next transaction would wait instead.
    pub fn adopt(bus: Bus, descriptor: OwnedFd) -> Result<Self, NetlinkError> {
        let open = |source| NetlinkError::Open { bus, source };
        let domain = sockopt::socket_domain(&descriptor).map_err(io("reading SO_DOMAIN"))?;
        let protocol = sockopt::socket_protocol(&descriptor).map_err(io("reading SO_PROTOCOL"))?;
        let protocol = protocol.map_or(0, |protocol| protocol.as_raw().get());
        if domain != AddressFamily::NETLINK || isize::try_from(protocol) != Ok(bus.protocol()) {
            return Err(open(io::Error::new(io::ErrorKind::InvalidInput, "it is a socket of another kind")));
        }
        #[expect(unsafe_code, reason = "the crate has no other way to take a descriptor")]
        // SAFETY: the descriptor is open, is owned by nobody else from here on, and is closed by its new owner alone.
        let inner = unsafe { netlink_sys::Socket::from_raw_fd(descriptor.into_raw_fd()) };
        let mut address = netlink_sys::SocketAddr::new(0, 0);
        inner.get_address(&mut address).map_err(open)?;
        // A late answer to somebody else must not be taken for one to us. Half of the numbers are left to count on.
        let first = RandomState::new().build_hasher().finish() as u32 >> 1;
        let sequence = AtomicU32::new(first.max(1));
        let socket = Self { inner, port_id: address.port_number(), sequence, scratch: Mutex::default() };
        let mut unread = Vec::new();
        loop {
            match socket.receive(&mut unread, Some(Duration::ZERO)) {
                Ok(false) => return Ok(socket),
                Ok(true) | Err(NetlinkError::Overrun | NetlinkError::Truncated { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The same socket once more, for another part of this process. Their exchanges must not overlap.
    pub fn try_clone(&self, bus: Bus) -> Result<Self, NetlinkError> {
        let copy = self.as_fd().try_clone_to_owned();
        Self::adopt(bus, copy.map_err(|source| NetlinkError::Open { bus, source })?)
    }

    /// Makes both buffers `bytes` large, over the limits `net.core.{w,r}mem_max` where `CAP_NET_ADMIN` allows it,
    /// otherwise as large as the limits are. A transaction is one datagram and must fit the send buffer; a storm of
    /// notifications must fit the receive buffer. Returns the sizes that are in force, sending first; the kernel
    /// counts its own overhead in them (socket(7)).
    pub fn force_buffers(&self, bytes: usize) -> Result<(usize, usize), NetlinkError> {
        let bytes = bytes.min(i32::MAX as usize / 2);
        if sockopt::set_socket_send_buffer_size_force(&self.inner, bytes).is_err() {
            sockopt::set_socket_send_buffer_size(&self.inner, bytes).map_err(io("setting SO_SNDBUF"))?;
        }
        if sockopt::set_socket_recv_buffer_size_force(&self.inner, bytes).is_err() {
            sockopt::set_socket_recv_buffer_size(&self.inner, bytes).map_err(io("setting SO_RCVBUF"))?;
        }
        let send = sockopt::socket_send_buffer_size(&self.inner).map_err(io("reading SO_SNDBUF"))?;
        let receive = sockopt::socket_recv_buffer_size(&self.inner).map_err(io("reading SO_RCVBUF"))?;
        Ok((send, receive))
    }

    /// A number for a request which no recent request of this socket has. Never 0, which notifications have.
    pub fn next_sequence(&self) -> u32 {
        match self.sequence.fetch_add(1, Ordering::Relaxed) {
            0 => self.sequence.fetch_add(1, Ordering::Relaxed),
            sequence => sequence,
        }
    }

    /// The socket's address: notifications name by it who caused a change, so that one can know one's own.
    pub fn port_id(&self) -> u32 {
        self.port_id
    }

    /// Joins a multicast group (`RTNLGRP_*`, `NFNLGRP_*`): its notifications then come with [`Socket::receive`].
    pub fn join(&self, group: u32) -> Result<(), NetlinkError> {
        self.inner
            .add_membership(group)
            .map_err(|source| NetlinkError::Io { call: "joining a group", source })
    }

    /// Leaves a multicast group. What was queued before can still be received.
    pub fn leave(&self, group: u32) -> Result<(), NetlinkError> {
        let left = self.inner.drop_membership(group);
        left.map_err(|source| NetlinkError::Io { call: "leaving a group", source })
    }

    /// Sends finished messages as one datagram. For nf_tables that is one transaction, whole or not at all.
    pub fn send(&self, messages: &[u8]) -> Result<(), NetlinkError> {
        loop {
            match self.inner.send(messages, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {
                    return Err(NetlinkError::TooLarge { bytes: messages.len() });
                }
                Err(source) => return Err(NetlinkError::Io { call: "send", source }),
            }
        }
    }

    /// Waits for a datagram and puts it into `buffer`, in place of what was there. `false` when none came within
    /// `wait` (`None`: for ever). Datagrams of other processes are passed over: anybody may send to a netlink socket.
    pub fn receive(&self, buffer: &mut Vec<u8>, wait: Option<Duration>) -> Result<bool, NetlinkError> {
        let deadline = wait.map(|wait| Instant::now() + wait);
        loop {
            buffer.clear();
            buffer.reserve(DATAGRAM);
            let flags = (rustix::net::RecvFlags::TRUNC | rustix::net::RecvFlags::DONTWAIT).bits();
            // Read before waiting: most answers are there when `send` returns, and the wait is a call of its own.
            match self.inner.recv_from(buffer, flags as i32) {
                Ok((_, from)) if from.port_number() != 0 => {}
                Ok((bytes, _)) if bytes > buffer.len() => {
                    return Err(NetlinkError::Truncated { bytes, kept: buffer.len() });
                }
                Ok(_) => return Ok(true),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    Some(Errno::AGAIN) if self.wait(deadline)? => {}
                    Some(Errno::AGAIN) => return Ok(false),
                    Some(Errno::NOBUFS) => return Err(NetlinkError::Overrun),
                    _ => return Err(NetlinkError::Io { call: "receive", source: error }),
                },
            }
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool, NetlinkError> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            });
            match poll(&mut [PollFd::new(&self.inner, PollFlags::IN)], left.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(NetlinkError::Io { call: "poll", source: error.into() }),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

fn io(call: &'static str) -> impl FnOnce(Errno) -> NetlinkError {
    move |error| NetlinkError::Io { call, source: io::Error::from(error) }
}

#[cfg(test)]
mod tests;
