//! Whether the machine's own resolver answers: instances ask it for every name that is not Portolan's.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::rr::{Name, RecordType};

use super::finding::Finding;
use crate::verbs::resolve::ask::ask;

/// A resolver that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn look() -> Vec<Finding> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = servers(&text);
    let Some(first) = servers.first() else {
        return vec![Finding::warn(
            "/etc/resolv.conf names no server: instances find Portolan's names only",
            "add a line such as: nameserver 192.0.2.53",
        )];
    };
    // The root is what every resolver knows.
    let root = Name::root();
    for server in &servers {
        let answer = ask(SocketAddr::new(*server, 53), &root, RecordType::NS);
        if matches!(tokio::time::timeout(PATIENCE, answer).await, Ok(Ok(_))) {
            return vec![Finding::ok(format!("the resolver {server} answers"))];
        }
    }
    vec![Finding::warn(
        format!(
            "no resolver of /etc/resolv.conf answers ({first} is the first): instances find Portolan's names only"
        ),
        "see whether the machine has a network, and UDP port 53 is let through",
    )]
}

/// The three servers that resolv.conf(5) allows.
fn servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        // An IPv6 address may name its interface: fe80::1%eth0.
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        address.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_resolver_reads_them() {
        let text = "# nameserver 192.0.2.9\nsearch x\nnameserver 192.0.2.1\nnameserver\tfe80::1%eth0\nnameserver x\n";
        assert_eq!(servers(text), ["192.0.2.1".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }
}
