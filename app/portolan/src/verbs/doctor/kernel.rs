//! What the kernel can do, found out by doing it in a network namespace of its own, which goes away with all in it.

use std::net::{Ipv4Addr, SocketAddr};

use portolan_model::Protocol;
use portolan_netlink::{namespace::Namespace, sockdiag, sysctl};
use portolan_nft::{
    Chain, ChainKind, DataType, Family, Hook, Kernel, NatFlags, Nft, Rule, Set, Table, Transaction, Verb,
    matches, priority, statement,
};

use super::finding::Finding;
use crate::rights::Rights;

pub(super) fn look(rights: Rights) -> Vec<Finding> {
    let mut findings = Vec::new();
    if rights.all() {
        match Namespace::create().and_then(|namespace| namespace.run(features)) {
            Ok(features) => {
                findings.push(Finding::ok("network namespaces can be made"));
                findings.extend(features);
            }
            Err(error) => findings.push(Finding::fail(
                format!("network namespaces cannot be made: {error}"),
                "a kernel with CONFIG_NET_NS, and a container that may unshare; or `portolan up --no-dataplane`",
            )),
        }
    }
    findings.push(ipv6());
    // Only instances with networks of their own need it.
    findings.extend(rights.all().then(forwarding));
    findings.extend(reverse_path());
    findings.extend(Protocol::ALL.into_iter().filter_map(diagnosis));
    findings
}

/// Each feature in a transaction of its own, in the namespace of the calling thread.
fn features() -> Vec<Finding> {
    let mut kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(error) => return vec![Finding::fail(format!("nftables: {error}"), NO_NFTABLES)],
    };
    let mut base = transaction();
    base.add_table();
    if let Err(error) = kernel.run(&base) {
        return vec![Finding::fail(format!("nftables: {error}"), NO_NFTABLES)];
    }
    let mut findings = vec![Finding::ok("nftables can be written")];
    for (what, module, feature) in all() {
        findings.push(match kernel.run(&feature) {
            Ok(()) => Finding::ok(format!("nftables: {what}")),
            Err(error) => Finding::fail(
                format!("nftables: no {what}: {error}"),
                format!(
                    "load it (modprobe {module}) or use a kernel that has it; or `portolan up --no-dataplane`"
                ),
            ),
        });
    }
    findings
}

/// What the data plane is built of and this kernel does not have. Tried in the network namespace of the calling thread,
/// and nothing is left there: each feature is made and unmade in one transaction.
pub(crate) fn missing() -> Vec<String> {
    let mut kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(error) => return vec![format!("nftables: {error} ({NO_NFTABLES})")],
    };
    let tried = all().into_iter().map(|(what, module, mut feature)| {
        feature.delete_table();
        kernel
            .run(&feature)
            .err()
            .map(|error| format!("{what}: {error} (modprobe {module}, or a newer kernel)"))
    });
    tried.flatten().collect()
}

const NO_NFTABLES: &str =
    "load it (modprobe nf_tables) or use a kernel with CONFIG_NF_TABLES; or `portolan up --no-dataplane`";

fn transaction() -> Transaction {
    Transaction::new(Table::new(Family::Inet, "portolan-doctor"))
}

/// What the data plane is built of: a name, the kernel's module, and the smallest use of it.
fn all() -> Vec<(&'static str, &'static str, Transaction)> {
    let with = |rule: &dyn Fn(Rule) -> Rule, kind: ChainKind, hook: Hook| {
        let mut transaction = transaction();
        transaction.add_table();
        let name = format!("{}-{}", kind.as_str(), hook.as_str());
        let order = match hook {
            Hook::Postrouting => priority::SRCNAT,
            _ => priority::DSTNAT,
        };
        transaction.push(Verb::Add, Chain::base(name.clone(), kind, hook, order));
        transaction.push(Verb::Add, rule(Rule::new(name)));
        transaction
    };
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let mut intervals = transaction();
    intervals.add_table();
    let key = [DataType::InetProto, DataType::InetService];
    intervals.push(Verb::Add, Set::map("blocks", key, [DataType::Ipv4Addr]).interval());
    vec![
        (
            "address translation in the inet family",
            "nft_chain_nat nft_nat",
            with(
                &|rule| rule.then(matches::protocol(6)).then(statement::dnat_to(target)),
                ChainKind::Nat,
                Hook::Prerouting,
            ),
        ),
        (
            "masquerading",
            "nft_masq",
            with(
                &|rule| rule.then(statement::masquerade(NatFlags::default())),
                ChainKind::Nat,
                Hook::Postrouting,
            ),
        ),
        (
            "connection tracking",
            "nft_ct nf_conntrack",
            with(
                &|rule| rule.then(matches::ct_state_any(matches::ct_state::ESTABLISHED)),
                ChainKind::Filter,
                Hook::Forward,
            ),
        ),
        (
            "look-ups of local addresses (fib)",
            "nft_fib_inet",
            with(&|rule| rule.then(matches::destination_is_local()), ChainKind::Filter, Hook::Prerouting),
        ),
        ("maps of protocol and port ranges", "nft_set_pipapo (in nf_tables since Linux 5.6)", intervals),
    ]
}

fn ipv6() -> Finding {
    match sysctl::read("net/ipv6/conf/all/disable_ipv6").as_deref() {
        Ok("0") => Finding::ok("IPv6 is on"),
        Ok(_) => Finding::warn(
            "IPv6 is switched off: ports are reached by IPv4 only",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0",
        ),
        Err(_) => Finding::warn(
            "this kernel has no IPv6: ports are reached by IPv4 only",
            "boot without ipv6.disable=1",
        ),
    }
}

fn forwarding() -> Finding {
    let writable = rustix::fs::access("/proc/sys/net/ipv4/ip_forward", rustix::fs::Access::WRITE_OK).is_ok();
    match (sysctl::read("net/ipv4/ip_forward").as_deref(), writable) {
        (Ok("1"), _) => Finding::ok("IPv4 forwarding is on"),
        (_, true) => Finding::ok("IPv4 forwarding is off: `portolan up` turns it on while it runs"),
        (_, false) => Finding::warn(
            "IPv4 forwarding is off and cannot be turned on from here: instances with networks of their own are not reached",
            "sysctl -w net.ipv4.ip_forward=1 as root, on the host if this is a container",
        ),
    }
}

/// Strict reverse path filtering (RFC 3704) drops what comes in by another way than answers would go out.
fn reverse_path() -> Option<Finding> {
    let all = sysctl::read("net/ipv4/conf/all/rp_filter").ok()?;
    Some(match all.as_str() {
        "1" => Finding::warn(
            "rp_filter is strict: on a machine with several ways out, some clients get no answer",
            "with one way out leave it; with several: sysctl -w net.ipv4.conf.all.rp_filter=2",
        ),
        _ => Finding::ok(format!("rp_filter is {all}")),
    })
}

/// Whether the kernel tells who has which port.
fn diagnosis(protocol: Protocol) -> Option<Finding> {
    match sockdiag::bound(protocol, 1) {
        Ok(_) => None,
        // Few machines have SCTP; those who want it will see it.
        Err(error) if protocol == Protocol::Sctp => {
            tracing::debug!(%error, "no SCTP");
            None
        }
        Err(error) => Some(Finding::warn(
            format!("{protocol} sockets cannot be listed, so nobody can say who has a port: {error}"),
            format!("modprobe {protocol}_diag"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::doctor::finding::Level;

    #[test]
    fn this_kernel_has_what_the_data_plane_is_built_of() {
        portolan_testkit::need_root!();
        let findings = Namespace::create().unwrap().run(features).unwrap();
        assert_eq!(findings.len(), 1 + all().len(), "{findings:?}");
        assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:?}");
        let missing = Namespace::create().unwrap().run(missing).unwrap();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
