//! Ranges of port numbers: pools and blocks.

use std::{fmt, num::NonZeroU16, str::FromStr};

use serde::{Deserialize, Serialize};

/// An inclusive range of port numbers, never empty and never with port 0. One port is a range of one.
///
/// As text and in JSON `"20000-29999"`, or `"8080"` for one port; JSON's number `8080` is read too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "TextOrNumber", into = "String")]
pub struct PortRange {
    first: NonZeroU16,
    last: NonZeroU16,
}

/// Why a text or pair of numbers is no [`PortRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not `FIRST-LAST` and not a number, or a number over 65535.
    #[error("{0:?} is no port or range of ports: write 8080 or 20000-29999, with numbers from 1 to 65535")]
    Syntax(String),
    /// Port 0 means "any" to the kernel and cannot be published.
    #[error("port 0 is not a port: use 1 to 65535")]
    Zero,
    /// `LAST` is before `FIRST`.
    #[error("the range {0}-{1} ends before it begins")]
    Backwards(u16, u16),
}

impl PortRange {
    /// The range from `first` to `last`, both in it.
    pub fn new(first: u16, last: u16) -> Result<Self, RangeError> {
        match (NonZeroU16::new(first), NonZeroU16::new(last)) {
            (Some(_), Some(_)) if last < first => Err(RangeError::Backwards(first, last)),
            (Some(first), Some(last)) => Ok(Self { first, last }),
            _ => Err(RangeError::Zero),
        }
    }

    /// The range of one port.
    pub fn single(port: u16) -> Result<Self, RangeError> {
        Self::new(port, port)
    }

    /// `count` ports from `first` on; `None` when they would not fit below 65536 or `count` or `first` is 0.
    pub fn block(first: u16, count: u16) -> Option<Self> {
        let last = first.checked_add(count.checked_sub(1)?)?;
        Self::new(first, last).ok()
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first.get()
    }

    /// The highest port, which is in the range.
    pub const fn last(self) -> u16 {
        self.last.get()
    }

    /// How many ports: 1 to 65535.
    pub const fn count(self) -> u16 {
        self.last() - self.first() + 1
    }

    /// Whether it is one port only.
    pub const fn is_single(self) -> bool {
        self.first() == self.last()
    }

    /// Whether `port` is in it.
    pub const fn contains(self, port: u16) -> bool {
        self.first() <= port && port <= self.last()
    }

    /// Whether a port is in both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }

    /// The ports in rising order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = u16> + ExactSizeIterator {
        self.first()..=self.last()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            f.pad(&self.first.to_string())
        } else {
            f.pad(&format!("{}-{}", self.first, self.last))
        }
    }
}

impl fmt::Debug for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PortRange {
    type Err = RangeError;
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let syntax = || RangeError::Syntax(text.to_owned());
        // `u16::from_str` takes a leading '+', which no port has.
        let number = |digits: &str| {
            if digits.bytes().all(|b| b.is_ascii_digit()) {
                digits.parse().map_err(|_| syntax())
            } else {
                Err(syntax())
            }
        };
        match text.split_once('-') {
            Some((first, last)) => Self::new(number(first)?, number(last)?),
            None => Self::single(number(text)?),
        }
    }
}

impl TryFrom<String> for PortRange {
    type Error = RangeError;
    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

/// What people write by hand for one port in JSON is a number; what we write is always text.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a port such as 8080 or \"8080\", or a range such as \"20000-29999\"")]
enum TextOrNumber {
    Text(String),
    Number(u16),
}

impl TryFrom<TextOrNumber> for PortRange {
    type Error = RangeError;
    fn try_from(value: TextOrNumber) -> Result<Self, RangeError> {
        match value {
            TextOrNumber::Text(text) => text.parse(),
            TextOrNumber::Number(port) => Self::single(port),
        }
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}
