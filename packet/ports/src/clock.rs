//! Time that no administrator, NTP or leap second can change.
//!
//! Quarantine and the memory of former ports are counted in CLOCK_BOOTTIME: it does not jump when the wall clock is
//! set, goes on while the machine sleeps, and is the same for every process until the next boot. So a restart of
//! `up` continues where it was. After a reboot all times of before are unknown, and what was in quarantine begins
//! anew: longer than needed by at most one quarantine, never shorter.

use std::{fs, time::Duration};

use serde::{Deserialize, Serialize};

/// Which boot of the machine a time belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boot(String);

impl Boot {
    /// This one (`/proc/sys/kernel/random/boot_id`, random(4)).
    ///
    /// Where it cannot be read every start counts as a boot of its own, which is safe: see above.
    pub fn current() -> Self {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self(id.map_or_else(|_| format!("unknown-{}", std::process::id()), |id| id.trim().to_owned()))
    }
}

/// Time since boot, sleep included (clock_gettime(2), CLOCK_BOOTTIME).
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs().try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_clock_for_all_processes_until_the_next_boot() {
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((since_boot().as_secs_f64() - uptime).abs() < 5.0);
        assert_eq!(Boot::current(), Boot::current());
    }
}
