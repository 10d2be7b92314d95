//! The Services of a node: from nothing to all of them, one change, the first packet, and what it costs, beside
//! kube-proxy.
//!
//! [`alone`] asks our data plane by itself, beside the floor: the same elements in one netlink transaction. [`beside`] asks
//! whole proxies, which watch a real API server: `portolan proxy`, and kube-proxy in its modes nftables and iptables.
//!
//! Whoever works on one of the answers asks for it alone: `SERVICES="20000x2 alone"` in the environment, or
//! `SERVICES="1x2 20000x2 beside portolan"`.

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
    let only = Only::read();
    let mut text = if only.alone { alone::measure(options)? } else { String::new() };
    if !only.beside {
        return Ok(text);
    }
    match beside::measure(options) {
        Ok(tables) => text += &format!("\n{tables}"),
        Err(error) => eprintln!("[services: not beside kube-proxy: {error:#}]"),
    }
    Ok(text)
}

/// What is asked for, when not everything is.
struct Only {
    alone: bool,
    beside: bool,
    /// Without kube-proxy.
    ours: bool,
    sizes: Vec<Size>,
}

impl Only {
    fn read() -> Self {
        let words = std::env::var("SERVICES").unwrap_or_default();
        let has = |word: &str| words.split_whitespace().any(|one| one == word);
        let size = |word: &str| {
            let (services, endpoints) = word.split_once('x')?;
            Some(of(services.parse().ok()?, endpoints.parse().ok()?))
        };
        Self {
            alone: !has("beside"),
            beside: !has("alone"),
            ours: has("portolan"),
            sizes: words.split_whitespace().filter_map(size).collect(),
        }
    }
}

/// How many Services there are, and how many endpoints each has.
fn sizes(options: Options) -> Vec<Size> {
    let only = Only::read().sizes;
    if !only.is_empty() {
        return only;
    }
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
    let only = !Only::read().sizes.is_empty();
    if !only {
        sizes.insert(0, of(1, 2));
    }
    if !only && !options.is_quick() {
        sizes.insert(5, of(30_000, 2));
    }
    let step = |size: Size| Step {
        size,
        packets: packets.contains(&size.services),
        affinity: size.services == 1 && !only,
        changes: changes.contains(&size.services),
    };
    sizes.into_iter().map(step).collect()
}
