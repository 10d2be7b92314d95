//! Endpoints that left a Service which wants their connections ended: when, and how.
//!
//! 1. For the time that the Service gives, its connections go on.
//! 2. Then they are put into the sets of the table whose packets are answered by a reset, in both directions.
//! 3. Connections over which nothing was sent for [`SILENT`] are deleted from connection tracking. What comes later is
//!    led to another endpoint, which knows nothing of it and resets it. The kernel drops the set's elements by itself.
//!
//! An endpoint that comes back is left alone at once, whatever it waits for.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use portolan_model::Protocol;
use portolan_nft::Transaction;
use portolan_plan::Flow;
use portolan_services::{Changes, Front, Gone, ServicesConfig};

/// How long a connection may be silent until it is forgotten. Shorter than the life of the set's elements.
const SILENT: Duration = Duration::from_secs(120);

/// Endpoints on their way out.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    /// By when something is due for them, and a number that keeps those of one moment apart.
    leaving: BTreeMap<(Instant, u64), Leaving>,
    next: u64,
    /// Endpoints that came back, whose elements are to go.
    back: Vec<Gone>,
}

#[derive(Debug)]
struct Leaving {
    gone: Gone,
    /// Its connections are being reset already.
    resetting: bool,
}

impl Drain {
    /// How many endpoints it is about.
    pub(crate) fn len(&self) -> usize {
        self.leaving.len()
    }

    /// When something is to be done next.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.leaving.first_key_value().map(|((due, _), _)| *due)
    }

    /// Endpoints left and came back.
    pub(crate) fn follow(&mut self, changes: &Changes, now: Instant) {
        // One that left and came in the same moment is there.
        for gone in changes.gone() {
            self.put(now + gone.after, Leaving { gone: gone.clone(), resetting: false });
        }
        for came in changes.came() {
            self.leaving.retain(|_, leaving| {
                let same = leaving.gone.service == came.service && leaving.gone.target == came.target;
                if same && leaving.resetting {
                    self.back.push(leaving.gone.clone());
                }
                !same
            });
        }
    }

    fn put(&mut self, due: Instant, leaving: Leaving) {
        self.next += 1;
        self.leaving.insert((due, self.next), leaving);
    }

    /// Adds to the transaction that those who came back are not reset any more.
    pub(crate) fn forget(&mut self, config: &ServicesConfig, transaction: &mut Transaction) {
        for (set, element) in self.back.drain(..).flat_map(|gone| gone.elements()) {
            transaction.destroy_elements(&set.declaration(config), [element]);
        }
    }

    /// Does what is due: adds to the transaction whose connections are to be reset, and gives those whose silent
    /// connections are to be deleted.
    pub(crate) fn advance(
        &mut self,
        config: &ServicesConfig,
        now: Instant,
        transaction: &mut Transaction,
    ) -> Vec<Gone> {
        let mut silent = Vec::new();
        while let Some(entry) = self.leaving.first_entry().filter(|entry| entry.key().0 <= now) {
            let leaving = entry.remove();
            if leaving.resetting {
                silent.push(leaving.gone);
                continue;
            }
            for (set, element) in leaving.gone.elements() {
                transaction.add_elements(&set.declaration(config), [element]);
            }
            self.put(now + SILENT, Leaving { resetting: true, ..leaving });
        }
        silent
    }
}

/// Whether a connection was led to this endpoint by one of these frontends.
pub(crate) fn is_of(gone: &Gone, flow: &Flow) -> bool {
    let target = &gone.target;
    let to = flow.server.ip() == target.address && (target.port == 0 || flow.server.port() == target.port);
    flow.protocol == Protocol::Tcp
        && to
        && gone.fronts.iter().any(|front| match *front {
            Front::Port { address, protocol, port } => {
                protocol == Protocol::Tcp && flow.asked == SocketAddr::new(address, port)
            }
            Front::Node { protocol, port, .. } => protocol == Protocol::Tcp && flow.asked.port() == port,
            Front::Span { address, .. } | Front::Address(address) => flow.asked.ip() == address,
        })
}
