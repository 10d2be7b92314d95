//! What `/etc/resolv.conf` says inside a sandbox.

use std::{fmt::Write as _, net::IpAddr};

/// The resolver reads no more name servers than this (`MAXNS`, resolv.conf(5)).
const NAME_SERVERS: usize = 3;

/// The text of a `resolv.conf` (resolv.conf(5)) with these name servers, which are asked on port 53, and with the
/// domains in which short names are looked up. Mounting it over `/etc/resolv.conf` is left to who starts the process.
pub fn resolv_conf(name_servers: impl IntoIterator<Item = IpAddr>, search: &[&str]) -> String {
    let mut text = String::from("# Written by Portolan for the instances' own networks.\n");
    for server in name_servers.into_iter().take(NAME_SERVERS) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SandboxConfig;

    #[test]
    fn it_names_the_gateways_and_the_zone() {
        let text = resolv_conf(SandboxConfig::default().gateways(), &["portolan.internal"]);
        assert_eq!(
            text,
            "# Written by Portolan for the instances' own networks.\n\
             nameserver 10.213.0.1\nnameserver fd70:6f72:746f::1\nsearch portolan.internal\n"
        );
        let many = (1..9).map(|n| IpAddr::from([192, 0, 2, n]));
        assert_eq!(resolv_conf(many, &[]).lines().count(), 4);
    }
}
