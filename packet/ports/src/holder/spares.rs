//! Sockets that are made before somebody asks for them.
//!
//! Of what the kernel does for a hold, three quarters are making the socket and one quarter is binding it: a block of
//! 1,000 ports takes 6 ms, and less than 2 with sockets that are there. So after a block a holder makes as many sockets
//! for the next one while it has nothing else to do. Who asks for single ports never causes any.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use portolan_model::Protocol;

use crate::hold;

/// A hold of fewer ports is quick without.
const FROM: usize = 64;
/// Of one protocol at most: some 3 KiB of the kernel's memory each.
const MOST: usize = 1_024;
/// How long after the last block they are kept.
const KEPT: Duration = Duration::from_secs(3600);

/// Unbound sockets of each protocol, as many as the largest hold of late.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<Spare>);

#[derive(Debug)]
struct Spare {
    protocol: Protocol,
    sockets: Vec<OwnedFd>,
    wanted: usize,
    asked: Instant,
}

impl Spares {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|spare| spare.sockets.len()).sum()
    }

    /// One of them.
    pub(super) fn take(&mut self, protocol: Protocol) -> Option<OwnedFd> {
        self.0.iter_mut().find(|spare| spare.protocol == protocol)?.sockets.pop()
    }

    /// Learns that so many ports of a protocol were asked for at once.
    pub(super) fn learn(&mut self, protocol: Protocol, count: usize) {
        if count < FROM {
            return;
        }
        let (count, asked) = (count.min(MOST), Instant::now());
        match self.0.iter_mut().find(|spare| spare.protocol == protocol) {
            Some(spare) => (spare.wanted, spare.asked) = (spare.wanted.max(count), asked),
            None => self.0.push(Spare { protocol, sockets: Vec::new(), wanted: count, asked }),
        }
    }

    /// Whether some are missing.
    pub(super) fn wants_more(&self) -> bool {
        self.0.iter().any(|spare| spare.sockets.len() < spare.wanted)
    }

    /// Makes some of what is missing.
    pub(super) fn make(&mut self, most: usize) {
        let Some(spare) = self.0.iter_mut().find(|spare| spare.sockets.len() < spare.wanted) else { return };
        for _ in spare.sockets.len()..spare.wanted.min(spare.sockets.len() + most) {
            match hold::spare(spare.protocol) {
                Some(socket) => spare.sockets.push(socket),
                // No such sockets, or no more of them: the next block is as quick as without.
                None => return spare.wanted = spare.sockets.len(),
            }
        }
    }

    /// Lets go of all, until somebody asks for many again.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Lets go of those that nobody has needed for long.
    pub(super) fn expire(&mut self) {
        self.0.retain(|spare| spare.asked.elapsed() < KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_as_many_as_the_largest_block_and_never_more_than_the_limit() {
        let mut spares = Spares::default();
        spares.learn(Protocol::Tcp, FROM - 1);
        assert!(!spares.wants_more());
        spares.learn(Protocol::Tcp, 100);
        spares.learn(Protocol::Tcp, 70);
        while spares.wants_more() {
            spares.make(30);
        }
        assert_eq!(spares.count(), 100);
        assert!(spares.take(Protocol::Tcp).is_some() && spares.wants_more());
        assert!(spares.take(Protocol::Udp).is_none());
        spares.learn(Protocol::Udp, 60_000);
        assert_eq!(spares.0[1].wanted, MOST);
        spares.expire();
        assert_eq!(spares.count(), 99);
        spares.clear();
        assert!(spares.count() == 0 && !spares.wants_more());
    }
}
