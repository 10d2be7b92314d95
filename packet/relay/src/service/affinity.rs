//! Session affinity: which backend a client had last (Kubernetes' `sessionAffinity: ClientIP`).
//!
//! The key is the client's address for each port of a Service, wherever it came in; a new connection prolongs it, a
//! backend that is out of the list ends it.

use std::{
    collections::HashMap,
    mem,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug)]
struct Entry {
    backend: SocketAddr,
    used: Instant,
}

/// What is remembered: two generations, so that forgetting is one step for half of all instead of a search for the
/// oldest. Whoever comes at all moves to the young one, and nobody is forgotten who came among the last `most / 2`.
#[derive(Debug)]
pub(crate) struct Affinity {
    most: usize,
    young: HashMap<IpAddr, Entry>,
    old: HashMap<IpAddr, Entry>,
}

impl Affinity {
    /// One that remembers so many clients at most.
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(2), young: HashMap::new(), old: HashMap::new() }
    }

    /// The backend that this client had within the last `timeout`.
    pub(crate) fn get(&self, client: IpAddr, timeout: Duration, now: Instant) -> Option<SocketAddr> {
        let entry = self.young.get(&client).or_else(|| self.old.get(&client))?;
        (now.saturating_duration_since(entry.used) < timeout).then_some(entry.backend)
    }

    /// The client has a new connection to this backend.
    pub(crate) fn set(&mut self, client: IpAddr, backend: SocketAddr, now: Instant) {
        if self.young.len() >= self.most / 2 && !self.young.contains_key(&client) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(client, Entry { backend, used: now });
    }

    /// How many clients are remembered, some of them twice.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn client(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn a_client_is_remembered_for_the_time_and_each_connection_prolongs_it() {
        let (mut affinity, start) = (Affinity::new(10), Instant::now());
        let (backend, timeout) = (SocketAddr::from(([10, 0, 0, 1], 80)), Duration::from_secs(10));
        affinity.set(client(1), backend, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(affinity.get(client(1), timeout, at(9)), Some(backend));
        assert_eq!(affinity.get(client(1), timeout, at(10)), None);
        affinity.set(client(1), backend, at(9));
        assert_eq!(affinity.get(client(1), timeout, at(18)), Some(backend));
    }

    #[test]
    fn any_number_of_clients_needs_a_bounded_memory() {
        let (mut affinity, now) = (Affinity::new(1_000), Instant::now());
        let backend = SocketAddr::from(([10, 0, 0, 1], 80));
        for n in 0..100_000 {
            affinity.set(client(n), backend, now);
            assert!(affinity.len() <= 1_000);
        }
        let remembered = |n| affinity.get(client(n), Duration::from_secs(9), now).is_some();
        assert!((99_501..100_000).all(remembered));
    }
}
