//! What the kernel answers when it refuses, and the other ways in which an exchange over netlink fails.
//!
//! A refusal is an `NLMSG_ERROR` message: an errno, and with `NETLINK_EXT_ACK` a text and the offset of the attribute
//! at fault (<https://docs.kernel.org/userspace-api/netlink/intro.html#ext-ack>). [`crate::message`] reads them.

use std::{fmt, io};

use crate::socket::Bus;

/// What the kernel said about one message of ours: its refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelError {
    /// The errno, positive: 2 is `ENOENT`. Never 0, which would be an acknowledgement.
    pub errno: i32,
    /// The kernel's own words, where it has some (`NLMSGERR_ATTR_MSG`).
    pub message: Option<String>,
    /// Where in our message the attribute at fault begins, in bytes from the message's header (`NLMSGERR_ATTR_OFFS`).
    pub offset: Option<u32>,
    /// The type of the attribute that is missing (`NLMSGERR_ATTR_MISS_TYPE`).
    pub missing: Option<u32>,
    /// The sequence number of the message that was refused.
    pub sequence: u32,
}

impl KernelError {
    /// The same errno as an [`io::Error`], for its [`io::ErrorKind`] and text.
    pub fn io(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel refused: {}", self.io())?;
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " (at byte {offset} of the message)")?;
        }
        if let Some(missing) = self.missing {
            write!(f, " (attribute {missing} is missing)")?;
        }
        Ok(())
    }
}

impl std::error::Error for KernelError {}

/// Why an exchange over netlink failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel understood the message and refused it.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// No socket could be had: too many open files, or a kernel without this protocol.
    #[error("cannot open a netlink socket for {bus}: {source}{}", missing(*bus, source))]
    Open {
        /// Which part of the kernel was to be spoken to.
        bus: Bus,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A socket call failed.
    #[error("netlink {call}: {source}")]
    Io {
        /// The call and what it was for.
        call: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The message did not fit into the send buffer; [`crate::Socket::force_buffers`] makes it larger.
    #[error(
        "a netlink message of {bytes} bytes is larger than the socket's send buffer: \
         raise it (needs CAP_NET_ADMIN, or net.core.wmem_max) or send less at once"
    )]
    TooLarge {
        /// The size of what was to be sent.
        bytes: usize,
    },
    /// The kernel dropped messages for us because we read too slowly (`ENOBUFS`): what was known may be out of date
    /// and has to be read again. A transaction that was under way may have been carried out.
    #[error("the kernel dropped netlink messages because the receive buffer was full: read the state again")]
    Overrun,
    /// A datagram was larger than the receive buffer and lost its end.
    #[error("a netlink datagram of {bytes} bytes was cut at {kept}")]
    Truncated {
        /// Its size.
        bytes: usize,
        /// How much was kept.
        kept: usize,
    },
    /// The kernel did not answer in time.
    #[error("the kernel did not answer message {sequence} within {seconds} s")]
    Timeout {
        /// The message that waits for its answer.
        sequence: u32,
        /// How long was waited.
        seconds: u64,
    },
    /// A dump changed while it was read (`NLM_F_DUMP_INTR`), several times in a row.
    #[error(
        "the state changed each time it was read ({attempts} attempts): try again when there is less change"
    )]
    Interrupted {
        /// How often it was tried.
        attempts: u32,
    },
    /// An attribute is longer than its 16 bit length field can say.
    #[error(transparent)]
    Oversize(#[from] crate::attribute::Oversize),
    /// The answer is not what the protocol says.
    #[error("the kernel's answer is malformed: {0}")]
    Malformed(String),
}

/// What to do about a kernel that lacks a part.
fn missing(bus: Bus, error: &io::Error) -> &'static str {
    const PROTOCOL_NOT_SUPPORTED: i32 = rustix::io::Errno::PROTONOSUPPORT.raw_os_error();
    match (bus, error.raw_os_error()) {
        (Bus::Netfilter, Some(PROTOCOL_NOT_SUPPORTED)) => {
            ": this kernel has no nftables; load it (modprobe nf_tables), use one with CONFIG_NF_TABLES, or go without \
             (portolan up --no-dataplane)"
        }
        _ => "",
    }
}

impl NetlinkError {
    /// The errno of the kernel's refusal, positive; `None` for all else.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel(refusal) => Some(refusal.errno),
            _ => None,
        }
    }

    /// Whether the kernel said that the object is not there (`ENOENT`, `ESRCH`, `ENODEV`, `EADDRNOTAVAIL`).
    pub fn is_absent(&self) -> bool {
        use rustix::io::Errno;
        let absent = [Errno::NOENT, Errno::SRCH, Errno::NODEV, Errno::ADDRNOTAVAIL];
        self.errno().is_some_and(|errno| absent.iter().any(|a| a.raw_os_error() == errno))
    }

    /// Whether the kernel said that the object is there already (`EEXIST`).
    pub fn is_present(&self) -> bool {
        self.errno() == Some(rustix::io::Errno::EXIST.raw_os_error())
    }

    /// Whether the kernel said that we lack a privilege (`EPERM`, `EACCES`).
    pub fn is_denied(&self) -> bool {
        use rustix::io::Errno;
        self.errno().is_some_and(|e| [Errno::PERM, Errno::ACCESS].iter().any(|d| d.raw_os_error() == e))
    }
}
