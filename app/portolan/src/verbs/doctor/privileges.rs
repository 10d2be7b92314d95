//! What this process may do: capabilities(7), and how many files it may open.

use rustix::process::{Resource, getrlimit};

use super::finding::Finding;

/// The capabilities that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    /// Rules, routes, links.
    pub(super) net_admin: bool,
    /// Namespaces and mounts.
    pub(super) sys_admin: bool,
}

/// Bits of the capability sets (`include/uapi/linux/capability.h`).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

impl Rights {
    /// Those of this process, from `/proc/self/status`.
    pub(super) fn own() -> Self {
        Self::read(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn read(status: &str) -> Self {
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let set = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
        let has = |bit: u32| set & (1 << bit) != 0;
        Self { net_admin: has(CAP_NET_ADMIN), sys_admin: has(CAP_SYS_ADMIN) }
    }

    /// Whether instances can have networks of their own.
    pub(super) const fn all(self) -> bool {
        self.net_admin && self.sys_admin
    }
}

/// How many sockets a small node holds: below this even a demo is cramped.
const FEW_FILES: u64 = 1024;

pub(super) fn look(rights: Rights) -> Vec<Finding> {
    let rights = match (rights.net_admin, rights.sys_admin) {
        (true, true) => Finding::ok("privileges: CAP_NET_ADMIN and CAP_SYS_ADMIN"),
        (net, sys) => {
            let missing = match (net, sys) {
                (false, false) => "CAP_NET_ADMIN and CAP_SYS_ADMIN",
                (false, true) => "CAP_NET_ADMIN",
                _ => "CAP_SYS_ADMIN",
            };
            Finding::warn(
                format!("privileges: no {missing}, so instances run on the host's network"),
                "run as root for networks of their own; without it `run` has --network host",
            )
        }
    };
    vec![rights, files()]
}

/// The holder of ports keeps one open file for each held port and protocol.
fn files() -> Finding {
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < FEW_FILES => Finding::warn(
            format!("open files: {limit} at most, and each held port is one"),
            "raise the limit: ulimit -Hn 1048576, or LimitNOFILE= of a systemd unit",
        ),
        Some(limit) => Finding::ok(format!("open files: {limit} at most")),
        None => Finding::ok("open files: no limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_from_the_effective_set() {
        let both = Rights::read("CapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n");
        assert!(both.all());
        let net = Rights::read("CapEff:\t0000000000001000\n");
        assert!(net.net_admin && !net.sys_admin);
        assert_eq!(Rights::read(""), Rights { net_admin: false, sys_admin: false });
    }
}
