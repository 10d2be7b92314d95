//! Flows that the kernel tracks: list them, and delete those that lead to the wrong place.
//!
//! A rule that rewrites a destination (DNAT) decides once per flow. A UDP client that keeps its source port keeps its
//! flow, and so the old instance, for as long as it sends; therefore flows are deleted after the rules have changed.
//! Too broad a deletion breaks the flows of others (containernetworking/plugins#705, projectcalico/calico#7517), too
//! narrow a one leaves stale ones; here the caller's predicate sees both directions of a flow and decides exactly, and
//! what is deleted is that very entry, not one that got the same addresses meanwhile.
//!
//! [`entry`] reads and writes entries (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`); who decides what is stale
//! is `portolan-apply`.

use std::fmt;

use portolan_model::{PortRange, Protocol};

use crate::{
    error::NetlinkError,
    message::MessageWriter,
    socket::{Bus, Socket},
    sysctl,
};

pub mod entry;

pub use entry::{Family, Flow, Tuple};

/// `NFNL_SUBSYS_CTNETLINK` in the high byte, `IPCTNL_MSG_CT_*` in the low one.
const GET: u16 = 0x0101;
const DELETE: u16 = 0x0102;

/// Below this many flows it is quicker to read them all than to walk the table twice (about 5 µs a flow against some
/// 10 ms a walk of 262,144 buckets).
const FEW: usize = 2000;

/// How many failures an error names.
const NAMED: usize = 3;

/// Why flows could not be listed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The exchange failed, or the kernel refused.
    #[error("{action}: {source}{}", hint(source))]
    Netlink {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: NetlinkError,
    },
    /// Some flows could not be deleted; the others were.
    #[error("{removed} flows were deleted, {} were not: {}", failures.len(), named(failures))]
    Incomplete {
        /// How many were deleted.
        removed: usize,
        /// Those that were not, each with the reason.
        failures: Vec<(Flow, NetlinkError)>,
    },
}

fn hint(error: &NetlinkError) -> &'static str {
    // nfnetlink answers EINVAL for a subsystem that it does not have.
    match error.errno() {
        Some(errno) if errno == rustix::io::Errno::INVAL.raw_os_error() => {
            " (is the kernel module nf_conntrack_netlink there?)"
        }
        _ if error.is_denied() => " (needs CAP_NET_ADMIN)",
        _ => "",
    }
}

fn named(failures: &[(Flow, NetlinkError)]) -> String {
    let mut texts: Vec<_> =
        failures.iter().take(NAMED).map(|(flow, error)| format!("{flow}: {error}")).collect();
    if failures.len() > NAMED {
        texts.push("...".to_owned());
    }
    texts.join("; ")
}

/// Which flows to look at: what the kernel sorts out before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The flow's protocol.
    pub protocol: Protocol,
    /// One family only; `None` for both.
    pub family: Option<Family>,
    /// The port that the flow's first packet was sent to, before any rewriting; `None` for any.
    pub ports: Option<PortRange>,
}

impl Filter {
    /// All flows of a protocol.
    pub const fn protocol(protocol: Protocol) -> Self {
        Self { protocol, family: None, ports: None }
    }

    fn matches(&self, flow: &Flow) -> bool {
        flow.protocol == self.protocol
            && self.family.is_none_or(|family| family == flow.original.family())
            && self.ports.is_none_or(|ports| ports.contains(flow.original.destination.port()))
    }
}

/// The door to the flows of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Opens it for the network namespace of the calling thread.
    pub fn open() -> Result<Self, ConntrackError> {
        let during = |source| ConntrackError::Netlink { action: "opening the conntrack socket", source };
        Ok(Self { socket: Socket::open(Bus::Netfilter).map_err(during)? })
    }

    /// By a socket for [`Bus::Netfilter`] that there is already.
    pub const fn over(socket: Socket) -> Self {
        Self { socket }
    }

    /// The flows that match the filter and that `wanted` says yes to. A flow that begins or ends meanwhile may be in
    /// the answer or not.
    ///
    /// The kernel walks its whole hash table for it, once or once per family, which takes milliseconds also when it
    /// finds nothing (262,144 buckets are usual): look for several things at once, and not where somebody waits.
    pub fn flows(
        &self,
        filter: Filter,
        mut wanted: impl FnMut(&Flow) -> bool,
    ) -> Result<Vec<Flow>, ConntrackError> {
        let mut all = Vec::new();
        for walk in walks(filter, count()) {
            let found = self.socket.dump(
                GET,
                |writer| write_filter(writer, filter, walk),
                Vec::new,
                |flows: &mut Vec<Flow>, message| {
                    // The kernel's filter is younger than conntrack (5.8) and knows no ranges: look again.
                    flows.extend(entry::parse(message).filter(|flow| filter.matches(flow) && wanted(flow)));
                },
            );
            let during = |source| ConntrackError::Netlink { action: "listing the tracked flows", source };
            all.extend(found.map_err(during)?);
        }
        Ok(all)
    }

    /// Deletes this very entry; `false` when it is gone, also when another flow has the same addresses by now.
    pub fn delete(&self, flow: &Flow) -> Result<bool, ConntrackError> {
        self.try_delete(flow)
            .map_err(|source| ConntrackError::Netlink { action: "deleting a tracked flow", source })
    }

    fn try_delete(&self, flow: &Flow) -> Result<bool, NetlinkError> {
        match self.socket.transact(DELETE, 0, |writer| entry::write_key(writer, flow)) {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes the flows that match the filter and that `stale` says yes to, and says how many there were. Goes on
    /// after a failure and reports all.
    pub fn flush(&self, filter: Filter, stale: impl FnMut(&Flow) -> bool) -> Result<usize, ConntrackError> {
        let (mut removed, mut failures) = (0, Vec::new());
        for flow in self.flows(filter, stale)? {
            match self.try_delete(&flow) {
                Ok(true) => removed += 1,
                Ok(false) => {}
                Err(error) => failures.push((flow, error)),
            }
        }
        tracing::debug!(?filter, removed, "flushed tracked flows");
        if failures.is_empty() { Ok(removed) } else { Err(ConntrackError::Incomplete { removed, failures }) }
    }

    /// [`Conntrack::flush`] for UDP, where a stale flow otherwise never ends: those that were sent to one of `ports`
    /// (`None`: to any), both families.
    pub fn flush_udp(
        &self,
        ports: Option<PortRange>,
        stale: impl FnMut(&Flow) -> bool,
    ) -> Result<usize, ConntrackError> {
        self.flush(Filter { ports, ..Filter::protocol(Protocol::Udp) }, stale)
    }
}

/// How many flows this namespace has; `None` where the kernel does not say.
fn count() -> Option<usize> {
    sysctl::read("net/netfilter/nf_conntrack_count").ok()?.parse().ok()
}

/// In which families the table is walked: `None` is all in one walk, for which the kernel has no filter.
fn walks(filter: Filter, count: Option<usize>) -> Vec<Option<Family>> {
    match (filter.family, count) {
        (_, Some(0)) => Vec::new(),
        (Some(family), _) => vec![Some(family)],
        (None, Some(..FEW)) => vec![None],
        (None, _) => Family::ALL.map(Some).to_vec(),
    }
}

/// Asks for the flows of a family, since kernel 5.8 only for those of the protocol and of one port (`CTA_FILTER`).
fn write_filter(writer: &mut MessageWriter, filter: Filter, family: Option<Family>) {
    writer.raw(&entry::fixed(family));
    if family.is_some() {
        let port = filter.ports.filter(|ports| ports.is_single()).map(PortRange::first);
        entry::write_filter(writer, filter.protocol, port);
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, original, reply, .. } = self;
        write!(f, "{protocol} {} -> {}", original.source, original.destination)?;
        if reply.source != original.destination {
            write!(f, " (goes to {})", reply.source)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
