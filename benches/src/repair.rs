//! How long traffic stops when somebody flushes the rules, and how long a start with many mappings takes.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use portolan_model::{PortRange, Protocol};
use portolan_testkit::nft;

use crate::{
    Options,
    network::{MEASURED, NODE, Network, existing, measured},
    ours::Ours,
    stats::Samples,
    table::{Table, thousands},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// The section of the document.
pub(crate) fn measure(options: Options) -> Result<String> {
    let mut table = Table::new(&[
        "mappings",
        "`nft flush ruleset` until the next connect",
        "longest",
        "start, rules gone",
        "start, rules still there",
    ]);
    for &count in options.counts() {
        eprintln!("[repair: {count} mappings]");
        let (mut flush, mut cold, mut warm) = (Samples::default(), Samples::default(), Samples::default());
        let network = Network::new();
        let _servers = network.serve();
        let mut all = existing(count);
        all.push(measured(Protocol::Tcp, PortRange::single(MEASURED)?));
        for _ in 0..options.rounds() {
            for samples in [&mut flush, &mut cold, &mut warm] {
                samples.begin_round();
            }
            let ours = cold.time(|| Ours::start(&network, all.clone()))?;
            connect(&network)?;
            for _ in 0..3 {
                // Counted from the moment in which nft says that it is done.
                network.node.run(|| nft::nft("flush ruleset"));
                flush.time(|| connect(&network))?;
            }
            // As after a crash: the owner is gone, its rules are not.
            ours.abandon();
            let ours = warm.time(|| Ours::start(&network, all.clone()))?;
            ours.stop()?;
        }
        table.row([
            thousands(u64::from(count) + 1),
            flush.median_and_spread(),
            flush.longest(),
            cold.median_and_spread(),
            warm.median_and_spread(),
        ]);
    }
    Ok(format!(
        "## Repair and restart\n\n\
         After `nft flush ruleset` by somebody else a client connects as fast as it can until it gets through. A\n\
         start is from nothing to all mappings in the kernel: with an empty kernel, as after a reboot, and with the\n\
         rules of a process that was killed. portmap repairs nothing: a flushed rule is gone until its container is.\n\n{}",
        table.markdown()
    ))
}

/// Tries until a connection to the measured port is there.
fn connect(network: &Network) -> Result<()> {
    let target = SocketAddr::from((NODE, MEASURED));
    network.client.run(|| {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            // Refused at once while there is no rule: the node has no listener of its own.
            if TcpStream::connect_timeout(&target, PATIENCE).is_ok() {
                return Ok(());
            }
        }
        bail!("not repaired within {PATIENCE:?}")
    })
}
