//! Expressions: the instructions of a rule. Each loads into registers, computes on them, compares, or acts.
//!
//! They are the kernel's own (one struct for each `struct nft_expr_type`), so a rule built of them is exactly what
//! runs. [`crate::matches`] and [`crate::statement`] build the usual sequences; nobody writes these by hand twice.

mod act;
mod compare;
mod compute;
mod load;
mod lookup;
mod nat;

pub use act::{ConnectionLimit, Counter, Limit, LimitUnit, Log, LogTarget, Quota, Reject, Unknown};
pub use compare::{Compare, ComparisonOperator, Range};
pub use compute::{Bitwise, Byteorder, ByteorderDirection, Hash, HashKind, Numgen, NumgenKind};
pub use load::{Ct, CtDirection, CtKey, Fib, FibFlags, FibResult, MetaKey, Payload, PayloadBase};
pub use lookup::{Dynset, DynsetOperation, Lookup, LookupResult};
pub use nat::{Masquerade, Nat, NatFlags, NatKind, Redirect};

use crate::{Data, Register, Verdict};

/// One instruction of a rule. `Display` prints it as `nft --debug=netlink` does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Expression {
    /// Bytes of the packet into a register.
    Payload(Payload),
    /// A property of the packet into a register.
    Meta {
        /// Which.
        key: MetaKey,
        /// Where to.
        to: Register,
    },
    /// A register into a property of the packet (`meta mark set`).
    MetaSet {
        /// Which.
        key: MetaKey,
        /// Where from.
        from: Register,
    },
    /// A property of the connection into a register.
    Ct(Ct),
    /// A register into a property of the connection (`ct mark set`).
    CtSet {
        /// Which.
        key: CtKey,
        /// Where from.
        from: Register,
    },
    /// A question to the routing table, its answer into a register.
    Fib(Fib),
    /// On with the rule if the comparison holds.
    Compare(Compare),
    /// On with the rule if the register is between two values, or not.
    Range(Range),
    /// And, xor.
    Bitwise(Bitwise),
    /// Network order to the machine's or back.
    Byteorder(Byteorder),
    /// Counting or random numbers into a register.
    Numgen(Numgen),
    /// A hash of registers or of the flow into a register.
    Hash(Hash),
    /// A look into a set or map.
    Lookup(Lookup),
    /// A new or renewed element of a set.
    Dynset(Dynset),
    /// A constant into a register.
    Immediate {
        /// Where to.
        to: Register,
        /// What.
        data: Data,
    },
    /// What becomes of the packet.
    Verdict(Verdict),
    /// Another source or destination.
    Nat(Nat),
    /// The outgoing interface's address as source.
    Masquerade(Masquerade),
    /// This machine as destination.
    Redirect(Redirect),
    /// Packets and bytes that came by.
    Counter(Counter),
    /// On with the rule up to (or over) a rate.
    Limit(Limit),
    /// On with the rule up to (or over) an amount.
    Quota(Quota),
    /// On with the rule up to (or over) a number of connections.
    ConnectionLimit(ConnectionLimit),
    /// A line in the log or to a listener.
    Log(Log),
    /// Thrown away, and the sender is told.
    Reject(Reject),
    /// Not to be tracked as a connection.
    Notrack,
    /// One this crate has no type for; met in dumps of tables that are not ours.
    Unknown(Unknown),
}

impl Expression {
    /// The same without what the kernel changes by itself (counts, consumed quota), to compare meaning.
    #[must_use]
    pub fn without_state(&self) -> Self {
        match self {
            Self::Counter(_) => Self::Counter(Counter::default()),
            Self::Quota(quota) => Self::Quota(Quota { consumed: 0, ..*quota }),
            other => other.clone(),
        }
    }
}
