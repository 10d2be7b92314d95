//! What this process may do: capabilities(7), and how many files it may open.

use rustix::process::{Resource, getrlimit};

use super::finding::Finding;
use crate::rights::Rights;

/// How many sockets a small node holds: below this even a demo is cramped.
const FEW_FILES: u64 = 1024;

pub(super) fn look(rights: Rights) -> Vec<Finding> {
    let rights = match rights.missing() {
        None => Finding::ok("privileges: CAP_NET_ADMIN and CAP_SYS_ADMIN"),
        Some(missing) => Finding::warn(
            format!("privileges: no {missing}, so instances run on the host's network"),
            "run as root for networks of their own; without it `run` has --network host",
        ),
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
