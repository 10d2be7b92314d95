//! What a mapping and a held port cost in memory, in our process and in the kernel.

use anyhow::{Context as _, Result};
use portolan_model::PortRange;

use crate::{
    Options,
    network::{FIRST, Network, existing},
    ours::Ours,
    table::{Table, thousands},
};

/// The section of the document.
pub(crate) fn measure(options: Options) -> Result<String> {
    let count = if options.quick { 1_000 } else { 28_000 };
    let network = Network::new();
    let mut table = Table::new(&["", "count", "in the process, each", "in the kernel, each"]);

    // What every data plane needs, however few mappings it has, is not counted.
    Ours::start(&network, existing(1))?.stop()?;
    let before = Memory::now()?;
    let ours = Ours::start(&network, existing(count))?;
    let after = Memory::now()?;
    ours.stop()?;
    table.row(after.row(&before, "a mapping, IPv4 and IPv6", count));

    let count = if options.quick { 1_000 } else { 10_000 };
    let ports = PortRange::new(FIRST, FIRST + count - 1)?;
    let before = Memory::now()?;
    let held = network.node.run(|| crate::ours::bind_all(ports))?;
    let after = Memory::now()?;
    drop(held);
    table.row(after.row(&before, "a held port, one protocol, both IP versions", count));
    Ok(format!(
        "## Memory\n\n\
         The difference of the process's resident memory and of the kernel's slab memory (/proc/meminfo, the whole\n\
         machine, so run this on a quiet one) before and after.\n\n{}",
        table.markdown()
    ))
}

/// Bytes in use.
#[derive(Clone, Copy, Debug)]
struct Memory {
    process: u64,
    kernel: u64,
}

impl Memory {
    fn now() -> Result<Self> {
        Ok(Self { process: field("/proc/self/status", "VmRSS:")?, kernel: kernel()? })
    }

    fn row(self, before: &Self, what: &str, count: u16) -> [String; 4] {
        let each =
            |now: u64, then: u64| format!("{} B", thousands(now.saturating_sub(then) / u64::from(count)));
        [
            what.to_owned(),
            thousands(count.into()),
            each(self.process, before.process),
            each(self.kernel, before.kernel),
        ]
    }
}

/// Objects of the kernel, and what is allocated by pages: large hash tables.
fn kernel() -> Result<u64> {
    Ok(field("/proc/meminfo", "Slab:")?
        + field("/proc/meminfo", "VmallocUsed:")?
        + field("/proc/meminfo", "Percpu:")?)
}

/// A field of a file of `name: number kB` lines, in bytes.
fn field(path: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .with_context(|| format!("no {name} in {path}"))?;
    let kilobytes: u64 =
        line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{name} of {path}"))?;
    Ok(kilobytes * 1024)
}
