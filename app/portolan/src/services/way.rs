//! A way for this machine's own processes to cluster addresses.
//!
//! The rules translate them in the hook `output`, and the kernel comes there only with a route: a machine whose routes do
//! not cover the range would say "network unreachable" before. Where no route leads to it, one to the loopback is made,
//! which changes nothing else: what the rules translate is routed anew, and what they do not is dropped by them (an
//! address that no Service has) or discarded by the loopback. Machines with a default route need none, and get none.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_netlink::route::{Route, RouteError, Rtnl};

/// `lo` is the first interface of every network namespace (`LOOPBACK_IFINDEX`).
pub(crate) const LO: u32 = 1;

/// What was made.
#[derive(Debug, Default)]
pub(crate) struct Way {
    made: Vec<IpNet>,
    told: bool,
}

impl Way {
    /// Makes what is missing, while there are Services.
    pub(crate) fn lead(&mut self, networks: &[IpNet], wanted: bool) {
        if !wanted {
            return;
        }
        let done = Rtnl::open()
            .and_then(|rtnl| networks.iter().try_for_each(|network| self.lead_to(&rtnl, *network)));
        if let Err(error) = done
            && !std::mem::replace(&mut self.told, true)
        {
            tracing::warn!("processes of this machine itself may not reach cluster addresses: {error}");
        }
    }

    fn lead_to(&mut self, rtnl: &Rtnl, network: IpNet) -> Result<(), RouteError> {
        if let Some(route) = rtnl.lookup(first(network))? {
            // Ours of a former life: it is ours again, to be taken away at the end.
            if route.interface == Some(LO) && !self.made.contains(&network) && has(rtnl, network)? {
                self.made.push(network);
            }
            return Ok(());
        }
        match rtnl.add_route(&Route::device(network, LO)) {
            Ok(()) => tracing::debug!(%network, "no route led to cluster addresses: there is one by lo now"),
            Err(error) if error.is_present() => {}
            // A kernel without this family has no Services of it.
            Err(error) if network.addr().is_ipv6() => {
                tracing::debug!(%network, %error, "no way to cluster addresses");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.made.push(network);
        Ok(())
    }

    /// Takes away what a former life has left.
    pub(crate) fn forget(&mut self, networks: &[IpNet]) {
        let Ok(rtnl) = Rtnl::open() else { return };
        let left = networks.iter().copied().filter(|network| has(&rtnl, *network).unwrap_or(false));
        self.made.extend(left);
        for failure in std::mem::take(self).close() {
            tracing::warn!("{failure}");
        }
    }

    /// Takes it away; says what could not be.
    pub(crate) fn close(self) -> Vec<String> {
        if self.made.is_empty() {
            return Vec::new();
        }
        let rtnl = match Rtnl::open() {
            Ok(rtnl) => rtnl,
            Err(error) => return vec![format!("taking away the routes to cluster addresses: {error}")],
        };
        let taken = self.made.iter().map(|network| rtnl.delete_route(&Route::device(*network, LO)));
        taken.filter_map(Result::err).map(|error| error.to_string()).collect()
    }
}

/// An address that has no meaning of its own.
fn first(network: IpNet) -> IpAddr {
    network.hosts().next().unwrap_or(network.addr())
}

fn has(rtnl: &Rtnl, network: IpNet) -> Result<bool, RouteError> {
    let ours = |route: &Route| route.destination == network && route.interface == Some(LO);
    Ok(rtnl.routes()?.iter().any(ours))
}
