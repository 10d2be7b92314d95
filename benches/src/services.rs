//! The Services of a node: from nothing to all of them, one change, the first packet, and what it costs, beside
//! kube-proxy.
//!
//! [`alone`] asks our data plane by itself, beside the floor: the same elements in one netlink transaction. [`beside`] asks
//! whole proxies, which watch a real API server: `portolan proxy`, and kube-proxy in its modes nftables and iptables.

use anyhow::Result;

use crate::Options;

mod alone;
mod beside;
pub(crate) mod child;
mod cost;
mod etcd;
mod objects;
mod place;
mod proxy;

use objects::Size;

/// The section of the document.
pub(crate) fn measure(options: Options) -> Result<String> {
    let mut text = alone::measure(options)?;
    match beside::measure(options) {
        Ok(tables) => text += &format!("\n{tables}"),
        Err(error) => eprintln!("[services: not beside kube-proxy: {error:#}]"),
    }
    Ok(text)
}

/// How many Services there are, and how many endpoints each has.
fn sizes(options: Options) -> Vec<Size> {
    let of = |services, endpoints| Size { services, endpoints };
    if options.is_quick() {
        return vec![of(1_000, 2), of(5_000, 2)];
    }
    vec![of(1_000, 2), of(5_000, 2), of(10_000, 2), of(20_000, 2), of(45_000, 2), of(100, 1_000)]
}
