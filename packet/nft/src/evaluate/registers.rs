//! The 64 bytes between expressions. Reading what nothing wrote is an error: the kernel refuses such rules since 6.3
//! (`nft_parse_register_load`), and before they had what happened to be there.

use crate::Register;

const BYTES: usize = Register::WORDS as usize * 4;

/// All registers of one rule.
#[derive(Debug)]
pub(super) struct Registers {
    bytes: [u8; BYTES],
    // One bit for each word that was written.
    written: u16,
}

impl Registers {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; BYTES], written: 0 }
    }

    /// Puts a value there; the rest of its last word becomes zero, as the kernel does for what is shorter.
    pub(super) fn store(&mut self, to: Register, value: &[u8]) {
        let first = usize::from(to.first_word()) * 4;
        let padded = value.len().next_multiple_of(4);
        for (at, byte) in (first..BYTES).take(padded).enumerate() {
            self.bytes[byte] = value.get(at).copied().unwrap_or(0);
        }
        for word in first / 4..((first + padded) / 4).min(Register::WORDS.into()) {
            self.written |= 1 << word;
        }
    }

    /// A value of so many bytes; `None` if nothing wrote it, or if it reaches beyond the last word.
    pub(super) fn load(&self, from: Register, length: usize) -> Option<&[u8]> {
        let first = usize::from(from.first_word()) * 4;
        let end = first + length;
        let mut words = first / 4..end.div_ceil(4);
        let all = end <= BYTES && words.all(|word| self.written & 1 << word != 0);
        all.then(|| &self.bytes[first..end])
    }
}
