//! The Services of a node: from nothing to all of them, one change, the first packet, and what it costs, beside
//! kube-proxy.
//!
//! [`alone`] asks our data plane by itself, beside the floor: the same elements in one netlink transaction. [`beside`] asks
//! whole proxies, which watch a real API server: `portolan proxy`, and kube-proxy in its modes nftables and iptables.

use anyhow::Result;

use crate::Options;

mod affinity;
mod alone;
mod beside;
mod change;
pub(crate) mod child;
mod cost;
mod etcd;
mod objects;
mod packets;
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
    if options.is_quick() {
        return vec![of(1_000, 2), of(5_000, 2)];
    }
    vec![of(1_000, 2), of(5_000, 2), of(10_000, 2), of(20_000, 2), of(45_000, 2), of(100, 1_000)]
}

const fn of(services: u32, endpoints: u32) -> Size {
    Size { services, endpoints }
}

/// What is asked of whole proxies with so many Services, besides how soon they are ready.
struct Step {
    size: Size,
    packets: bool,
    affinity: bool,
    changes: bool,
}

/// The first has one Service, by which it is seen that a proxy is ready.
fn steps(options: Options) -> Vec<Step> {
    let (packets, changes) = ([1, 5_000, 30_000], [1, 5_000, 20_000, 100]);
    let mut sizes = sizes(options);
    sizes.insert(0, of(1, 2));
    if !options.is_quick() {
        sizes.insert(5, of(30_000, 2));
    }
    let step = |size: Size| Step {
        size,
        packets: packets.contains(&size.services),
        affinity: size.services == 1,
        changes: changes.contains(&size.services),
    };
    sizes.into_iter().map(step).collect()
}
