//! Ports that were freed and are kept from other owners for a while, and ports that were found to be taken by a
//! foreign process.
//!
//! Times are monotonic durations that the caller gives ([`crate::clock`]), so that a jump of the wall clock neither
//! ends a quarantine nor extends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use portolan_model::{InstanceId, PortRange, Protocol};

use crate::{bitmap::Bitmap, index::hash};

/// One freed range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The protocol.
    pub protocol: Protocol,
    /// The ports.
    pub range: PortRange,
    /// When it ends.
    pub until: Duration,
    /// The instance that had it, which alone may have it back before the end. `None`: a foreign process has it.
    pub owner: Option<Former>,
}

/// Who had ports: by name, or as an index knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Former {
    /// The instance.
    Instance(InstanceId),
    /// The [`hash`] of its name.
    Hash(u64),
}

impl Former {
    /// Whether it is this instance.
    pub fn is(&self, instance: &InstanceId) -> bool {
        match self {
            Self::Instance(own) => own == instance,
            Self::Hash(own) => *own == hash(&[instance.as_str()]),
        }
    }

    /// The hash of its name.
    pub fn hash(&self) -> u64 {
        match self {
            Self::Instance(instance) => hash(&[instance.as_str()]),
            Self::Hash(hash) => *hash,
        }
    }
}

/// The ports in quarantine, as ranges that do not overlap.
#[derive(Debug, Default)]
pub struct Quarantine {
    bits: [Bitmap; 3],
    entries: BTreeMap<(Protocol, u16), Entry>,
    ends: BTreeSet<(Duration, Protocol, u16)>,
}

impl Quarantine {
    /// Puts ports in. What was said of them before is forgotten.
    pub fn insert(&mut self, entry: Entry) {
        self.forget(entry.protocol, entry.range);
        self.put(entry);
    }

    /// Lets everything go whose time has come.
    pub fn expire(&mut self, now: Duration) {
        while let Some(&(until, protocol, first)) = self.ends.first()
            && until <= now
        {
            self.take(protocol, first);
        }
    }

    /// The ports of a protocol that are in quarantine.
    pub fn bits(&self, protocol: Protocol) -> &Bitmap {
        &self.bits[protocol as usize]
    }

    /// Every entry, by protocol and port.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Whether `range` is free of it, or was `owner`'s own.
    pub fn admits(&self, protocol: Protocol, range: PortRange, owner: &InstanceId) -> bool {
        self.overlapping(protocol, range).all(|entry| entry.owner.as_ref().is_some_and(|own| own.is(owner)))
    }

    /// When the first port in `range` comes out of it.
    pub fn first_end(&self, protocol: Protocol, range: PortRange) -> Option<Duration> {
        self.overlapping(protocol, range).map(|entry| entry.until).min()
    }

    /// Takes ports out, whole or as part of an entry.
    pub fn forget(&mut self, protocol: Protocol, range: PortRange) {
        let hit: Vec<u16> = self.overlapping(protocol, range).map(|entry| entry.range.first()).collect();
        for first in hit {
            let Some(old) = self.take(protocol, first) else { continue };
            if old.range.first() < range.first()
                && let Ok(left) = PortRange::new(old.range.first(), range.first() - 1)
            {
                self.put(Entry { range: left, ..old.clone() });
            }
            if range.last() < old.range.last()
                && let Ok(right) = PortRange::new(range.last() + 1, old.range.last())
            {
                self.put(Entry { range: right, ..old });
            }
        }
    }

    fn overlapping(&self, protocol: Protocol, range: PortRange) -> impl Iterator<Item = &Entry> {
        // Entries do not overlap, so only the last one that begins before `range` can reach into it.
        let before = self.entries.range((protocol, 0)..(protocol, range.first())).next_back();
        let within = self.entries.range((protocol, range.first())..=(protocol, range.last()));
        before
            .into_iter()
            .chain(within)
            .map(|(_, entry)| entry)
            .filter(move |entry| entry.range.overlaps(range))
    }

    fn put(&mut self, entry: Entry) {
        self.bits[entry.protocol as usize].insert(entry.range);
        self.ends.insert((entry.until, entry.protocol, entry.range.first()));
        self.entries.insert((entry.protocol, entry.range.first()), entry);
    }

    fn take(&mut self, protocol: Protocol, first: u16) -> Option<Entry> {
        let entry = self.entries.remove(&(protocol, first))?;
        self.ends.remove(&(entry.until, protocol, first));
        self.bits[protocol as usize].remove(entry.range);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(range: &str, until: u64, owner: &str) -> Entry {
        Entry {
            protocol: Protocol::Udp,
            range: range.parse().unwrap(),
            until: Duration::from_secs(until),
            owner: Some(Former::Instance(owner.parse().unwrap())),
        }
    }

    #[test]
    fn a_later_word_about_a_port_replaces_the_earlier_one_and_nothing_beside_it() {
        let mut quarantine = Quarantine::default();
        quarantine.insert(entry("100-199", 10, "a"));
        quarantine.insert(entry("150", 20, "b"));
        let seen: Vec<_> = quarantine.iter().map(|e| (e.range.to_string(), e.until.as_secs())).collect();
        assert_eq!(seen, [("100-149".to_owned(), 10), ("150".to_owned(), 20), ("151-199".to_owned(), 10)]);
        quarantine.expire(Duration::from_secs(10));
        assert_eq!(quarantine.bits(Protocol::Udp).runs().collect::<Vec<_>>(), ["150".parse().unwrap()]);
        quarantine.expire(Duration::from_secs(20));
        assert_eq!(quarantine.iter().count(), 0);
        assert_eq!(quarantine.bits(Protocol::Udp).runs().count(), 0);
    }

    #[test]
    fn the_former_owner_alone_may_have_it_back() {
        let mut quarantine = Quarantine::default();
        quarantine.insert(entry("100-199", 10, "a"));
        let within = "120-130".parse().unwrap();
        assert!(quarantine.admits(Protocol::Udp, within, &"a".parse().unwrap()));
        assert!(!quarantine.admits(Protocol::Udp, within, &"b".parse().unwrap()));
        assert!(quarantine.admits(Protocol::Tcp, within, &"b".parse().unwrap()));
    }
}
