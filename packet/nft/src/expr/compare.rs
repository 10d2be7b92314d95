//! Expressions that decide whether the rule goes on.

use crate::{Data, Register};

/// How to compare: `enum nft_cmp_ops`. Byte by byte from the first, so network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum ComparisonOperator {
    /// Equal.
    Equal = 0,
    /// Not equal.
    NotEqual = 1,
    /// Less.
    Less = 2,
    /// Less or equal.
    LessOrEqual = 3,
    /// Greater.
    Greater = 4,
    /// Greater or equal.
    GreaterOrEqual = 5,
}

impl ComparisonOperator {
    /// By the kernel's number.
    pub fn from_number(number: u32) -> Option<Self> {
        use ComparisonOperator as O;
        [O::Equal, O::NotEqual, O::Less, O::LessOrEqual, O::Greater, O::GreaterOrEqual]
            .into_iter()
            .find(|operator| *operator as u32 == number)
    }

    /// The word `nft --debug=netlink` uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "eq",
            Self::NotEqual => "neq",
            Self::Less => "lt",
            Self::LessOrEqual => "lte",
            Self::Greater => "gt",
            Self::GreaterOrEqual => "gte",
        }
    }

    /// The sign nft uses in rules; nothing for equality.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "",
            Self::NotEqual => "!= ",
            Self::Less => "< ",
            Self::LessOrEqual => "<= ",
            Self::Greater => "> ",
            Self::GreaterOrEqual => ">= ",
        }
    }
}

/// On with the rule if `register operator value` holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Compare {
    /// How.
    pub operator: ComparisonOperator,
    /// What.
    pub register: Register,
    /// With what; its length says how many bytes are compared.
    pub value: Data,
}

/// On with the rule if the register is between two values, both included, or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// `true`: on if it is outside.
    pub invert: bool,
    /// What.
    pub register: Register,
    /// The least.
    pub first: Data,
    /// The greatest.
    pub last: Data,
}
