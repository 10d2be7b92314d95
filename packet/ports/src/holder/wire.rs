//! What the holder and its clients say: frames of a length (4 bytes, big end first) and JSON, over a unix stream.
//!
//! A descriptor that is handed over goes with the first byte of its frame (SCM_RIGHTS, unix(7)). JSON, because a
//! holder outlives the version of Portolan that started it and the next one must be able to read it.

use std::{
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    net::IpAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use portolan_model::Protocol;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::hold::Hold;

/// Raised when a holder of the old version could misunderstand a client of the new one, or the other way round.
pub const VERSION: u32 = 1;
/// The largest frame: a list of 20,000 single holds is some 1.2 MB.
pub const MAX_FRAME: usize = 8 << 20;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Who are you? Answered by [`Reply::Hello`].
    Hello,
    /// Hold all of these or none. Holding what is held already is no error. [`Reply::Done`], [`Reply::Refused`] or
    /// [`Reply::Full`].
    Hold(Vec<Hold>),
    /// Let go of these, closed when the answer comes. What is not held is no error. [`Reply::Done`] with the number that
    /// was.
    Release(Vec<Hold>),
    /// The same, for ports that nobody waits for: the answer comes first, and many are closed after it. [`Reply::Hello`]
    /// says whether the holder can.
    #[serde(rename = "release-soon")]
    ReleaseSoon(Vec<Hold>),
    /// What do you hold? [`Reply::Holds`].
    List,
    /// Give me the socket of this one port, and let go of it. [`Reply::Taken`], [`Reply::Refused`] when it is not held.
    Take(Hold),
    /// Give me a duplicate of the socket of this one port, and go on holding it. [`Reply::Taken`], [`Reply::Refused`]
    /// when it is not held. At the end of the connection it is as after [`Request::GiveBack`].
    Borrow(Hold),
    /// I am done with a borrowed socket: it is only bound again. [`Reply::Done`].
    #[serde(rename = "give-back")]
    GiveBack(Hold),
    /// Keep the descriptor that comes with this frame under this name, in place of what had it. [`Reply::Done`]. For
    /// processes that live for one call, and leave something open for the next one. [`Reply::Hello`] says whether the
    /// holder can.
    Keep(String),
    /// Give me a duplicate of what is kept under this name. [`Reply::Taken`].
    Kept(String),
    /// Let go of everything and end. [`Reply::Done`] first.
    Shutdown,
}

/// What the holder answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The version of the wire, the process, and how many sockets it has and can still have.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Process id.
        pid: u32,
        /// Sockets held.
        held: usize,
        /// Sockets that can be added.
        room: usize,
        /// Whether it understands [`Request::Keep`] and [`Request::Kept`], which are younger than the others.
        #[serde(default)]
        keeps: bool,
        /// Whether it understands [`Request::ReleaseSoon`], which is younger still.
        #[serde(default)]
        soon: bool,
    },
    /// Done; how many ports it concerned, and how many sockets can still be added.
    Done {
        /// Ports, each counted once for each protocol and address.
        count: usize,
        /// Sockets that can be added.
        room: usize,
    },
    /// Nothing was held, because these could not be.
    Refused(Vec<Failure>),
    /// Nothing was held, because the limit of open files allows only so many more.
    Full {
        /// Sockets that can be added.
        room: usize,
    },
    /// Everything held, neighbouring ports as one range.
    Holds(Vec<Hold>),
    /// The descriptor comes with this frame, unless the kernel has no sockets of the protocol.
    Taken {
        /// Whether one comes.
        socket: bool,
    },
    /// The request was not understood.
    Bad(String),
}

/// One port that could not be held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The protocol.
    pub protocol: Protocol,
    /// The host address, or all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The kernel's reason, an errno.
    pub errno: i32,
}

impl Failure {
    /// Whether somebody else has the port.
    pub fn is_taken(&self) -> bool {
        self.error().kind() == io::ErrorKind::AddrInUse
    }

    /// The reason.
    pub fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }
}

/// Sends one frame, with a descriptor if there is one.
pub fn send(stream: &UnixStream, message: &impl Serialize, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is larger than a frame can be"));
    }
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend((body.len() as u32).to_be_bytes());
    frame.extend(body);
    let mut rest = frame.as_slice();
    if let Some(fd) = fd {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let sent = rustix::net::sendmsg(stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL)?;
        rest = &rest[sent..];
    }
    let mut stream = stream;
    stream.write_all(rest)
}

/// Bytes that came, not yet a whole frame, and the descriptor that came with them.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    fd: Option<OwnedFd>,
}

impl Inbox {
    /// Reads once what is there, or waits for it if the stream waits. `false` at the end of the stream.
    pub fn fill(&mut self, stream: &UnixStream, flags: RecvFlags) -> io::Result<bool> {
        let mut buffer = [0u8; 16 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(stream.as_fd(), &mut slices, &mut control, flags)?.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                self.fd = fds.next();
            }
        }
        self.bytes.extend_from_slice(&buffer[..received]);
        Ok(received > 0)
    }

    /// The next whole frame, and the descriptor that came with it.
    pub fn take<T: for<'de> Deserialize<'de>>(&mut self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > MAX_FRAME {
            let why = format!("a frame of {length} bytes: the other side does not speak this protocol");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body);
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            // A long list passed through: give the memory back.
            self.bytes = Vec::new();
        }
        Ok(Some((message?, self.fd.take())))
    }
}
