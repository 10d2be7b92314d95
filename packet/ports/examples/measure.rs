//! Measures what a lease costs and what a held port costs, and prints a table. As root, in a network namespace of its
//! own, so that nothing else is counted: `unshare -n cargo run --release -p portolan-ports --example measure`.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use portolan_ports::{HolderMode, LeaseRequest, Network, Pool, Pools, Ports, PortsConfig, owner};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let folder = std::env::temp_dir().join(format!("portolan-measure-{}", std::process::id()));
    let holder = std::env::current_exe()?.with_file_name("holder");
    let pool = |name: &str, range: &str| -> Result<Pool, Error> {
        Ok(Pool {
            quarantine: Duration::ZERO,
            ..Pool::new(name.parse()?, range.parse::<portolan_model::PortRange>()?)
        })
    };
    let config = PortsConfig {
        folder: folder.clone(),
        pools: Pools::new(vec![pool("default", "2000-31999")?, pool("blocks", "32000-63999")?])?,
        holder: HolderMode::Spawn { program: holder, args: Vec::new() },
        holder_socket: None,
        reserved_ports: None,
        patience: std::time::Duration::ZERO,
        durable: true,
    };
    let (mut ports, _) = Ports::open(config.clone())?;
    let mut leases = 0;
    println!(
        "{:>8}  {:>22}  {:>22}  {:>22}",
        "leases", "lease p50 / p99", "release p50 / p99", "block of 1000 p50"
    );
    for target in [0, 1_000, 10_000, 28_000] {
        while leases < target {
            ports.lease(request(&format!("web-{leases}"), "http")?)?;
            leases += 1;
        }
        let (mut lease, mut release, mut block) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..200 {
            let asked = request(&format!("probe-{n}"), "http")?;
            let start = Instant::now();
            let got = ports.lease(asked)?;
            lease.push(start.elapsed());
            let start = Instant::now();
            ports.release(&got.request.instance, &got.request.incarnation);
            release.push(start.elapsed());
        }
        for n in 0..20 {
            let asked = request(&format!("block-{n}"), "rtp/udp:1000,pool=blocks")?;
            let start = Instant::now();
            let got = ports.lease(asked)?;
            block.push(start.elapsed());
            ports.release(&got.request.instance, &got.request.incarnation);
        }
        let pair = |times: &mut Vec<Duration>| {
            times.sort();
            format!("{:?} / {:?}", times[times.len() / 2], times[times.len() * 99 / 100])
        };
        let (lease, release) = (pair(&mut lease), pair(&mut release));
        block.sort();
        println!("{target:>8}  {lease:>22}  {release:>22}  {:>22?}", block[block.len() / 2]);
    }
    let start = Instant::now();
    let done = ports.maintain();
    println!("maintain with {leases} leases, nothing to do: {:?} {:?}", start.elapsed(), done.problems);
    let pids = ports.holder_pids();
    for &pid in &pids {
        println!("holder {pid}: resident {} KiB", resident(pid));
    }
    drop(ports);
    let start = Instant::now();
    let (mut ports, recovered) = Ports::open(config)?;
    println!("open with {} leases: {:?}", recovered.kept.len(), start.elapsed());

    let full = slab();
    for lease in recovered.kept {
        ports.release(&lease.request.instance, &lease.request.incarnation);
    }
    // Sockets are freed after a grace period of RCU.
    std::thread::sleep(Duration::from_secs(3));
    let empty = slab();
    // Only what there is about one or two of for each port: other programs use the same caches.
    let per_port = full.iter().filter_map(|(name, (count, size))| {
        let freed = count.saturating_sub(empty.get(name).map_or(0, |(count, _)| *count));
        (freed > leases * 3 / 4).then_some(freed * size)
    });
    println!("kernel memory per held TCP port: {} bytes", per_port.sum::<usize>() / leases.max(1));
    println!("{:?}", ports.close());
    fs::remove_dir_all(folder)?;
    Ok(())
}

fn request(instance: &str, spec: &str) -> Result<LeaseRequest, Error> {
    Ok(LeaseRequest {
        instance: instance.parse()?,
        incarnation: "1".parse()?,
        owner: owner::this_process().ok_or("no /proc")?,
        requests: vec![spec.parse()?],
        network: Network::Own,
        v4: None,
        v6: None,
        local: Vec::new(),
        attachment: None,
    })
}

/// The kernel's caches: objects in use, and the size of one (slabinfo(5)). Needs root.
fn slab() -> BTreeMap<String, (usize, usize)> {
    let text = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, count) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        Some((name, (count, words.nth(1)?.parse().ok()?)))
    };
    text.lines().filter_map(row).collect()
}

fn resident(pid: u32) -> usize {
    field(&format!("/proc/{pid}/status"), "VmRSS:")
}

fn field(path: &str, name: &str) -> usize {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
