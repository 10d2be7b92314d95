//! What the kernel throws dice for, and how to see every throw.

/// Gives the numbers that the kernel would: `numgen`, and hashes whose seed only it knows.
pub trait Choose {
    /// A number below `modulus`, which is at least 1.
    fn choose(&mut self, modulus: u32) -> u32;
}

/// The same numbers for the same seed: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// From this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Choose for Seeded {
    fn choose(&mut self, modulus: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        super::hash::scale(mixed as u32, modulus)
    }
}

/// Goes through all sequences of choices, one each time round: the first run takes every first number, and
/// [`Every::advance`] turns the last choice that has another number left.
#[derive(Clone, Debug, Default)]
pub struct Every {
    made: Vec<(u32, u32)>,
    at: usize,
}

impl Every {
    /// Nothing chosen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next sequence; `false` when all have been.
    pub fn advance(&mut self) -> bool {
        self.made.truncate(self.at);
        self.at = 0;
        while let Some((number, modulus)) = self.made.pop() {
            if number + 1 < modulus {
                self.made.push((number + 1, modulus));
                return true;
            }
        }
        false
    }
}

impl Choose for Every {
    fn choose(&mut self, modulus: u32) -> u32 {
        if self.at == self.made.len() {
            self.made.push((0, modulus));
        }
        let (number, _) = self.made[self.at];
        self.at += 1;
        number
    }
}
