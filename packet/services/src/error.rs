//! Errors of the configuration, and problems of Services, which stop no others.

use std::fmt;

use portolan_model::ObjectName;

use crate::Front;

/// Why a configuration cannot be made into rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServicesError {
    /// A name that the kernel refuses.
    #[error("the table's name {0:?} is not 1 to 255 bytes long")]
    Table(String),
    /// No bit to mark packets with.
    #[error("the masquerade mark has no bit set: use one bit that nobody else uses, such as 0x4000")]
    Mark,
    /// No room for any client.
    #[error("affinity for 0 clients: use 1 or more")]
    AffinitySize,
    /// A name that no interface can have.
    #[error("the interface {name:?} is not 1 to {at_most} bytes long")]
    Interface {
        /// As it was given.
        name: String,
        /// Bytes it may have.
        at_most: usize,
    },
}

/// What is wrong with a Service; the rest of it, and all others, are served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Another Service has this address and port already, and keeps it.
    Taken {
        /// What both want.
        front: Front,
        /// Who has it.
        by: ObjectName,
    },
    /// More weights than a map can hold: they were scaled down.
    Weights {
        /// What they add up to.
        total: u64,
    },
    /// More endpoints than this number are left out.
    Endpoints {
        /// How many there are.
        count: usize,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { front, by } => {
                write!(f, "{front} is served for {by}: give one of the two another address or port")
            }
            Self::Weights { total } => write!(f, "the weights add up to {total}: they are scaled down"),
            Self::Endpoints { count } => {
                write!(f, "{count} endpoints are more than 65,536: the rest is left out")
            }
        }
    }
}
