//! How long it takes to add a mapping and to remove it, and how that grows with the mappings that are there already.
//!
//! The work: a container gets one TCP port, so that packets to it arrive; later the port is taken away. Ours holds
//! the port by a bound socket first, as `portolan up` does, and sets both IP versions; portmap holds nothing and is
//! asked for IPv4 only, which is its cheapest.

use std::time::{Duration, Instant};

use anyhow::Result;
use portolan_model::{PortRange, Protocol, Protocols};

use crate::{
    Options,
    network::{MEASURED, Network, existing, measured},
    ours::{Ours, bind_all},
    portmap::{Backend, Portmap},
    stats::{Samples, ratio, show},
    table::{Table, thousands},
};

/// How many times ours is measured in a round.
const OURS: usize = 200;
/// How many times portmap is measured in a round, if [`BUDGET`] allows.
const PEER: usize = 10;
/// How long portmap may take in a round; one sample is always taken.
const BUDGET: Duration = Duration::from_secs(4);
/// With more mappings than this at first, the plugin's next call takes longer than anybody would wait here.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many ports a block has.
const BLOCK: u16 = 1_000;

/// Adding and removing, by contender.
#[derive(Default)]
struct Times {
    add: Samples,
    remove: Samples,
}

/// The section of the document.
pub(crate) fn measure(options: Options) -> Result<String> {
    let one = PortRange::single(MEASURED)?;
    let mut table = Table::new(&[
        "existing",
        "",
        "add",
        "p99",
        "remove",
        "p99",
        "samples",
        "add, against ours",
        "remove",
    ]);
    for &count in options.counts() {
        eprintln!("[mappings: {count} existing]");
        compare(options, count, one, &mut table)?;
    }
    let mut blocks =
        Table::new(&["ports", "", "add", "p99", "remove", "p99", "samples", "add, against ours", "remove"]);
    let block = PortRange::new(MEASURED, MEASURED + BLOCK - 1)?;
    for range in [one, block] {
        eprintln!("[mappings: a block of {}]", range.count());
        compare_blocks(options, range, &mut blocks)?;
    }
    Ok(format!(
        "## Add and remove a mapping\n\n\
         One TCP port of a container, while others are mapped already, TCP and UDP in turn. Ours: bind the port\n\
         (hold it), then one transaction of IPv4 and IPv6; in a process that runs. portmap: one call of the plugin,\n\
         IPv4 only; the\n\
         existing rules were loaded in one go and are those that it would have made itself. A dash: its calls take\n\
         longer than {} s there, or there are too few samples for a 99th percentile.\n\n{}\n\
         A block of ports, nothing else mapped. Ours maps a block as one interval; the bound sockets that hold it\n\
         are one for each port, and are most of the time.\n\n{}",
        PATIENCE.as_secs(),
        table.markdown(),
        blocks.markdown()
    ))
}

fn compare(options: Options, count: u16, host: PortRange, table: &mut Table) -> Result<()> {
    let tcp = Protocols::TCP;
    let network = Network::new();
    let ours = Ours::start(&network, existing(count))?;
    let peers = [Backend::Iptables, Backend::Nftables].map(|backend| Peer::start(backend, count));
    let mut mine = Times::default();
    let mut theirs = [Times::default(), Times::default()];
    for _ in 0..options.rounds() {
        ours_round(&network, &ours, host, true, &mut mine)?;
        for (peer, times) in peers.iter().zip(&mut theirs) {
            if let Ok(peer) = peer {
                peer.round(host, tcp, times)?;
            }
        }
    }
    ours.stop()?;
    let existing = thousands(count.into());
    add_row(table, &existing, "Portolan", &mine, &mine);
    for (peer, times) in peers.iter().zip(&theirs) {
        match peer {
            Ok(peer) => add_row(table, &existing, &peer.portmap.heading(), times, &mine),
            Err(reason) => eprintln!("[{reason:#}]"),
        }
    }
    Ok(())
}

fn compare_blocks(options: Options, host: PortRange, table: &mut Table) -> Result<()> {
    let network = Network::new();
    let ours = Ours::start(&network, Vec::new())?;
    let peers = [Backend::Iptables, Backend::Nftables].map(|backend| Peer::start(backend, 0));
    let (mut mine, mut bare) = (Times::default(), Times::default());
    let mut theirs = [Times::default(), Times::default()];
    for _ in 0..options.rounds() {
        ours_round(&network, &ours, host, true, &mut mine)?;
        ours_round(&network, &ours, host, false, &mut bare)?;
        for (peer, times) in peers.iter().zip(&mut theirs) {
            if let Ok(peer) = peer {
                peer.round(host, Protocols::TCP, times)?;
            }
        }
    }
    ours.stop()?;
    let ports = thousands(host.count().into());
    add_row(table, &ports, "Portolan", &mine, &mine);
    add_row(table, &ports, "Portolan, without the hold", &bare, &mine);
    for (peer, times) in peers.iter().zip(&theirs) {
        if let Ok(peer) = peer {
            add_row(table, &ports, &peer.portmap.heading(), times, &mine);
        }
    }
    Ok(())
}

fn ours_round(network: &Network, ours: &Ours, host: PortRange, hold: bool, times: &mut Times) -> Result<()> {
    times.add.begin_round();
    times.remove.begin_round();
    let mapping = measured(Protocol::Tcp, host);
    // A block's thousand sockets take their time; the number of samples is for single ports.
    let samples = if host.is_single() { OURS } else { OURS / 10 };
    network.node.run(|| {
        for _ in 0..samples {
            let held = times.add.time(|| -> Result<_> {
                let held = if hold { bind_all(host)? } else { Vec::new() };
                ours.add(&mapping)?;
                Ok(held)
            })?;
            times.remove.time(|| -> Result<()> {
                ours.remove(&mapping)?;
                drop(held);
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// portmap with its own network and with the rules that are there already.
struct Peer {
    portmap: Portmap,
    network: Network,
}

impl Peer {
    /// An error says why it is left out at this count.
    fn start(backend: Backend, count: u16) -> Result<Self> {
        let portmap = Portmap::new(backend)?;
        let network = Network::new();
        let host = PortRange::single(MEASURED)?;
        let start = Instant::now();
        network.node.run(|| -> Result<()> {
            // The first call makes the shared chains, which the preloaded rules jump from.
            portmap.add(&network, "first", host, Protocols::TCP)?;
            portmap.preload(count)?;
            portmap.del(&network, "first", host, Protocols::TCP)
        })?;
        if start.elapsed() > PATIENCE {
            anyhow::bail!(
                "{} with {count} existing: a DEL needs {}",
                portmap.heading(),
                show(start.elapsed())
            );
        }
        Ok(Self { portmap, network })
    }

    fn round(&self, host: PortRange, protocols: Protocols, times: &mut Times) -> Result<()> {
        // A contender that needs so long for one sample needs no second to be told apart.
        if times.add.percentile(100.0).is_some_and(|longest| longest > PATIENCE) {
            return Ok(());
        }
        times.add.begin_round();
        times.remove.begin_round();
        let start = Instant::now();
        self.network.node.run(|| {
            for index in 0..PEER {
                let container = format!("measured-{index}");
                let call = |verb| self.portmap.call(&self.network, verb, &container, host, protocols);
                let (add, remove) = (call("ADD"), call("DEL"));
                times.add.time(|| add.make())?;
                times.remove.time(|| remove.make())?;
                if start.elapsed() > BUDGET {
                    break;
                }
            }
            Ok(())
        })
    }
}

fn add_row(table: &mut Table, first: &str, name: &str, times: &Times, ours: &Times) {
    table.row([
        first.to_owned(),
        name.to_owned(),
        times.add.median_and_spread(),
        times.add.p99(),
        times.remove.median_and_spread(),
        times.remove.p99(),
        times.add.count().to_string(),
        ratio(&ours.add, &times.add),
        ratio(&ours.remove, &times.remove),
    ]);
}
