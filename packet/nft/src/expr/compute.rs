//! Expressions that make values: bit arithmetic, byte order, numbers, hashes.

use crate::{Data, Register};

/// `to = (from & mask) ^ xor`. With it one expresses and, or, xor: `x | v` is `(x & !v) ^ v`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bitwise {
    /// Where from.
    pub from: Register,
    /// Where to; may be the same.
    pub to: Register,
    /// As long as the value.
    pub mask: Data,
    /// As long as the value.
    pub xor: Data,
}

/// `enum nft_byteorder_ops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum ByteorderDirection {
    /// From network order to the machine's.
    ToHost = 0,
    /// From the machine's order to network order.
    ToNetwork = 1,
}

/// Bytes swapped where the machine's order is not the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Byteorder {
    /// Where from.
    pub from: Register,
    /// Where to; may be the same.
    pub to: Register,
    /// Which way.
    pub direction: ByteorderDirection,
    /// Bytes in all.
    pub length: u32,
    /// Bytes of one value: 2, 4 or 8.
    pub size: u32,
}

/// `enum nft_ng_types`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum NumgenKind {
    /// 0, 1, 2, ... and round.
    Incremental = 0,
    /// Uniformly random.
    Random = 1,
}

/// A number from `offset` up to `offset + modulus - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Numgen {
    /// How it is made.
    pub kind: NumgenKind,
    /// How many different numbers.
    pub modulus: u32,
    /// The least of them.
    pub offset: u32,
    /// Where to.
    pub to: Register,
}

/// What is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashKind {
    /// Bytes of registers, by Jenkins' hash.
    Jenkins {
        /// Where they begin.
        from: Register,
        /// How many bytes.
        length: u32,
        /// `None`: a random one of the kernel's, new with each rule. Give one where the result must last.
        seed: Option<u32>,
    },
    /// The flow, the same in both directions.
    Symmetric,
}

/// A number from `offset` up to `offset + modulus - 1`, by a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash {
    /// What is hashed.
    pub kind: HashKind,
    /// How many different numbers, 2 at least.
    pub modulus: u32,
    /// The least of them.
    pub offset: u32,
    /// Where to.
    pub to: Register,
}
