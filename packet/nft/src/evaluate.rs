//! What a ruleset does to a packet, without a kernel: it runs the expressions that the kernel would.
//!
//! A [`Machine`] is a [`Host`] with tables. A packet walks from hook to hook as in the kernel: connection tracking,
//! chains by priority, one translation for all nat chains, routing, and so on to its [`Fate`]. [`Outcome::steps`] tells
//! each step. What is random in the kernel is asked of a [`Choose`]; [`Machine::outcomes`] goes through all answers.
//!
//! It is for tests and for `portolan trace`. What it cannot do as the kernel does is an [`EvaluateError`], never skipped.
//! `tests/evaluate` puts the same packets through the same rules here and in the kernel. Rules are those of Linux 6.18.

mod act;
mod choose;
mod connection;
mod error;
mod hash;
mod host;
mod load;
mod machine;
mod packet;
mod registers;
mod rule;
mod sets;
mod step;
mod walk;

pub use choose::{Choose, Every, Seeded};
pub use connection::{Connection, Tuple};
pub use error::{EvaluateError, Place};
pub use hash::{jhash, scale};
pub use host::{AddressType, Host, Route};
pub use machine::Machine;
pub use packet::Packet;
pub use step::{Step, What};

use crate::Reject;

/// Where a packet begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It comes in by this interface.
    Interface(String),
    /// A socket of this machine sends it.
    Here,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// A socket of this machine gets it, if there is one.
    Delivered,
    /// It left.
    Sent {
        /// By this interface, if routes are known.
        interface: Option<String>,
    },
    /// It was thrown away.
    Dropped {
        /// By this rule, or by this chain's policy.
        place: Place,
    },
    /// It was thrown away and the sender was told.
    Rejected {
        /// How.
        how: Reject,
        /// By this rule.
        place: Place,
    },
    /// No way leads where it goes.
    Unroutable,
}

/// Where a packet ended and how it got there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its end.
    pub fate: Fate,
    /// As it is at its end.
    pub packet: Packet,
    /// Its connection, unless it was not tracked.
    pub connection: Option<Connection>,
    /// All that happened, in order.
    pub steps: Vec<Step>,
}

impl Outcome {
    /// Whether its source became the address of the interface it left by.
    pub fn is_masqueraded(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.what, What::Decided { masquerade: true, .. }))
    }
}
