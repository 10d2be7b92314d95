//! Errors that name the step and the object.

use std::io;

/// Why a transaction or dump did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A step was refused; nothing was changed.
    #[error("{operation}: {}{}", io::Error::from_raw_os_error(*.errno), detail(.message.as_deref(), *.offset))]
    Refused {
        /// Which step, counted from 0; `None` when it was the transaction as a whole.
        index: Option<usize>,
        /// The step in words: `add element 20417 to map inet portolan host_v4`.
        operation: String,
        /// The kernel's error number.
        errno: i32,
        /// What the kernel said, where it says something.
        message: Option<String>,
        /// Where in the step's message the offending attribute is, in bytes.
        offset: Option<u32>,
    },
    /// The socket failed.
    #[error("nftables socket: {0}")]
    Socket(String),
    /// The kernel's answers were lost and the tables changed meanwhile: nobody can say whether it was us. Dump to
    /// learn what is true.
    #[error("the kernel's answer to {0} was lost: it may be done or not, read the table again")]
    Unconfirmed(String),
    /// The table changed under each of several attempts to read it.
    #[error(
        "the table {table} changed during each of {attempts} attempts to read it: something else writes to it without pause"
    )]
    Unstable {
        /// Family and name.
        table: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The kernel sent something that cannot be what its interface promises.
    #[error("the kernel's message about {what} cannot be read: {why}")]
    Malformed {
        /// What it was about.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A step that cannot be written, found before anything was sent.
    #[error("{operation}: {why}")]
    Invalid {
        /// Which step, counted from 0.
        index: usize,
        /// The step in words.
        operation: String,
        /// What is wrong with it.
        why: String,
    },
}

fn detail(message: Option<&str>, offset: Option<u32>) -> String {
    match (message, offset) {
        (Some(message), Some(offset)) => format!(" ({message}; attribute at byte {offset})"),
        (Some(message), None) => format!(" ({message})"),
        (None, Some(offset)) => format!(" (attribute at byte {offset})"),
        (None, None) => String::new(),
    }
}

// Linux, all architectures: asm-generic/errno-base.h.
const ENOENT: i32 = 2;
const EPERM: i32 = 1;
const EEXIST: i32 = 17;
const EBUSY: i32 = 16;

impl Error {
    /// The kernel's error number.
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Which step failed, counted from 0.
    pub const fn index(&self) -> Option<usize> {
        match self {
            Self::Refused { index, .. } => *index,
            Self::Invalid { index, .. } => Some(*index),
            _ => None,
        }
    }

    /// Something that a step needs is not there.
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(ENOENT)
    }

    /// Something that was to be created is there already.
    pub fn is_already_exists(&self) -> bool {
        self.errno() == Some(EEXIST)
    }

    /// Something is in use: a chain that rules jump to, a set that rules look into.
    pub fn is_busy(&self) -> bool {
        self.errno() == Some(EBUSY)
    }

    /// The process lacks CAP_NET_ADMIN in the network namespace.
    pub fn is_permission_denied(&self) -> bool {
        self.errno() == Some(EPERM)
    }
}
