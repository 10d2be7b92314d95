//! What happened on the way, step by step.

use std::{fmt, net::SocketAddr};

use super::Place;
use crate::{Data, Element, ElementValue, Hook, NatKind, Policy, Reject, Verdict};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// At which hook.
    pub hook: Hook,
    /// Which rule did it; `None` for what the kernel does by itself.
    pub place: Option<Place>,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// A set was looked into.
    Looked {
        /// Its name.
        set: String,
        /// With this key.
        key: Data,
        /// And this was there.
        found: Option<Element>,
    },
    /// A number was chosen, at random or by what only the kernel knows.
    Chose {
        /// Which.
        number: u32,
        /// Of how many.
        modulus: u32,
    },
    /// A number was computed from the packet.
    Hashed {
        /// Which.
        number: u32,
        /// Of how many.
        modulus: u32,
    },
    /// A rule added an element to a set.
    Added {
        /// The set.
        set: String,
        /// The element.
        element: Element,
    },
    /// A rule would have added an element, and the set is full: the rule ends there.
    Full {
        /// The set.
        set: String,
    },
    /// A rule removed an element from a set.
    Removed {
        /// The set.
        set: String,
        /// The element's key.
        key: Data,
    },
    /// The packet's mark was set.
    Marked(u32),
    /// The connection's mark was set.
    ConnectionMarked(u32),
    /// The rule has a counter, and it counted.
    Counted,
    /// A line was logged.
    Logged(String),
    /// The connection is not tracked from here on.
    NotTracked,
    /// It was decided what one side becomes.
    Decided {
        /// Which side.
        kind: NatKind,
        /// What was.
        from: SocketAddr,
        /// What becomes of it. The port of a masqueraded source is the kernel's choice, and shown unchanged here.
        to: SocketAddr,
        /// As the outgoing interface's address.
        masquerade: bool,
    },
    /// The packet was rewritten.
    Rewritten {
        /// Which side.
        kind: NatKind,
        /// What was.
        from: SocketAddr,
        /// What is.
        to: SocketAddr,
    },
    /// It was decided where the packet goes.
    Routed {
        /// To this machine itself.
        local: bool,
        /// By this interface, if that is known.
        interface: Option<String>,
    },
    /// There is no way there.
    Unroutable,
    /// A rule matched, and gave no verdict.
    Matched,
    /// A rule gave its verdict.
    Verdict(Verdict),
    /// A rule refused the packet.
    Rejected(Reject),
    /// The end of a base chain was reached.
    Policy(Policy),
}

impl Step {
    /// Whether a rule ran to its end: these are the steps that the kernel tells of (`nft monitor trace`).
    pub fn is_rule(&self) -> bool {
        matches!(self.what, What::Matched | What::Verdict(_) | What::Rejected(_))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.hook.as_str())?;
        if let Some(place) = &self.place {
            write!(f, ", {place}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Looked { set, found: None, .. } => write!(f, "not in {set}"),
            Self::Looked { set, found: Some(element), .. } => {
                write!(f, "in {set}")?;
                match &element.value {
                    Some(ElementValue::Verdict(verdict)) => write!(f, ": {verdict}"),
                    Some(ElementValue::Data(_)) | None => Ok(()),
                }
            }
            Self::Chose { number, modulus } => write!(f, "chose {number} of {modulus}"),
            Self::Hashed { number, modulus } => write!(f, "hashed to {number} of {modulus}"),
            Self::Added { set, .. } => write!(f, "added to {set}"),
            Self::Full { set } => write!(f, "{set} is full"),
            Self::Removed { set, .. } => write!(f, "removed from {set}"),
            Self::Marked(mark) => write!(f, "mark {mark:#x}"),
            Self::ConnectionMarked(mark) => write!(f, "connection mark {mark:#x}"),
            Self::Counted => f.write_str("counted"),
            Self::Logged(prefix) => write!(f, "logged {prefix:?}"),
            Self::NotTracked => f.write_str("not tracked"),
            Self::Decided { kind, from, to, masquerade } => {
                let how = if *masquerade { "masquerade" } else { side(*kind) };
                write!(f, "{how} {from} -> {to}")
            }
            Self::Rewritten { kind, from, to } => write!(f, "{} {from} is now {to}", side(*kind)),
            Self::Routed { local: true, .. } => f.write_str("for this machine"),
            Self::Routed { interface, .. } => {
                write!(f, "goes out by {}", interface.as_deref().unwrap_or("some interface"))
            }
            Self::Unroutable => f.write_str("no route leads there"),
            Self::Matched => f.write_str("matches"),
            Self::Verdict(verdict) => write!(f, "{verdict}"),
            Self::Rejected(reject) => write!(f, "reject {reject:?}"),
            Self::Policy(policy) => write!(f, "policy {}", policy.as_str()),
        }
    }
}

const fn side(kind: NatKind) -> &'static str {
    match kind {
        NatKind::Source => "source",
        NatKind::Destination => "destination",
    }
}
