//! What was counted before the kernel began anew: a table that others flushed counts from 0 after its repair.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use portolan_model::MappingKey;
use portolan_plan::Counts;

/// By mapping: what is lost in the kernel, and what it showed last.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<HashMap<MappingKey, Account>>);

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    before: Counts,
    last: Counts,
}

impl Ledger {
    /// This mapping came or went: it begins at 0.
    pub(crate) fn forget(&self, key: &MappingKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Adds what was counted earlier to what the kernel shows now.
    pub(crate) fn sum(&self, shown: Vec<(MappingKey, Counts)>) -> Vec<(MappingKey, Counts)> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let present: HashSet<MappingKey> = shown.iter().map(|(key, _)| *key).collect();
        accounts.retain(|key, _| present.contains(key));
        let add = |(key, now): (MappingKey, Counts)| {
            let account = accounts.entry(key).or_default();
            if now.began_anew(account.last) {
                account.before = account.before.plus(account.last);
            }
            account.last = now;
            (key, account.before.plus(now))
        };
        shown.into_iter().map(add).collect()
    }
}

#[cfg(test)]
mod tests {
    use portolan_model::{PortRange, Protocol};

    use super::*;

    #[test]
    fn what_was_counted_before_a_flush_is_not_forgotten_but_that_of_an_older_mapping_is() {
        let host = PortRange::single(20001).unwrap();
        let key = MappingKey { protocol: Protocol::Udp, address: None, host };
        let ledger = Ledger::default();
        let read = |connections| {
            ledger.sum(vec![(key, Counts { connections, ..Counts::default() })])[0].1.connections
        };
        assert_eq!([read(3), read(5), read(1), read(2), read(0)], [3, 5, 6, 7, 7]);
        ledger.forget(&key);
        assert_eq!(read(1), 1);
        ledger.sum(vec![]);
        assert_eq!(read(0), 0);
    }
}
