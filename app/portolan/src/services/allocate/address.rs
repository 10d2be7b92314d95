//! Cluster addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rand::{Rng, RngExt as _};

use super::{ATTEMPTS, AllocateError, Allocations, Family, Ranges};

impl Allocations {
    /// The one that is asked for, or the one that it had, or any.
    pub(super) fn address(
        &self,
        ranges: &Ranges,
        family: Family,
        asked: Option<IpAddr>,
        had: Option<IpAddr>,
        rng: &mut impl Rng,
    ) -> Result<IpAddr, AllocateError> {
        let named = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let range = ranges.addresses.iter().find(|range| Family::of(range.addr()) == family);
        let range = *range.ok_or(AllocateError::NoRange(named))?;
        let holder = |address: IpAddr| {
            self.given
                .iter()
                .find(|(_, given)| given.addresses.contains(&address))
                .map(|(name, _)| name.clone())
        };
        let (first, last) = usable(range);
        let inside = |address: IpAddr| (first..=last).contains(&bits(address));
        if let Some(address) = asked {
            return match holder(address) {
                _ if !range.contains(&address) => {
                    Err(AllocateError::AddressOutside(address, range.to_string()))
                }
                _ if !inside(address) => Err(AllocateError::AddressEdge(address, range)),
                Some(by) => Err(AllocateError::AddressTaken(address, by)),
                None => Ok(address),
            };
        }
        let free = |address: IpAddr| inside(address) && holder(address).is_none();
        if let Some(address) = had.filter(|address| free(*address)) {
            return Ok(address);
        }
        // The static band: min(max(16, size / 16), 256), as for ClusterIPs of Kubernetes.
        let size = last - first + 1;
        let band = if size <= 16 { 0 } else { (size / 16).clamp(16, 256) };
        for _ in 0..ATTEMPTS {
            let address = unbits(rng.random_range(first + band..=last), family);
            if free(address) {
                return Ok(address);
            }
        }
        // A range that is nearly full is small, or holds more Services than a machine has: it is searched as a whole,
        // the band last.
        (first + band..=last)
            .chain(first..first + band)
            .map(|bits| unbits(bits, family))
            .take(1 << 17)
            .find(|address| free(*address))
            .ok_or(AllocateError::AddressesFull(range))
    }
}

/// The first and last address that may be given, as numbers: not the network's own, and of IPv4 not the broadcast.
fn usable(range: IpNet) -> (u128, u128) {
    match range {
        IpNet::V4(net) if net.prefix_len() >= 31 => {
            (bits(net.network().into()), bits(net.broadcast().into()))
        }
        IpNet::V4(net) => (bits(net.network().into()) + 1, bits(net.broadcast().into()) - 1),
        IpNet::V6(net) if net.prefix_len() >= 127 => {
            (bits(net.network().into()), bits(net.broadcast().into()))
        }
        IpNet::V6(net) => (bits(net.network().into()) + 1, bits(net.broadcast().into())),
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn unbits(bits: u128, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from_bits(bits).into(),
    }
}
