//! What a program costs while it works: processor time, memory, and how long it keeps others from changing rules.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use portolan_nft::{Family, Kernel, Nft as _, Table, Transaction};
use portolan_testkit::net::Namespace;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(20);

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Processor time of the program and of the children that it waited for.
    pub(crate) processor: Duration,
    /// The most memory of the program and its children at one time, in bytes.
    pub(crate) memory: u64,
    /// The longest that somebody else waited for a transaction of its own in the same network namespace.
    pub(crate) lock: Duration,
}

/// Looks at a process until it is told to stop.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Cost>>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look at this process, which works in `node`.
    pub(crate) fn start(process: u32, node: &Namespace) -> Result<Self> {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Cost::default())));
        let nft = node.run(Kernel::open).context("no nftables")?;
        let mut threads = Vec::new();
        let (stopped, cost) = (Arc::clone(&stop), Arc::clone(&seen));
        threads.push(std::thread::spawn(move || {
            let before = processor(process);
            while !stopped.load(Ordering::Relaxed) {
                let now = memory(process);
                let used = processor(process).saturating_sub(before);
                {
                    let mut cost = cost.lock().unwrap_or_else(PoisonError::into_inner);
                    cost.memory = cost.memory.max(now);
                    cost.processor = cost.processor.max(used);
                }
                std::thread::sleep(EVERY);
            }
        }));
        let (stopped, cost) = (Arc::clone(&stop), Arc::clone(&seen));
        threads.push(std::thread::spawn(move || {
            let mut nft = nft;
            while !stopped.load(Ordering::Relaxed) {
                let waited = knock(&mut nft);
                {
                    let mut cost = cost.lock().unwrap_or_else(PoisonError::into_inner);
                    cost.lock = cost.lock.max(waited);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }));
        Ok(Self { stop, seen, threads })
    }

    /// What was seen.
    pub(crate) fn stop(self) -> Cost {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a transaction takes that is refused: it waits for the lock as any other, and changes nothing, not even the
/// generation, which would make nft read everything anew.
fn knock(nft: &mut Kernel) -> Duration {
    let mut transaction = Transaction::new(Table::new(Family::Inet, "there-is-no-such-table"));
    transaction.delete_table();
    let start = Instant::now();
    let _ = nft.run(&transaction);
    start.elapsed()
}

/// The processor time of a process and of its children that have ended.
pub(crate) fn processor(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name in brackets may hold anything.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
    let ticks = [11, 12, 13, 14].iter().filter_map(|&at| fields.get(at)?.parse::<u64>().ok()).sum::<u64>();
    // USER_HZ is 100 on every architecture that Linux has today.
    Duration::from_millis(ticks * 10)
}

/// The resident memory of a process and of all below it.
pub(crate) fn memory(process: u32) -> u64 {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(id);
    }
    let (mut sum, mut left) = (0, vec![process]);
    while let Some(id) = left.pop() {
        sum += resident(id);
        left.extend(children.remove(&id).unwrap_or_default());
    }
    sum
}

fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
