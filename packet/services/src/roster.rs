//! The endpoints of one list of a Service port, by the number that leads to each.

use std::borrow::Cow;

use portolan_model::Balance;

use crate::{Candidate, Target, arrange, maglev, way::Choice};

/// A list's slots at most, unless it has more endpoints: weights are scaled down to this.
const SLOTS: u64 = 4096;
/// `numgen` and the maps could hold more, but nobody could compute the order of so many.
pub(crate) const ENDPOINTS: usize = 65_536;

/// A list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Roster {
    /// By number; more than once with weights.
    Random(Box<[Target]>),
    /// By address and port, with weights. The slots are computed when they are needed: there are many.
    Hashed(Box<[(Target, u16)]>),
}

impl Roster {
    /// Of these endpoints, which are ordered by address and port. `before`: what the list was, of which some may be kept.
    pub(crate) fn new<'a>(
        balance: Balance,
        endpoints: impl Iterator<Item = &'a Candidate>,
        before: Option<&Self>,
    ) -> Self {
        let shares: Vec<(Target, u16)> =
            endpoints.take(ENDPOINTS).map(|one| (one.target, one.weight)).collect();
        let shares = scaled(shares);
        if balance == Balance::Source {
            return Self::Hashed(shares.into());
        }
        let even = shares.iter().all(|(_, weight)| *weight == 1);
        match before {
            Some(Self::Random(before)) if even && before.len() > 8 => {
                Self::Random(followed(before, &shares).unwrap_or_else(|| arrange::arrange(&shares)).into())
            }
            _ => Self::Random(arrange::arrange(&shares).into()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Random(slots) => slots.is_empty(),
            Self::Hashed(shares) => shares.is_empty(),
        }
    }

    /// How a slot is chosen.
    pub(crate) fn choice(&self) -> Option<Choice> {
        match self {
            _ if self.is_empty() => None,
            Self::Random(slots) => Some(Choice { slots: slots.len() as u32, hashed: false }),
            Self::Hashed(shares) => Some(Choice { slots: maglev::size(shares.len()), hashed: true }),
        }
    }

    /// By number.
    pub(crate) fn slots(&self) -> Cow<'_, [Target]> {
        match self {
            Self::Random(slots) => Cow::Borrowed(slots),
            Self::Hashed(shares) => Cow::Owned(maglev::table(shares)),
        }
    }

    /// Each once, by address and port.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let mut targets = match self {
            Self::Random(slots) => slots.to_vec(),
            Self::Hashed(shares) => shares.iter().map(|(target, _)| *target).collect(),
        };
        targets.sort_unstable();
        targets.dedup();
        targets
    }
}

impl Default for Roster {
    fn default() -> Self {
        Self::Random(Box::default())
    }
}

/// The order that follows from another one by few changes; `None` when they are many, or the other one had weights.
fn followed(before: &[Target], shares: &[(Target, u16)]) -> Option<Vec<Target>> {
    let mut sorted = before.to_vec();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return None;
    }
    let gone: Vec<Target> = sorted
        .iter()
        .filter(|target| shares.binary_search_by_key(target, |share| &share.0).is_err())
        .copied()
        .collect();
    let come: Vec<Target> =
        shares.iter().map(|share| share.0).filter(|target| sorted.binary_search(target).is_err()).collect();
    (gone.len() + come.len() <= before.len() / 8 + 1).then(|| arrange::rearrange(before, &gone, &come))
}

/// Weights without a common divisor, and not too many in all.
fn scaled(mut shares: Vec<(Target, u16)>) -> Vec<(Target, u16)> {
    let divisor = shares.iter().fold(0, |divisor, (_, weight)| gcd(divisor, *weight)).max(1);
    let total: u64 = shares.iter().map(|(_, weight)| u64::from(weight / divisor)).sum();
    let most = SLOTS.max(shares.len() as u64);
    for (_, weight) in &mut shares {
        let reduced = u64::from(*weight / divisor);
        let scaled = if total > most { (reduced * most / total).max(1) } else { reduced };
        *weight = u16::try_from(scaled).unwrap_or(u16::MAX);
    }
    shares
}

const fn gcd(one: u16, other: u16) -> u16 {
    if other == 0 { one } else { gcd(other, one % other) }
}

/// What weights add up to, if that is more than slots are made for.
pub(crate) fn too_many(shares: impl Iterator<Item = u16>) -> Option<u64> {
    let weights: Vec<u16> = shares.collect();
    let divisor = weights.iter().fold(0, |divisor, weight| gcd(divisor, *weight)).max(1);
    let total = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    (total > SLOTS.max(weights.len() as u64)).then_some(total)
}
