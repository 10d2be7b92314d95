//! What this process may do: the capabilities(7) that networks of instances' own need.

/// The capabilities that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Rules, routes, links.
    pub(crate) net_admin: bool,
    /// Namespaces and mounts.
    pub(crate) sys_admin: bool,
}

/// Bits of the capability sets (`include/uapi/linux/capability.h`).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

impl Rights {
    /// Those of this process, from `/proc/self/status`. Being root says little: in a container it has few of them.
    pub(crate) fn own() -> Self {
        Self::read(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    pub(crate) fn read(status: &str) -> Self {
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let set = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
        let has = |bit: u32| set & (1 << bit) != 0;
        Self { net_admin: has(CAP_NET_ADMIN), sys_admin: has(CAP_SYS_ADMIN) }
    }

    /// Whether instances can have networks of their own.
    pub(crate) const fn all(self) -> bool {
        self.net_admin && self.sys_admin
    }

    /// What is missing for that, in words.
    pub(crate) const fn missing(self) -> Option<&'static str> {
        match (self.net_admin, self.sys_admin) {
            (true, true) => None,
            (false, false) => Some("CAP_NET_ADMIN and CAP_SYS_ADMIN"),
            (false, true) => Some("CAP_NET_ADMIN"),
            (true, false) => Some("CAP_SYS_ADMIN"),
        }
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
