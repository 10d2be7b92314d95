//! Several ranges of port numbers as one set: the ports of a pool.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{PortRange, RangeError};

/// At least one range, in rising order, none touching another. As text and in JSON `"20000-29999,31000-31999"`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRanges(Vec<PortRange>);

impl PortRanges {
    /// The ports that are in any of `ranges`; `None` when there are none.
    pub fn new(ranges: impl IntoIterator<Item = PortRange>) -> Option<Self> {
        let mut ranges: Vec<PortRange> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            if let Some(last) = merged.last_mut()
                && u32::from(range.first()) <= u32::from(last.last()) + 1
            {
                let end = last.last().max(range.last());
                *last = PortRange::new(last.first(), end).unwrap_or(*last);
            } else {
                merged.push(range);
            }
        }
        (!merged.is_empty()).then_some(Self(merged))
    }

    /// The ranges in rising order.
    pub fn iter(&self) -> impl Iterator<Item = PortRange> {
        self.0.iter().copied()
    }

    /// How many ports.
    pub fn count(&self) -> u32 {
        self.iter().map(|range| u32::from(range.count())).sum()
    }

    /// The longest run of ports.
    pub fn longest(&self) -> u16 {
        self.iter().map(PortRange::count).max().unwrap_or(0)
    }

    /// Whether `port` is in it.
    pub fn contains(&self, port: u16) -> bool {
        self.iter().any(|range| range.contains(port))
    }

    /// Whether all of `inner` is in it.
    pub fn covers(&self, inner: PortRange) -> bool {
        self.iter().any(|range| range.first() <= inner.first() && inner.last() <= range.last())
    }

    /// Whether a port is in both.
    pub fn overlaps(&self, other: PortRange) -> bool {
        self.iter().any(|range| range.overlaps(other))
    }

    /// From the lowest port to the highest, with what lies between.
    pub fn hull(&self) -> PortRange {
        let (first, last) = (self.0[0], self.0[self.0.len() - 1]);
        PortRange::new(first.first(), last.last()).unwrap_or(first)
    }
}

impl From<PortRange> for PortRanges {
    fn from(range: PortRange) -> Self {
        Self(vec![range])
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.iter().map(|range| range.to_string()).collect();
        f.pad(&texts.join(","))
    }
}

impl fmt::Debug for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PortRanges {
    type Err = RangeError;
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let ranges = text.split(',').map(|part| part.trim().parse()).collect::<Result<Vec<_>, _>>()?;
        Self::new(ranges).ok_or_else(|| RangeError::Syntax(text.to_owned()))
    }
}

impl TryFrom<String> for PortRanges {
    type Error = RangeError;
    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<PortRanges> for String {
    fn from(ranges: PortRanges) -> Self {
        ranges.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_in_any_order_are_one_set() {
        let ranges: PortRanges = "300-400, 100-199,200-250,350-500".parse().unwrap();
        assert_eq!(ranges.to_string(), "100-250,300-500");
        assert_eq!((ranges.count(), ranges.longest()), (352, 201));
        assert_eq!(ranges.hull().to_string(), "100-500");
        assert!(ranges.covers("150-250".parse().unwrap()) && !ranges.covers("240-300".parse().unwrap()));
        assert!(ranges.contains(500) && !ranges.contains(275));
        assert!(ranges.overlaps("251-300".parse().unwrap()));
        assert!("".parse::<PortRanges>().is_err() && "1-2,".parse::<PortRanges>().is_err());
        assert_eq!("65535,65534".parse::<PortRanges>().unwrap().to_string(), "65534-65535");
    }
}
