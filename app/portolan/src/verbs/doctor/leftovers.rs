//! What a killed `portolan up` left behind. The next one takes it over or away, so it is told, not mended.

use portolan_netlink::{namespace::Namespace, process};
use portolan_nft::{Family, Kernel, Nft, Table};

use super::finding::Finding;
use crate::rights::Rights;

const MEND: &str = "`portolan up` takes over what is still used and removes the rest; or by hand:";

pub(super) fn look(rights: Rights, up: bool) -> Vec<Finding> {
    // While any `up` runs here, with this data folder or another, these things are its own.
    if up || data_plane_is_taken() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if rights.net_admin && table_is_there() {
        findings.push(Finding::warn(
            "the table inet portolan is there, but no `portolan up` runs",
            format!("{MEND} nft delete table inet portolan"),
        ));
    }
    let namespaces = Namespace::list_named("portolan-").unwrap_or_default();
    if !namespaces.is_empty() {
        findings.push(Finding::warn(
            format!("network namespaces are there, but no `portolan up` runs: {}", namespaces.join(", ")),
            format!("{MEND} ip netns delete NAME"),
        ));
    }
    let holders = holders();
    if !holders.is_empty() {
        let pids: Vec<_> = holders.iter().map(ToString::to_string).collect();
        findings.push(Finding::warn(
            format!("a holder of ports runs, but no `portolan up`: pid {}", pids.join(", ")),
            format!("{MEND} kill {}", pids.join(" ")),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("nothing is left from an earlier `portolan up`"));
    }
    findings
}

/// The lock of `portolan up` for this network namespace: an abstract unix socket.
fn data_plane_is_taken() -> bool {
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets.lines().any(|line| line.ends_with(" @portolan-dataplane"))
}

fn table_is_there() -> bool {
    let table = Table::new(Family::Inet, "portolan");
    let ruleset = Kernel::open().and_then(|mut kernel| kernel.dump(&table));
    ruleset.is_ok_and(|ruleset| ruleset.is_some())
}

/// Processes of this network namespace whose command line is `…/portolan holder …`. A holder never leaves the namespace
/// of its `up`, and those of other namespaces are not ours to judge.
fn holders() -> Vec<u32> {
    let Ok(here) = Namespace::current() else { return Vec::new() };
    let mut pids: Vec<u32> = process::processes_in_namespace(here.inode())
        .into_iter()
        .map(|process| process.pid)
        .filter(|pid| is_holder(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()))
        .collect();
    pids.sort_unstable();
    pids
}

fn is_holder(command_line: &[u8]) -> bool {
    let mut words = command_line.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    matches!(name, b"portolan" | b"portolan-cni") && words.any(|word| word == b"holder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_told_from_other_commands() {
        assert!(is_holder(b"/usr/bin/portolan\0holder\0--socket\0x\0"));
        assert!(is_holder(b"portolan\0--data\0/x\0holder\0"));
        assert!(is_holder(b"/opt/portolan-cni\0holder\0--socket\0x\0"));
        assert!(!is_holder(b"vim\0holder\0"));
        assert!(!is_holder(b"portolan\0up\0"));
        assert!(!is_holder(b""));
    }
}
