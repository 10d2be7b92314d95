//! Sets, maps and verdict maps: what makes a ruleset's cost independent of how much it holds.

use std::{fmt, time::Duration};

use crate::{Data, DataType, Element, Selector, Verdict};

/// What a set's elements lead to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SetValue {
    /// Nothing: a plain set, a packet is in it or not.
    None,
    /// Data of these types: a map.
    Data(Vec<DataType>),
    /// A verdict: a verdict map.
    Verdict,
}

/// The declaration of a set, map or verdict map, without its elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Set {
    /// Unique in its table, at most 255 bytes.
    pub name: String,
    /// The types of the key's fields, one or more.
    pub key: Vec<DataType>,
    /// What the elements lead to.
    pub value: SetValue,
    /// Elements may be intervals. One field: any interval that overlaps no other. Several fields: an interval in
    /// each field (the kernel's `pipapo` sets). Fields must be in network byte order.
    ///
    /// Kernels up to 6.18 do not notice every overlap, nor every interval to delete that is not there (see
    /// [`crate::Fake`], which does): whoever writes intervals must know those that are there.
    pub interval: bool,
    /// Elements may have timeouts of their own.
    pub timeouts: bool,
    /// The timeout of elements that do not name one. Implies [`Set::timeouts`].
    pub timeout: Option<Duration>,
    /// Rules may add elements (`add @set`, `update @set`). Needs [`Set::size`] as a bound.
    pub dynamic: bool,
    /// Never changes once bound to a rule.
    pub constant: bool,
    /// How many elements at most. `None`: no bound.
    pub size: Option<u32>,
    /// Each element counts packets and bytes. Counters appear in dumps as [`Element::counter`].
    pub counter: bool,
    /// What the key's fields are read from, where types alone do not say it (`numgen`, `jhash`): then `nft list`
    /// prints `typeof` and the elements right. Empty or as long as `key`.
    pub key_typeof: Vec<Selector>,
    /// Shown by `nft list`; at most 127 bytes.
    pub comment: Option<String>,
}

impl Set {
    /// A plain set.
    pub fn new(name: impl Into<String>, key: impl Into<Vec<DataType>>) -> Self {
        Self {
            name: name.into(),
            key: key.into(),
            value: SetValue::None,
            interval: false,
            timeouts: false,
            timeout: None,
            dynamic: false,
            constant: false,
            size: None,
            counter: false,
            key_typeof: Vec::new(),
            comment: None,
        }
    }

    /// A map from `key` to `value`.
    pub fn map(
        name: impl Into<String>,
        key: impl Into<Vec<DataType>>,
        value: impl Into<Vec<DataType>>,
    ) -> Self {
        Self { value: SetValue::Data(value.into()), ..Self::new(name, key) }
    }

    /// A map from `key` to a verdict.
    pub fn verdict_map(name: impl Into<String>, key: impl Into<Vec<DataType>>) -> Self {
        Self { value: SetValue::Verdict, ..Self::new(name, key) }
    }

    /// With intervals.
    #[must_use]
    pub fn interval(mut self) -> Self {
        self.interval = true;
        self
    }

    /// With a timeout for each element that names none.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeouts = true;
        self.timeout = Some(timeout);
        self
    }

    /// With timeouts for those elements that name one.
    #[must_use]
    pub fn timeouts(mut self) -> Self {
        self.timeouts = true;
        self
    }

    /// Filled by rules too, up to `size` elements.
    #[must_use]
    pub fn dynamic(mut self, size: u32) -> Self {
        self.dynamic = true;
        self.size = Some(size);
        self
    }

    /// With room for at most `size` elements.
    #[must_use]
    pub fn size(mut self, size: u32) -> Self {
        self.size = Some(size);
        self
    }

    /// With a counter on each element.
    #[must_use]
    pub fn counter(mut self) -> Self {
        self.counter = true;
        self
    }

    /// Declared by what is looked up in it, as nft's `typeof`; takes the key's types from there. `jhash` is declared
    /// as `symhash`, which is the same to a set and which nft can list: 1.0.6 crashes on the other.
    #[must_use]
    pub fn key_typeof(mut self, selectors: impl Into<Vec<Selector>>) -> Self {
        self.key_typeof = selectors.into();
        for selector in &mut self.key_typeof {
            if let Selector::HashIpSource(modulus, _) | Selector::HashIp6Source(modulus, _) = *selector {
                *selector = Selector::SymmetricHash(modulus);
            }
        }
        self.key = self.key_typeof.iter().map(Selector::data_type).collect();
        self
    }

    /// With this comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// `set` or `map`, as nft says.
    pub const fn noun(&self) -> &'static str {
        match self.value {
            SetValue::None => "set",
            _ => "map",
        }
    }

    /// Bytes of a key, padding included.
    pub fn key_length(&self) -> usize {
        length(&self.key)
    }

    /// Bytes of a value, padding included; 0 for plain sets and 16 for verdicts, as the kernel counts.
    pub fn value_length(&self) -> usize {
        match &self.value {
            SetValue::None => 0,
            SetValue::Data(types) => length(types),
            SetValue::Verdict => 16,
        }
    }

    /// Whether its key has several fields.
    pub fn is_concatenated(&self) -> bool {
        self.key.len() > 1
    }

    /// An element of a plain set.
    pub fn element(key: Data) -> Element {
        Element::new(key)
    }

    /// An element of a map.
    pub fn entry(key: Data, value: Data) -> Element {
        Element::new(key).value(value)
    }

    /// An element of a verdict map.
    pub fn verdict(key: Data, verdict: Verdict) -> Element {
        Element::new(key).verdict(verdict)
    }
}

/// Bytes that fields of these types take: one field as it is, several padded to words.
fn length(types: &[DataType]) -> usize {
    match types {
        [only] => only.length(),
        several => several.iter().map(|field| field.length().next_multiple_of(4)).sum(),
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}
