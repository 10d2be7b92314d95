//! What the journal's records mean: from the history of leases to what holds now, and back to the shortest history.

use std::{collections::BTreeMap, time::Duration};

use portolan_model::{Incarnation, InstanceId, PortName, PortRange, Protocol};
use serde::{Deserialize, Serialize};

use crate::{allocate::Allocator, clock::Boot, lease::Lease};

#[cfg(test)]
mod tests;

/// One line of the journal. Times are milliseconds since the boot of the last `Opened` before it ([`crate::clock`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// A start, and in which boot of the machine.
    Opened {
        /// The boot.
        boot: Boot,
        /// Which journal this is: another one each time that it is rewritten.
        #[serde(default)]
        id: u64,
    },
    /// A lease, or a new version of one of the same instance.
    Leased {
        /// All of it.
        lease: Box<Lease>,
        /// When.
        at: u64,
    },
    /// Whether the holder has its sockets from now on.
    Held {
        /// The instance.
        instance: InstanceId,
        /// Which life of it.
        incarnation: Incarnation,
        /// Whether.
        held: bool,
    },
    /// The end of a lease.
    Released {
        /// The instance.
        instance: InstanceId,
        /// Which life of it.
        incarnation: Incarnation,
        /// When.
        at: u64,
    },
    /// Ports of an ended lease that were still in quarantine when the journal was rewritten.
    Freed {
        /// Who had them.
        instance: InstanceId,
        /// The protocol.
        protocol: Protocol,
        /// The ports.
        range: PortRange,
        /// When they were freed.
        at: u64,
    },
    /// Ports that an instance had and may have again.
    Remembered {
        /// The instance.
        instance: InstanceId,
        /// The port's name.
        port: PortName,
        /// The numbers.
        range: PortRange,
        /// When they were last in use.
        at: u64,
    },
}

/// Ports of an ended lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freed {
    /// Who had them.
    pub instance: InstanceId,
    /// The protocol.
    pub protocol: Protocol,
    /// The ports.
    pub range: PortRange,
    /// When they were freed.
    pub at: Duration,
}

/// A lease that was not released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// The lease.
    pub lease: Lease,
    /// Whether it was made in this boot. The process of another one is gone, whoever has its number now.
    pub this_boot: bool,
}

/// What the history comes to.
#[derive(Debug, Default)]
pub struct Past {
    /// The leases that were not released, the newest first. Two can have the same port when the end of the older one
    /// was in a damaged record; the newer one is right.
    pub leases: Vec<Survivor>,
    /// What was freed, in the order of its end.
    pub freed: Vec<Freed>,
    /// Who had what last.
    pub remembered: BTreeMap<(InstanceId, PortName), (PortRange, Duration)>,
}

/// A time as the journal has it.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Past {
    /// Goes through `records`. Times of other boots count as `now`, and so does one that is yet to come.
    pub fn of(records: Vec<Record>, boot: &Boot, now: Duration) -> Self {
        let mut past = Self::default();
        let mut same_boot = false;
        // With the number of the record, by which the newest is found.
        let mut leases: BTreeMap<InstanceId, (usize, Survivor)> = BTreeMap::new();
        for (number, record) in records.into_iter().enumerate() {
            let time = |at| if same_boot { Duration::from_millis(at).min(now) } else { now };
            match record {
                Record::Opened { boot: then, .. } => {
                    same_boot = then == *boot;
                }
                Record::Leased { lease, at } => {
                    past.remember(&lease, time(at));
                    let instance = lease.request.instance.clone();
                    leases.insert(instance, (number, Survivor { lease: *lease, this_boot: same_boot }));
                }
                Record::Held { instance, incarnation, held } => {
                    if let Some((_, survivor)) = leases.get_mut(&instance)
                        && survivor.lease.request.incarnation == incarnation
                    {
                        survivor.lease.held = held;
                    }
                }
                Record::Released { instance, incarnation, at } => {
                    let known = leases.get(&instance);
                    if known.is_some_and(|(_, survivor)| survivor.lease.request.incarnation == incarnation)
                        && let Some((_, survivor)) = leases.remove(&instance)
                    {
                        past.remember(&survivor.lease, time(at));
                        past.free(&survivor.lease, time(at));
                    }
                }
                Record::Freed { instance, protocol, range, at } => {
                    past.freed.push(Freed { instance, protocol, range, at: time(at) });
                }
                Record::Remembered { instance, port, range, at } => {
                    past.remembered.insert((instance, port), (range, time(at)));
                }
            }
        }
        let mut leases: Vec<_> = leases.into_values().collect();
        leases.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        past.leases = leases.into_iter().map(|(_, survivor)| survivor).collect();
        past
    }

    /// The random ports of a lease: what may be given again.
    fn remember(&mut self, lease: &Lease, at: Duration) {
        for (port, request) in lease.ports.iter().zip(&lease.request.requests) {
            if request.host.is_none() {
                let key = (lease.request.instance.clone(), port.name.clone());
                self.remembered.insert(key, (port.host, at));
            }
        }
    }

    fn free(&mut self, lease: &Lease, at: Duration) {
        for hold in lease.holds() {
            let instance = lease.request.instance.clone();
            self.freed.push(Freed { instance, protocol: hold.protocol, range: hold.ports, at });
        }
    }
}

/// The shortest history that comes to what holds now.
pub fn snapshot<'a>(
    boot: &Boot,
    leases: impl Iterator<Item = &'a Lease>,
    allocator: &Allocator,
    now: Duration,
) -> Vec<Record> {
    let mut records = vec![Record::Opened { boot: boot.clone(), id: rand::random() }];
    records.extend(allocator.sticky().iter().map(|(instance, port, memory)| Record::Remembered {
        instance: instance.clone(),
        port: port.clone(),
        range: memory.range,
        at: millis(memory.used),
    }));
    records.extend(allocator.freed().map(|freed| Record::Freed {
        instance: freed.instance,
        protocol: freed.protocol,
        range: freed.range,
        at: millis(freed.at),
    }));
    records.extend(leases.map(|lease| Record::Leased { lease: Box::new(lease.clone()), at: millis(now) }));
    records
}
