//! Neighbours: which link layer address a host on the link has, told to the kernel instead of asked for by ARP or NDP.

use std::net::IpAddr;

use super::{RouteError, Rtnl, family, write_address};
use crate::message::{CREATE, REPLACE};

const NEW: u16 = 28;

// include/uapi/linux/neighbour.h: the size of `struct ndmsg`, `NDA_*` and `NUD_PERMANENT`.
const FIXED: usize = 12;
const DESTINATION: u16 = 1;
const LINK_ADDRESS: u16 = 2;
const PERMANENT: u16 = 0x80;

impl Rtnl {
    /// Says for good that `address` has the link layer address `mac` on this interface. It needs no packet to be
    /// found, does not expire, and does not count for the limit of neighbours (`net.ipv4.neigh.default.gc_thresh3`,
    /// 1024 unless raised), which a machine with many links would reach.
    pub fn set_neighbour(&self, index: u32, address: IpAddr, mac: &[u8]) -> Result<(), RouteError> {
        let mut fixed = [0; FIXED];
        fixed[0] = family(address);
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
        self.socket
            .transact(NEW, CREATE | REPLACE, |w| {
                w.raw(&fixed);
                write_address(w, DESTINATION, address);
                w.bytes(LINK_ADDRESS, mac);
            })
            .map_err(RouteError::during(format!("setting the neighbour {address} of interface {index}")))
    }
}
