//! The kernel's language: nftables objects, expressions, transactions and dumps over netlink, in this process.
//!
//! The way of a rule: [`mod@matches`] and [`statement`] build [`Expression`]s, a [`Rule`] holds them, a
//! [`Transaction`] carries rules and other objects, [`Nft::run`] makes them true at once or not at all
//! ([`Kernel`] over netlink, [`Fake`] in memory), and [`Nft::dump`] reads a whole table back as a [`Ruleset`].
//! `packet/plan` decides what the rules are, `packet/apply` owns the one table and keeps it so.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bytecode;
mod chain;
mod data;
mod datatype;
mod decode;
mod describe;
mod element;
mod encode;
mod error;
pub mod evaluate;
mod expr;
mod fake;
mod kernel;
mod key_typeof;
pub mod matches;
mod register;
mod rule;
mod ruleset;
mod selector;
mod set;
pub mod statement;
mod table;
mod text;
pub mod trace;
mod transaction;
mod verdict;
mod wire;

pub use chain::{BaseChain, Chain, ChainKind, Hook, Policy, priority};
pub use data::Data;
pub use datatype::DataType;
pub use element::{Element, ElementValue};
pub use error::Error;
pub use expr::{
    Bitwise, Byteorder, ByteorderDirection, Compare, ComparisonOperator, ConnectionLimit, Counter, Ct,
    CtDirection, CtKey, Dynset, DynsetOperation, Expression, Fib, FibFlags, FibResult, Hash, HashKind, Limit,
    LimitUnit, Log, LogTarget, Lookup, LookupResult, Masquerade, MetaKey, Nat, NatFlags, NatKind, Numgen,
    NumgenKind, Payload, PayloadBase, Quota, Range, Redirect, Reject, Unknown,
};
pub use fake::Fake;
pub use kernel::Kernel;
pub use register::Register;
pub use rule::{IntoExpressions, Rule};
pub use ruleset::{FilledChain, FilledSet, Ruleset};
pub use selector::{Selector, load};
pub use set::{Set, SetValue};
pub use table::{Family, Table};
pub use transaction::{Elements, Nft, Object, Operation, Transaction, Verb};
pub use verdict::Verdict;
