//! Whether the pools are Portolan's alone: the kernel's ephemeral ports, reservations, and who sits there already.

use std::collections::HashSet;

use portolan_cli::Pool;
use portolan_model::{PortRange, Protocol};
use portolan_netlink::{
    process,
    sockdiag::{self, BoundSocket, State},
    sysctl,
};

use super::finding::Finding;
use crate::rights::Rights;

/// How many strangers in a pool are named.
const NAMED: usize = 5;

pub(super) fn look(pools: &[Pool], rights: Rights) -> Vec<Finding> {
    let ephemeral = sysctl::read("net/ipv4/ip_local_port_range").ok().and_then(|text| ephemeral(&text));
    let reserved =
        sysctl::read("net/ipv4/ip_local_reserved_ports").map(|text| reserved(&text)).unwrap_or_default();
    let mut findings = Vec::new();
    for pool in pools {
        findings.extend(ephemeral.map(|range| against_ephemeral(pool, range, &reserved, rights)));
        findings.push(strangers(pool));
    }
    for (index, pool) in pools.iter().enumerate() {
        let others = pools.iter().skip(index + 1);
        findings.extend(others.filter(|other| other.range.overlaps(pool.range)).map(|other| {
            Finding::fail(format!("the pools {pool} and {other} overlap"), "give each port to one pool")
        }));
    }
    findings
}

/// Two numbers with white space between.
fn ephemeral(text: &str) -> Option<PortRange> {
    let mut numbers = text.split_whitespace().map(str::parse);
    PortRange::new(numbers.next()?.ok()?, numbers.next()?.ok()?).ok()
}

/// `8080,20000-29999`
fn reserved(text: &str) -> Vec<PortRange> {
    text.trim().split(',').filter_map(|range| range.parse().ok()).collect()
}

fn against_ephemeral(pool: &Pool, ephemeral: PortRange, reserved: &[PortRange], rights: Rights) -> Finding {
    let covered = pool.range.iter().all(|port| reserved.iter().any(|range| range.contains(port)));
    let range = pool.range;
    match (range.overlaps(ephemeral), covered) {
        (_, true) => Finding::ok(format!("pool {pool}: reserved from ephemeral use")),
        (false, _) => Finding::ok(format!("pool {pool}: apart from the ephemeral ports {ephemeral}")),
        (true, _) if rights.net_admin => Finding::ok(format!(
            "pool {pool}: within the ephemeral ports {ephemeral}; `portolan up` reserves it while it runs"
        )),
        (true, _) => Finding::warn(
            format!(
                "pool {pool}: within the ephemeral ports {ephemeral}, so any client may take a port of it"
            ),
            format!("sysctl -w net.ipv4.ip_local_reserved_ports={range} as root, or another --pool"),
        ),
    }
}

/// Who has ports of the pool already. They are passed over, so this is no failure.
fn strangers(pool: &Pool) -> Finding {
    let sits = |socket: &BoundSocket| {
        pool.range.contains(socket.local.port()) && matches!(socket.state, State::Bound | State::Listening)
    };
    let mut taken: Vec<(Protocol, BoundSocket)> = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let sockets = sockdiag::all(protocol).unwrap_or_default();
        taken.extend(sockets.into_iter().filter(sits).map(|socket| (protocol, socket)));
    }
    let inodes: HashSet<u64> = taken.iter().map(|(_, socket)| socket.inode).collect();
    let owners = process::owners_of(&inodes);
    // Portolan's own holder and what it runs is meant to sit there.
    taken.retain(|(_, socket)| owners.get(&socket.inode).is_none_or(|owner| owner.command != "portolan"));
    if taken.is_empty() {
        return Finding::ok(format!("pool {pool}: no other program has a port of it"));
    }
    let mut named: Vec<_> = taken
        .iter()
        .map(|(protocol, socket)| match owners.get(&socket.inode) {
            Some(owner) => {
                format!("{}/{protocol} {} (pid {})", socket.local.port(), owner.command, owner.pid)
            }
            None => format!("{}/{protocol} user {}", socket.local.port(), socket.uid),
        })
        .collect();
    named.sort();
    named.dedup();
    let more = match named.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    named.truncate(NAMED);
    Finding::warn(
        format!("pool {pool}: other programs have ports of it: {}{more}", named.join(", ")),
        "they are passed over; to have them too, stop those programs or choose another --pool",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::doctor::finding::Level;

    fn level(pool: &str, ephemeral: &str, reserved_ports: &str, root: bool) -> Level {
        let rights = Rights { net_admin: root, sys_admin: root };
        let ephemeral = super::ephemeral(ephemeral).unwrap();
        against_ephemeral(&pool.parse().unwrap(), ephemeral, &reserved(reserved_ports), rights).level
    }

    #[test]
    fn a_pool_among_the_ephemeral_ports_must_be_reserved() {
        assert_eq!(level("20000-29999", "32768\t60999", "", false), Level::Ok);
        assert_eq!(level("40000-40999", "32768\t60999", "", false), Level::Warn);
        assert_eq!(level("40000-40999", "32768\t60999", "", true), Level::Ok);
        assert_eq!(level("40000-40999", "32768\t60999", "1,40000-40500,40501-41000\n", false), Level::Ok);
        assert_eq!(level("40000-40999", "32768\t60999", "40000-40500", false), Level::Warn);
    }

    #[test]
    fn a_stranger_in_the_pool_is_named_with_its_process() {
        let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = stranger.local_addr().unwrap().port();
        let finding = strangers(&format!("{port}").parse().unwrap());
        assert_eq!(finding.level, Level::Warn);
        // A test's process is called by the test's binary: `portolan-…`.
        assert!(finding.what.contains(&format!("{port}/tcp portolan-")), "{}", finding.what);
    }

    #[test]
    fn pools_that_overlap_fail() {
        let pools = ["1000-1999", "b=1500-1600"].map(|pool| pool.parse().unwrap());
        let findings = look(&pools, Rights { net_admin: false, sys_admin: false });
        assert!(
            findings.iter().any(|f| f.level == Level::Fail && f.what.contains("overlap")),
            "{findings:?}"
        );
    }
}
