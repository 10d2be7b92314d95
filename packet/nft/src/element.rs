//! Elements of sets and maps: the hot path. A mapping of ours is a handful of these.

use std::time::Duration;

use crate::{Counter, Data, Verdict};

/// What a map's element leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementValue {
    /// Data of the map's value types.
    Data(Data),
    /// A verdict.
    Verdict(Verdict),
}

/// One element of a set, map or verdict map.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Element {
    /// The key, or an interval's first key.
    pub key: Data,
    /// The interval's last key, itself included. `None` means `key` alone. With several fields each field has its
    /// own interval from `key`'s field to `key_end`'s.
    pub key_end: Option<Data>,
    /// `None` in plain sets.
    pub value: Option<ElementValue>,
    /// How long it lives since it was added or updated; `None`: the set's default, or for ever.
    pub timeout: Option<Duration>,
    /// How much of that is left. Only in dumps; not written.
    pub expires: Option<Duration>,
    /// What it counted, in sets with counters. Only in dumps; not written, the kernel starts at zero.
    pub counter: Option<Counter>,
    /// Shown by `nft list`; at most 127 bytes.
    pub comment: Option<String>,
}

impl Element {
    /// An element of a plain set.
    pub const fn new(key: Data) -> Self {
        Self { key, key_end: None, value: None, timeout: None, expires: None, counter: None, comment: None }
    }

    /// The interval from `first` to `last`, both included.
    pub fn interval(first: Data, last: Data) -> Self {
        let key_end = (first != last).then_some(last);
        Self { key_end, ..Self::new(first) }
    }

    /// Leading to this data.
    #[must_use]
    pub fn value(mut self, value: Data) -> Self {
        self.value = Some(ElementValue::Data(value));
        self
    }

    /// Leading to this verdict.
    #[must_use]
    pub fn verdict(mut self, verdict: Verdict) -> Self {
        self.value = Some(ElementValue::Verdict(verdict));
        self
    }

    /// Living this long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// With this comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// The last key it covers.
    pub fn last(&self) -> &Data {
        self.key_end.as_ref().unwrap_or(&self.key)
    }

    /// Whether both say the same, apart from what the kernel counts and measures.
    pub fn means(&self, other: &Self) -> bool {
        self.key == other.key
            && self.last() == other.last()
            && self.value == other.value
            && self.timeout == other.timeout
            && self.comment == other.comment
    }
}

/// As the kernel wants timeouts. At least 1, since 0 would mean none.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
