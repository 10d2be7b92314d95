//! Registers: the 64 bytes in which expressions hand values to each other.
//!
//! The kernel addresses them as sixteen words of 4 bytes (`NFT_REG32_00`...) or as four blocks of 16
//! (`NFT_REG_1`...), which lie over each other. Here a register is the number of its first word, so one place has
//! one name; the wire form is the one the kernel itself dumps (`nft_dump_register` in
//! `net/netfilter/nf_tables_api.c`, v6.12).

use std::fmt;

/// The first of the words that a value occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register(u8);

impl Register {
    /// Words there are.
    pub const WORDS: u8 = 16;
    /// The first 16-byte block (words 0 to 3).
    pub const R1: Self = Self(0);
    /// The second (words 4 to 7).
    pub const R2: Self = Self(4);
    /// The third (words 8 to 11).
    pub const R3: Self = Self(8);
    /// The fourth (words 12 to 15).
    pub const R4: Self = Self(12);

    /// The word with this number, counted from 0; beyond 15 wraps round, as the kernel has no more.
    pub const fn word(number: u8) -> Self {
        Self(number % Self::WORDS)
    }

    /// The register that follows a value of `bytes` bytes stored here: where a concatenation's next field goes.
    #[must_use]
    pub const fn after(self, bytes: usize) -> Self {
        Self::word(self.0 + bytes.div_ceil(4) as u8)
    }

    /// Its first word, counted from 0.
    pub const fn first_word(self) -> u8 {
        self.0
    }

    /// The number on the wire: `NFT_REG_1`.. where a block begins, else `NFT_REG32_xx`.
    pub const fn number(self) -> u32 {
        if self.0.is_multiple_of(4) { 1 + (self.0 / 4) as u32 } else { 8 + self.0 as u32 }
    }

    /// Reads either numbering; `None` for the verdict register (0) and unknown numbers.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1..=4 => Some(Self((number as u8 - 1) * 4)),
            8..=23 => Some(Self(number as u8 - 8)),
            _ => None,
        }
    }
}

impl fmt::Display for Register {
    /// As `nft --debug=netlink` shows it: `reg 9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reg {}", self.number())
    }
}
