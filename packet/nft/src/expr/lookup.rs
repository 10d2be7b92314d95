//! Expressions that look into sets or fill them.

use std::time::Duration;

use crate::{Expression, Register};

/// What becomes of the element that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LookupResult {
    /// Found: on with the rule. Not found: the rule ends.
    Found,
    /// Found: the rule ends. Not found: on.
    NotFound,
    /// Its data into this register, and on.
    Data(Register),
    /// Its verdict is the rule's.
    Verdict,
}

/// A look into a set, map or verdict map.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    /// The set's name.
    pub set: String,
    /// Where the key begins.
    pub key: Register,
    /// What becomes of the element.
    pub result: LookupResult,
}

/// `enum nft_dynset_ops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum DynsetOperation {
    /// Add unless it is there.
    Add = 0,
    /// Add, or begin its timeout anew.
    Update = 1,
    /// Remove.
    Delete = 2,
}

/// A rule that changes a set, see [`crate::Set::dynamic`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dynset {
    /// What to do.
    pub operation: DynsetOperation,
    /// The set's name.
    pub set: String,
    /// Where the key begins.
    pub key: Register,
    /// For maps: where the value begins.
    pub value: Option<Register>,
    /// The element's timeout; `None`: the set's.
    pub timeout: Option<Duration>,
    /// Run for each element with state of its own: a counter, a limit, a connection limit.
    pub expressions: Vec<Expression>,
}
