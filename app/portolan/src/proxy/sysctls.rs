//! The kernel's settings for connection tracking that kube-proxy makes (`pkg/proxy/conntrack/sysctls.go`).
//!
//! Each by itself, and none is needed: in a container without privileges they cannot be written, and
//! `nf_conntrack_max` belongs to the first network namespace only. What could not be set is told.

use std::time::Duration;

use portolan_netlink::sysctl;

use super::config::ConntrackConfig;

/// A node with many cores would reserve gigabytes.
const MOST: u64 = 1_048_576;
/// Hash buckets for each connection: as the kernel's own default of old.
const CONNECTIONS_PER_BUCKET: u64 = 4;
const HASH_SIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// Sets what differs. Answers what could not be set.
pub(crate) fn apply(config: &ConntrackConfig, cores: usize) -> Vec<String> {
    let mut failed = Vec::new();
    let mut set = |name: &str, value: u64| {
        let path = format!("net/netfilter/nf_conntrack_{name}");
        match sysctl::read(&path) {
            Ok(now) if now == value.to_string() => {}
            Err(error) => failed.push(error.to_string()),
            Ok(before) => match sysctl::write(&path, &value.to_string()) {
                Ok(()) => tracing::info!(setting = %path, %before, now = value, "set"),
                Err(error) => failed.push(error.to_string()),
            },
        }
    };
    let most = most(config, cores);
    if most > 0 {
        set("max", most);
    }
    let seconds = |duration: Duration| duration.as_secs();
    for (name, value) in [
        ("tcp_timeout_established", seconds(config.tcp_established)),
        ("tcp_timeout_close_wait", seconds(config.tcp_close_wait)),
        ("tcp_be_liberal", u64::from(config.tcp_be_liberal)),
        ("udp_timeout", seconds(config.udp)),
        ("udp_timeout_stream", seconds(config.udp_stream)),
    ] {
        if value > 0 {
            set(name, value);
        }
    }
    if most > 0 {
        failed.extend(hash_size(most));
    }
    failed
}

/// As many connections as the cores can be thought to need; 0 leaves the kernel's own number.
fn most(config: &ConntrackConfig, cores: usize) -> u64 {
    if config.max_per_core == 0 {
        return 0;
    }
    let scaled = u64::from(config.max_per_core) * cores as u64;
    if scaled > MOST { MOST } else { scaled.max(u64::from(config.min)) }
}

/// With more connections than four in a bucket each look-up gets slow.
fn hash_size(most: u64) -> Option<String> {
    let now: u64 = std::fs::read_to_string(HASH_SIZE).ok()?.trim().parse().ok()?;
    let wanted = most / CONNECTIONS_PER_BUCKET;
    if now >= wanted {
        return None;
    }
    match std::fs::write(HASH_SIZE, wanted.to_string()) {
        Ok(()) => {
            tracing::info!(setting = HASH_SIZE, before = now, now = wanted, "set");
            None
        }
        Err(error) => Some(format!("cannot set {HASH_SIZE} to {wanted}: {error}")),
    }
}

/// How unwilling the kernel is to kill us when memory is short.
pub(crate) fn oom_score(score: i32) -> Option<String> {
    let path = "/proc/self/oom_score_adj";
    let error = std::fs::write(path, score.to_string()).err()?;
    Some(format!("cannot set {path} to {score}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_connections_is_kube_proxys() {
        let config = |max_per_core, min| ConntrackConfig {
            max_per_core,
            min,
            tcp_established: Duration::ZERO,
            tcp_close_wait: Duration::ZERO,
            tcp_be_liberal: false,
            udp: Duration::ZERO,
            udp_stream: Duration::ZERO,
        };
        // max(per core x cores, min), at most 1 Mi, whatever min says; 0 leaves all as it is.
        for (per_core, min, cores, expected) in [
            (32_768, 131_072, 2, 131_072),
            (32_768, 131_072, 8, 262_144),
            (32_768, 131_072, 64, 1_048_576),
            (32_768, 2_000_000, 1, 2_000_000),
            (0, 131_072, 64, 0),
        ] {
            assert_eq!(most(&config(per_core, min), cores), expected, "{per_core} {min} {cores}");
        }
    }
}
