//! A hash that is the same in every version and on every machine, so that names and addresses survive restarts.

/// FNV-1a, 64 bits (RFC 9923), of the parts one after the other. Not for secrets or against malice.
pub(crate) fn stable(parts: &[&[u8]]) -> u64 {
    parts
        .iter()
        .flat_map(|part| part.iter())
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of RFC 9923, 8.3 for 64 bits.
    #[test]
    fn it_is_fnv_1a() {
        assert_eq!(stable(&[b""]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(stable(&[b"a"]), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(stable(&[b"foo", b"bar"]), 0x8594_4171_f739_67e8);
    }
}
