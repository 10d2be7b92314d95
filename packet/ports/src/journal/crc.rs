//! CRC-32 as in Ethernet, gzip and PNG (ISO-HDLC; RFC 1952 section 8): polynomial 0xEDB88320, reflected.

/// The checksum of `bytes`.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)])
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { 0xEDB8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

#[test]
fn it_is_the_standard_one() {
    // The check value of the catalogue of CRC algorithms.
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
}
