//! Strings of the configuration.

use std::borrow::Cow;

use serde::Deserialize;

/// A string that is borrowed unless a character of it is escaped: serde does that for the field of a struct, and not for a
/// key or in an `Option`.
#[derive(Debug, Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);
