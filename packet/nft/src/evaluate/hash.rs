//! The kernel's hash of registers, bit by bit: `jhash` of `include/linux/jhash.h`, v6.18, by Bob Jenkins (lookup3).

/// `JHASH_INITVAL`.
const BEGIN: u32 = 0xdead_beef;

/// `jhash(key, length, seed)`.
pub fn jhash(key: &[u8], seed: u32) -> u32 {
    let begin = BEGIN.wrapping_add(key.len() as u32).wrapping_add(seed);
    let mut state = [begin; 3];
    let mut rest = key;
    while rest.len() > 12 {
        add(&mut state, &rest[..12], u32::from_ne_bytes);
        mix(&mut state);
        rest = &rest[12..];
    }
    if !rest.is_empty() {
        add(&mut state, rest, u32::from_le_bytes);
        last(&mut state);
    }
    state[2]
}

/// `reciprocal_scale` of `linux/math.h`: a number of 32 bits to one below `modulus`.
pub const fn scale(number: u32, modulus: u32) -> u32 {
    ((number as u64 * modulus as u64) >> 32) as u32
}

/// Up to 12 bytes onto three words. The kernel reads words in the machine's order, and the last 12 bytes one by one as
/// if they were little endian.
fn add(state: &mut [u32; 3], bytes: &[u8], read: fn([u8; 4]) -> u32) {
    for (word, chunk) in state.iter_mut().zip(bytes.chunks(4)) {
        let mut padded = [0; 4];
        padded[..chunk.len()].copy_from_slice(chunk);
        *word = word.wrapping_add(read(padded));
    }
}

/// `__jhash_mix`.
fn mix([a, b, c]: &mut [u32; 3]) {
    *a = a.wrapping_sub(*c) ^ c.rotate_left(4);
    *c = c.wrapping_add(*b);
    *b = b.wrapping_sub(*a) ^ a.rotate_left(6);
    *a = a.wrapping_add(*c);
    *c = c.wrapping_sub(*b) ^ b.rotate_left(8);
    *b = b.wrapping_add(*a);
    *a = a.wrapping_sub(*c) ^ c.rotate_left(16);
    *c = c.wrapping_add(*b);
    *b = b.wrapping_sub(*a) ^ a.rotate_left(19);
    *a = a.wrapping_add(*c);
    *c = c.wrapping_sub(*b) ^ b.rotate_left(4);
    *b = b.wrapping_add(*a);
}

/// `__jhash_final`.
fn last([a, b, c]: &mut [u32; 3]) {
    *c = (*c ^ *b).wrapping_sub(b.rotate_left(14));
    *a = (*a ^ *c).wrapping_sub(c.rotate_left(11));
    *b = (*b ^ *a).wrapping_sub(a.rotate_left(25));
    *c = (*c ^ *b).wrapping_sub(b.rotate_left(16));
    *a = (*a ^ *c).wrapping_sub(c.rotate_left(4));
    *b = (*b ^ *a).wrapping_sub(a.rotate_left(14));
    *c = (*c ^ *b).wrapping_sub(b.rotate_left(24));
}
