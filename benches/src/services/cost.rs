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
use portolan_netlink::{Bus, Socket};
use portolan_testkit::net::Namespace;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(20);
/// Nobody waits longer at the door.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two knocks.
const KNOCK: Duration = Duration::from_millis(2);

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Processor time of the program and of the children that it waited for.
    pub(crate) processor: Duration,
    /// The most memory of the program and its children at one time, in bytes.
    pub(crate) memory: u64,
    /// How long somebody else waited for a transaction of its own in the same network namespace.
    pub(crate) lock: Lock,
}

/// How long a lock was held, as others saw it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lock {
    /// At most.
    pub(crate) longest: Duration,
    /// The 99th percentile of all who knocked.
    pub(crate) p99: Duration,
}

/// Knocks at the lock of a network namespace until it is told to stop.
pub(crate) struct Knocks {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Knocks {
    /// Begins.
    pub(crate) fn start(node: &Namespace) -> Result<Self> {
        let socket = node.run(|| Socket::open(Bus::Netfilter)).context("no nftables")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut waited, mut answer) = (Vec::new(), Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                waited.extend(knock(&socket, &mut answer));
                std::thread::sleep(KNOCK);
            }
            waited
        });
        Ok(Self { stop, thread })
    }

    /// What was seen.
    pub(crate) fn stop(self) -> Lock {
        self.stop.store(true, Ordering::Relaxed);
        let mut waited = self.thread.join().unwrap_or_default();
        waited.sort_unstable();
        let at = |percent: usize| waited.get((waited.len() * percent).div_ceil(100).saturating_sub(1));
        Lock { longest: at(100).copied().unwrap_or_default(), p99: at(99).copied().unwrap_or_default() }
    }
}

/// Looks at a process until it is told to stop.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Cost>>,
    thread: JoinHandle<()>,
    knocks: Knocks,
}

impl Watch {
    /// Begins to look at this process, which works in `node`.
    pub(crate) fn start(process: u32, node: &Namespace) -> Result<Self> {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Cost::default())));
        let (stopped, cost) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            let before = processor(process);
            while !stopped.load(Ordering::Relaxed) {
                let now = memory(process).max(peak(process));
                let used = processor(process).saturating_sub(before);
                {
                    let mut cost = cost.lock().unwrap_or_else(PoisonError::into_inner);
                    cost.memory = cost.memory.max(now);
                    cost.processor = cost.processor.max(used);
                }
                std::thread::sleep(EVERY);
            }
        });
        Ok(Self { stop, seen, thread, knocks: Knocks::start(node)? })
    }

    /// What was seen.
    pub(crate) fn stop(self) -> Cost {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        let lock = self.knocks.stop();
        Cost { lock, ..*self.seen.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// How long a transaction takes that is made for another generation of the rules: the kernel waits for the lock as for any
/// other, compares, and lets go (`nf_tables_valid_genid`, net/netfilter/nf_tables_api.c). One that is refused for what is
/// in it would itself hold the lock, until all processors have passed a quiescent state (`__nf_tables_abort`): that was
/// milliseconds which everybody else then waited for, and which were counted here.
fn knock(socket: &Socket, answer: &mut Vec<u8>) -> Option<Duration> {
    /// `NFNL_MSG_BATCH_BEGIN`, a request, for nftables (10), with `NFNL_BATCH_GENID` (1): a generation that is never.
    const BEGIN: [u8; 28] = {
        let mut bytes = [0; 28];
        bytes[0] = 28;
        bytes[4] = 0x10;
        bytes[6] = 1;
        bytes[19] = 10;
        bytes[20] = 8;
        bytes[22] = 1;
        (bytes[24], bytes[25], bytes[26], bytes[27]) = (0xff, 0xff, 0xff, 0xfe);
        bytes
    };
    let start = Instant::now();
    socket.send(&BEGIN).ok()?;
    socket.receive(answer, Some(PATIENCE)).ok()?.then(|| start.elapsed())
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

/// The most that was ever resident of a process alone.
pub(crate) fn peak(process: u32) -> u64 {
    of_status(process, "VmHWM:")
}

fn resident(process: u32) -> u64 {
    of_status(process, "VmRSS:")
}

fn of_status(process: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
