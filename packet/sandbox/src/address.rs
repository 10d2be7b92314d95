//! Which addresses an instance gets: the same ones again, as long as nobody else has them.
//!
//! The place to look first follows from the name, so that an instance keeps its addresses over restarts, also when no
//! record of it is left; from there on the next free one is taken.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use portolan_model::Name;

use crate::{SandboxConfig, hash};

/// The addresses of an instance, IPv4 and IPv6; at least one is there.
pub type Addresses = (Option<Ipv4Addr>, Option<Ipv6Addr>);

/// Why no addresses could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Every address has an owner.
    #[error(
        "the subnet {subnet} is exhausted: all of its {size} addresses for instances are in use. \
         Stop some instances, or configure a larger subnet"
    )]
    Exhausted {
        /// Where it was looked.
        subnet: IpNet,
        /// How many addresses there are for instances.
        size: u128,
    },
}

/// Free addresses for `name`, one of each family that has a subnet. `used` may have addresses of any kind.
pub fn choose(
    config: &SandboxConfig,
    name: &Name,
    used: &BTreeSet<IpAddr>,
) -> Result<Addresses, AddressError> {
    let v4 = config.v4.map(|net| {
        // All but the subnet's own address, the gateway and the broadcast address.
        let room = Room { subnet: net.into(), first: u128::from(net.network().to_bits()) + 2, reserved: 3 };
        room.choose(name, |bits| Ipv4Addr::from_bits(bits as u32), |address| used.contains(&address.into()))
    });
    let v6 = config.v6.map(|net| {
        // All but the address of all routers (RFC 4291, 2.6.1) and the gateway.
        let room = Room { subnet: net.into(), first: net.network().to_bits() + 2, reserved: 2 };
        room.choose(name, Ipv6Addr::from_bits, |address| used.contains(&address.into()))
    });
    Ok((v4.transpose()?, v6.transpose()?))
}

/// The addresses of a subnet that instances can have, one after the other.
struct Room {
    subnet: IpNet,
    first: u128,
    reserved: u128,
}

impl Room {
    fn choose<A: Copy>(
        &self,
        name: &Name,
        address: impl Fn(u128) -> A,
        used: impl Fn(A) -> bool,
    ) -> Result<A, AddressError> {
        let bits = u32::from(self.subnet.max_prefix_len() - self.subnet.prefix_len());
        // A /0 of IPv6 would overflow; nobody can look through even a part of that.
        let size = 1u128.checked_shl(bits).unwrap_or(u128::MAX) - self.reserved;
        let start = u128::from(hash::stable(&[name.as_str().as_bytes()])) % size;
        (start..size)
            .chain(0..start)
            .map(|offset| address(self.first + offset))
            .find(|&address| !used(address))
            .ok_or(AddressError::Exhausted { subnet: self.subnet, size })
    }
}

#[cfg(test)]
mod tests;
