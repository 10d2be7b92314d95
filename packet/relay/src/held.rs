//! The socket that holds a port, while a relay uses it and after.
//!
//! A socket listens, not a descriptor: when the relay closes its copy, the holder's copy would go on completing
//! handshakes that nobody serves. `shutdown(2)` of a listening socket undoes listen(2) (`inet_shutdown` calls
//! `tcp_disconnect`, which keeps a port that was bound by number): it is bound again and nothing else, connections are
//! refused, nobody else can bind the port, and it may listen again.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use portolan_model::Protocol;
use rustix::{
    io::Errno,
    net::{RecvFlags, Shutdown, recv, shutdown},
};
use socket2::{Domain, SockRef, Socket, Type};

use crate::filter;

/// Connections that are complete and not yet accepted.
const BACKLOG: i32 = 128;
/// So many datagrams are thrown away at most.
const DRAIN: usize = 64;

/// A held socket that a relay uses; dropped, it is a hold and nothing else.
#[derive(Debug)]
pub(crate) struct Held {
    protocol: Protocol,
    socket: OwnedFd,
}

impl Held {
    /// Makes it ready to serve the loopback. On an error it is as it was.
    pub(crate) fn use_for_loopback(protocol: Protocol, socket: OwnedFd) -> io::Result<Self> {
        let held = Self { protocol, socket };
        let socket = SockRef::from(&held.socket);
        socket.set_nonblocking(true)?;
        // Before anything could come in.
        filter::attach(&socket)?;
        match protocol {
            Protocol::Tcp => {
                // With it, connections that have ended do not keep the port from whoever holds it next, nor from
                // listening, for a minute (TIME-WAIT); connections inherit it. While this one listens, nobody else can
                // have the port all the same; before that it is not set unless it must be.
                let listens = socket.listen(BACKLOG);
                socket.set_reuse_address(true)?;
                if listens.is_err() {
                    socket.listen(BACKLOG)?;
                }
            }
            _ => {
                // Holds have the least buffer that there is.
                let normal = Socket::new(Domain::IPV4, Type::DGRAM, None)?.recv_buffer_size()?;
                // The kernel doubles what it is given and reports the double (socket(7), SO_RCVBUF).
                socket.set_recv_buffer_size(normal / 2)?;
                drain(&held.socket);
            }
        }
        Ok(held)
    }

    /// Another descriptor of it.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = quiet(self.protocol, &self.socket) {
            tracing::warn!(%error, protocol = %self.protocol, "a held port may go on answering on the loopback");
        }
    }
}

/// Makes a socket that a relay has used, maybe one that was killed, a hold again: bound and nothing else. No harm to
/// one that is.
///
/// # Errors
/// It is no socket of that protocol.
pub fn quiet(protocol: Protocol, socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    let reference = SockRef::from(&socket);
    match protocol {
        Protocol::Tcp => {
            // Before it ends to listen: a hold without it is nobody else's.
            reference.set_reuse_address(false)?;
            match shutdown(socket, Shutdown::Read) {
                // It does not listen.
                Ok(()) | Err(Errno::NOTCONN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        _ => reference.set_recv_buffer_size(0)?,
    }
    filter::detach(&reference)?;
    if protocol == Protocol::Udp {
        drain(socket);
    }
    Ok(())
}

/// Throws away what came before.
fn drain(socket: impl AsFd) {
    for _ in 0..DRAIN {
        if recv(&socket, [0u8; 1].as_mut_slice(), RecvFlags::DONTWAIT | RecvFlags::TRUNC).is_err() {
            break;
        }
    }
}
