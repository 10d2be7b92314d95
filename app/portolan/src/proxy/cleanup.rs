//! `portolan proxy --cleanup`, and what a proxy before us has left.
//!
//! Only our own table is ours to take. Of others it is said that they are there and how they go; the tables of a
//! kube-proxy in nftables mode, which are its own alone, go if that is asked for. Rules of its other modes are among
//! everybody's iptables rules: `kube-proxy --cleanup` knows which ones.

use std::{io::Write as _, process::ExitCode};

use anyhow::Context;
use portolan_apply::ServicePlane;
use portolan_cli::ProxyArgs;
use portolan_netlink::route::Rtnl;
use portolan_nft::{Family, Kernel, Nft as _, Table, Transaction};

/// The tables of kube-proxy in nftables mode (`pkg/proxy/nftables/proxier.go`).
const KUBE_PROXY: &str = "kube-proxy";
/// Chains of kube-proxy in iptables and IPVS mode.
const CHAINS: [&str; 3] = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING"];

/// Takes our table away, and those of kube-proxy if it is to. Also after a crash, and also twice.
pub(crate) fn main(args: &ProxyArgs) -> anyhow::Result<ExitCode> {
    if std::os::unix::net::UnixStream::connect(&args.socket).is_ok() {
        anyhow::bail!(
            "a proxy runs and would write its rules again: end it first (it answers at {})",
            args.socket.display()
        );
    }
    // One that was killed leaves it.
    let _ = std::fs::remove_file(&args.socket);
    let mut nft = Kernel::open().context("opening nftables")?;
    let ours = Table::new(Family::Inet, &args.table);
    let mut out = std::io::stdout().lock();
    let tables = nft.tables().context("listing tables")?;
    // Not by equality: a table has a comment and flags too.
    if tables.iter().any(|table| table.family == ours.family && table.name == ours.name) {
        ServicePlane::remove_table(&args.table)
            .with_context(|| format!("removing the table inet {}", args.table))?;
        writeln!(out, "removed the table inet {}", args.table)?;
    } else {
        writeln!(out, "there is no table inet {}", args.table)?;
    }
    if args.cleanup_kube_proxy {
        for table in remove_kube_proxy(&mut nft)? {
            writeln!(out, "removed the table {table} of kube-proxy")?;
        }
    }
    for line in others(&mut nft)? {
        writeln!(out, "{line}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// At the start, when our own rules are in place: from then on every packet finds ours.
pub(crate) fn kube_proxy(ours: &str) -> anyhow::Result<()> {
    let mut nft = Kernel::open().context("opening nftables")?;
    for table in remove_kube_proxy(&mut nft)? {
        tracing::info!(%table, instead = ours, "the table of kube-proxy is removed: connections go on");
    }
    for line in others(&mut nft)? {
        tracing::warn!("{line}");
    }
    Ok(())
}

fn remove_kube_proxy(nft: &mut Kernel) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    let tables = nft.tables().context("listing tables")?;
    for table in tables.into_iter().filter(is_kube_proxys) {
        let name = format!("{} {}", table.family, table.name);
        let mut transaction = Transaction::new(table);
        transaction.destroy_table();
        nft.run(&transaction).with_context(|| format!("removing the table {name} of kube-proxy"))?;
        removed.push(name);
    }
    Ok(removed)
}

fn is_kube_proxys(table: &Table) -> bool {
    table.name == KUBE_PROXY && matches!(table.family, Family::Ip | Family::Ip6)
}

/// Whose other rules for Services are there, and how they go.
pub(crate) fn others(nft: &mut Kernel) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for table in nft.tables().context("listing tables")? {
        let name = format!("{} {}", table.family, table.name);
        if is_kube_proxys(&table) {
            found.push(format!(
                "kube-proxy's table {name} is there (mode nftables): `portolan proxy --cleanup --cleanup-kube-proxy` or \
                 `kube-proxy --cleanup` removes it"
            ));
            continue;
        }
        // iptables-nft keeps its rules in tables of the old names.
        let old = matches!(table.family, Family::Ip | Family::Ip6)
            && matches!(table.name.as_str(), "nat" | "filter");
        if !old {
            continue;
        }
        // Rules with matches of iptables may not be readable; then only their own tools know.
        let Ok(Some(shape)) = nft.dump_shape(&table) else { continue };
        if shape.chains.iter().any(|filled| CHAINS.contains(&filled.chain.name.as_str())) {
            found.push(format!(
                "kube-proxy's chains are in the table {name} (mode iptables or ipvs): `kube-proxy --cleanup` removes them"
            ));
        }
    }
    if legacy_names().iter().any(|name| name == "nat") {
        found.push(
            "iptables-legacy has a table nat, which cannot be looked into: if `iptables-legacy -t nat -S` shows chains \
             KUBE-…, `kube-proxy --cleanup` removes them"
                .to_owned(),
        );
    }
    if let Ok(door) = Rtnl::open()
        && matches!(door.link("kube-ipvs0"), Ok(Some(_)))
    {
        found.push(
            "kube-proxy's interface kube-ipvs0 is there (mode ipvs), which takes the addresses of Services before any rule \
             does: `kube-proxy --cleanup` removes it"
                .to_owned(),
        );
    }
    Ok(found)
}

fn legacy_names() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
