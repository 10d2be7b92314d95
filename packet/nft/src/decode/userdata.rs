//! Userdata: comments, and what a set's key is read from. See [`crate::encode::userdata`] for the layout.

use crate::{Selector, encode::userdata as layout, key_typeof};

/// Types and values, one after the other; a cut one ends the iteration.
pub(crate) fn items(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, length], rest) = bytes.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(length))?;
        bytes = rest;
        Some((kind, value))
    })
}

pub(crate) fn find(bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    items(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok().map(str::to_owned)
}

/// The comment of a table, chain, rule or element.
pub(super) fn comment(bytes: &[u8]) -> Option<String> {
    find(bytes, layout::COMMENT).and_then(text)
}

/// The comment of a set.
pub(super) fn set_comment(bytes: &[u8]) -> Option<String> {
    find(bytes, layout::SET_COMMENT).and_then(text)
}

/// What the key is read from; empty when nothing is said or in words that this crate would not write.
pub(super) fn key_typeof(bytes: &[u8]) -> Vec<Selector> {
    find(bytes, layout::SET_KEY_TYPEOF).map(key_typeof::read).unwrap_or_default()
}
