//! Userdata: bytes the kernel keeps and does not look at. nft puts there what only people need: comments, and how to
//! print a set's keys. Layout: type and length (a byte each) and value; `include/libnftnl/udata.h` of libnftnl 1.2.4.

use crate::{DataType, Set, SetValue, key_typeof};

/// `NFTNL_UDATA_*_COMMENT` of tables, chains, rules and elements.
pub(crate) const COMMENT: u8 = 0;
/// `NFTNL_UDATA_SET_COMMENT`.
pub(crate) const SET_COMMENT: u8 = 7;
const SET_KEY_BYTEORDER: u8 = 0;
const SET_DATA_BYTEORDER: u8 = 1;
const SET_MERGE_ELEMENTS: u8 = 2;
/// `NFTNL_UDATA_SET_KEY_TYPEOF`.
pub(crate) const SET_KEY_TYPEOF: u8 = 3;
/// `NFTNL_UDATA_SET_DATA_TYPEOF`.
const SET_DATA_TYPEOF: u8 = 4;

/// nft refuses longer comments (`NFTNL_UDATA_COMMENT_MAXLEN` is 128 with the zero byte at the end).
const COMMENT_AT_MOST: usize = 127;

/// A comment of anything but a set; cut where it is too long, as it is only for people.
pub(crate) fn comment(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 3);
    put_comment(&mut bytes, COMMENT, text);
    bytes
}

fn put_comment(to: &mut Vec<u8>, kind: u8, text: &str) {
    let end = (0..=text.len().min(COMMENT_AT_MOST)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    put(to, kind, &[&text.as_bytes()[..end], &[0]].concat());
}

pub(crate) fn put(to: &mut Vec<u8>, kind: u8, value: &[u8]) {
    // Values here stay below 255 bytes; a longer one would shift all that follows, so it is left out.
    if let Ok(length) = u8::try_from(value.len()) {
        to.extend([kind, length]);
        to.extend_from_slice(value);
    }
}

/// A number in the machine's order.
pub(crate) fn put_number(to: &mut Vec<u8>, kind: u8, number: u32) {
    put(to, kind, &number.to_ne_bytes());
}

/// How to print a set. Without the byte order, `nft list` shows a `numgen` key of 1 as 16777216 (google/nftables#355).
pub(super) fn set(set: &Set) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_number(&mut bytes, SET_KEY_BYTEORDER, byteorder(&set.key));
    if let SetValue::Data(types) = &set.value {
        put_number(&mut bytes, SET_DATA_BYTEORDER, byteorder(types));
    }
    if set.interval {
        // nft joins neighbouring intervals unless told that their writer does not.
        put_number(&mut bytes, SET_MERGE_ELEMENTS, 0);
    }
    if let Some(key_typeof) = key_typeof::write(&set.key_typeof) {
        put(&mut bytes, SET_KEY_TYPEOF, &key_typeof);
        if let SetValue::Data(types) = &set.value
            && let Some(data_typeof) = key_typeof::write(&key_typeof::examples(types))
        {
            put(&mut bytes, SET_DATA_TYPEOF, &data_typeof);
        }
    }
    if let Some(comment) = &set.comment {
        put_comment(&mut bytes, SET_COMMENT, comment);
    }
    bytes
}

/// nft's `enum byteorder`: 0 for concatenations, whose fields each have their own, 1 the machine's, 2 the network's.
fn byteorder(types: &[DataType]) -> u32 {
    match types {
        [only] if only.is_host_endian() => 1,
        [_] => 2,
        _ => 0,
    }
}
