//! What cannot be evaluated, with its place. Nothing is skipped in silence.

use std::fmt;

/// A rule of a chain of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The table: family and name.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// Which rule of the chain, counted from 0; `None` for the chain itself.
    pub rule: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.chain)?;
        self.rule.map_or(Ok(()), |rule| write!(f, " rule {}", rule + 1))
    }
}

/// Why no outcome can be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// An expression, or something of it, that only a kernel can run.
    #[error("{place}: {what} cannot be evaluated here")]
    Unsupported {
        /// Where.
        place: Place,
        /// What, in words.
        what: String,
    },
    /// A register is read before anything was written into it; the kernel does not load such a rule.
    #[error("{place}: {expression:?} reads a register that nothing was written into")]
    Unset {
        /// Where.
        place: Place,
        /// What reads.
        expression: String,
    },
    /// A rule names a set or chain that its table does not have.
    #[error("{place}: there is no {what} of that name: {name}")]
    Missing {
        /// Where.
        place: Place,
        /// `set` or `chain`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// An expression that its chain may not have, such as nat in a filter chain.
    #[error("{place}: {what}")]
    Misplaced {
        /// Where.
        place: Place,
        /// What is wrong.
        what: String,
    },
    /// More chains within each other than the kernel has room for (`NFT_JUMP_STACK_SIZE`).
    #[error("{place}: more than 16 jumps within each other")]
    TooDeep {
        /// Where.
        place: Place,
    },
    /// Chains that lead to each other in a circle.
    #[error("{place}: chains lead to each other in a circle")]
    Endless {
        /// Where.
        place: Place,
    },
    /// The packet's source and destination are of different families, or a translation's.
    #[error("{0} and {1} are of different families")]
    Families(std::net::IpAddr, std::net::IpAddr),
    /// What was asked of the host is not known.
    #[error("nothing is known of {what}: give the evaluated host its {missing}")]
    Unknown {
        /// What was asked.
        what: String,
        /// What would tell.
        missing: &'static str,
    },
    /// More different outcomes than one is ready to go through.
    #[error("more than {0} different choices")]
    TooMany(usize),
}
