//! Which port an instance had last, so that it can have it again.
//!
//! A preference, never a claim: a remembered port stays free for others. Ports kept for stopped instances would fill
//! the pool (moby/moby#10052). The name of an instance carries its ordinal (`web-2`, as a StatefulSet names its
//! Pods), so instance and port name together are (name, ordinal, port name).

use std::{collections::HashMap, sync::Arc, time::Duration};

use portolan_model::{InstanceId, PortName, PortRange};

use crate::index::{Index, hash};

/// How many are remembered; the longest unused are forgotten first.
pub const CAPACITY: usize = 16_384;
/// How long one is remembered after its last use.
pub const TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was last given to whom.
#[derive(Debug)]
pub struct Sticky {
    memory: HashMap<(InstanceId, PortName), Memory>,
    capacity: usize,
    /// What an earlier process has remembered, by the hash of both names.
    before: Option<Arc<Index>>,
}

/// One remembered answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The port or block.
    pub range: PortRange,
    /// When it was last in use.
    pub used: Duration,
}

impl Sticky {
    /// Nothing, with room for `capacity` of them.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { memory: HashMap::new(), capacity: capacity.max(1), before: None }
    }

    /// Remembers that `instance` has `range` now.
    pub fn remember(&mut self, instance: &InstanceId, port: &PortName, range: PortRange, now: Duration) {
        self.memory.insert((instance.clone(), port.clone()), Memory { range, used: now });
        if self.memory.len() > self.capacity {
            self.make_room(now);
        }
    }

    /// What `instance` had last under that port name.
    pub fn recall(&self, instance: &InstanceId, port: &PortName, now: Duration) -> Option<PortRange> {
        let before = || {
            let (range, used) = self.before.as_ref()?.memory(key(instance, port))?;
            Some(Memory { range, used })
        };
        let memory = self.memory.get(&(instance.clone(), port.clone())).copied().or_else(before)?;
        (now.saturating_sub(memory.used) <= TTL).then_some(memory.range)
    }

    /// Remembers what an earlier process has, too.
    pub fn set_before(&mut self, before: Arc<Index>) {
        self.before = Some(before);
    }

    /// All that is remembered, by the hash of both names.
    pub fn hashed(&self) -> Vec<(u64, Memory)> {
        let known = self.memory.iter().map(|((instance, port), memory)| (key(instance, port), *memory));
        let mut all: Vec<_> = known.collect();
        all.sort_unstable_by_key(|(hash, _)| *hash);
        let known = all.len();
        let before = self.before.iter().flat_map(|before| before.memories());
        let before = before.map(|(hash, range, used)| (hash, Memory { range, used }));
        let is_new = |(hash, _): &(u64, Memory)| all.binary_search_by_key(hash, |(known, _)| *known).is_err();
        let new: Vec<_> = before.filter(is_new).collect();
        all.extend(new);
        if all.len() > self.capacity {
            all[known..].sort_unstable_by_key(|(_, memory)| std::cmp::Reverse(memory.used));
            all.truncate(self.capacity.max(known));
        }
        all
    }

    /// All that is remembered.
    pub fn iter(&self) -> impl Iterator<Item = (&InstanceId, &PortName, Memory)> {
        self.memory.iter().map(|((instance, port), memory)| (instance, port, *memory))
    }

    /// Forgets what is too old, and if that is not enough, the oldest eighth: a sort now and then instead of an
    /// ordered structure that every lease pays for.
    fn make_room(&mut self, now: Duration) {
        self.memory.retain(|_, memory| now.saturating_sub(memory.used) <= TTL);
        if self.memory.len() <= self.capacity {
            return;
        }
        let mut ages: Vec<_> = self.memory.iter().map(|(key, memory)| (memory.used, key.clone())).collect();
        ages.sort_unstable();
        let surplus = self.memory.len() - self.capacity + self.capacity / 8;
        for (_, key) in ages.into_iter().take(surplus) {
            self.memory.remove(&key);
        }
    }
}

fn key(instance: &InstanceId, port: &PortName) -> u64 {
    hash(&[instance.as_str(), port.as_str()])
}

impl Default for Sticky {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets_the_longest_unused() {
        let mut sticky = Sticky::with_capacity(8);
        let port: PortName = "http".parse().unwrap();
        let name = |n: u16| InstanceId::new(format!("web-{n}")).unwrap();
        for n in 1..=9u16 {
            sticky.remember(&name(n), &port, PortRange::single(n).unwrap(), Duration::from_secs(n.into()));
        }
        let now = Duration::from_secs(10);
        assert!(sticky.iter().count() <= 8);
        assert_eq!(sticky.recall(&name(1), &port, now), None);
        assert_eq!(sticky.recall(&name(9), &port, now), PortRange::single(9).ok());
    }

    #[test]
    fn it_ends_some_time_after_the_last_use() {
        let mut sticky = Sticky::default();
        let (web, http): (InstanceId, PortName) = ("web-0".parse().unwrap(), "http".parse().unwrap());
        let range = PortRange::single(20_001).unwrap();
        sticky.remember(&web, &http, range, Duration::from_secs(5));
        assert_eq!(sticky.recall(&web, &http, TTL + Duration::from_secs(5)), Some(range));
        assert_eq!(sticky.recall(&web, &http, TTL + Duration::from_secs(6)), None);
    }
}
