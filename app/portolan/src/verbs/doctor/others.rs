//! Other firewalls: a packet passes only when no chain of any table drops it, so theirs matter as much as ours.

use portolan_netlink::{Bus, NetlinkError, Socket, message::Message};
use portolan_nft::{Family, Hook};

use super::finding::Finding;
use crate::rights::Rights;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN` (include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h).
const GET_CHAIN: u16 = 10 << 8 | 4;
/// `struct nfgenmsg`: family (any), version, resource.
const ANY_FAMILY: [u8; 4] = [0; 4];
/// `NFTA_CHAIN_TABLE`, `NFTA_CHAIN_NAME`, `NFTA_CHAIN_HOOK`, `NFTA_CHAIN_POLICY`.
const TABLE: u16 = 1;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const POLICY: u16 = 5;
/// `NFTA_HOOK_HOOKNUM`.
const HOOK_NUMBER: u16 = 1;
/// `NF_DROP`.
const DROP: u32 = 0;

/// A chain which the kernel calls and which drops what no rule of it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Dropping {
    family: Family,
    table: String,
    chain: String,
    hook: Hook,
}

pub(super) fn look(rights: Rights) -> Vec<Finding> {
    let mut findings = Vec::new();
    if rights.net_admin {
        match dropping() {
            Ok(chains) if chains.is_empty() => {
                findings.push(Finding::ok("no other table drops packets by policy"));
            }
            Ok(chains) => findings.extend(chains.iter().map(tell)),
            Err(error) => findings.push(Finding::warn(
                format!("other tables cannot be read: {error}"),
                "see `nft list ruleset` for chains with policy drop",
            )),
        }
    }
    // The older interface has rules of its own, which nft does not show.
    let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if !legacy.trim().is_empty() {
        let tables = legacy.split_whitespace().collect::<Vec<_>>().join(", ");
        findings.push(Finding::warn(
            format!("iptables-legacy has tables here: {tables}"),
            "iptables-legacy -S FORWARD shows whether it drops; it must accept what comes to instances",
        ));
    }
    findings
}

fn tell(chain: &Dropping) -> Finding {
    let Dropping { family, table, chain, hook } = chain;
    let place = format!("{} {table} {chain}", family.as_str());
    match hook {
        Hook::Forward => Finding::warn(
            format!(
                "the chain {place} drops forwarded packets by policy: instances with own networks are not reached"
            ),
            format!("let mapped connections pass: nft insert rule {place} ct status dnat accept"),
        ),
        hook => Finding::warn(
            format!("the chain {place} drops packets at {} by policy", hook.as_str()),
            format!(
                "let the pool pass: nft insert rule {place} meta l4proto {{ tcp, udp }} th dport 20000-29999 accept"
            ),
        ),
    }
}

/// Base chains of all tables but ours that drop by policy on the way in.
fn dropping() -> Result<Vec<Dropping>, NetlinkError> {
    let socket = Socket::open(Bus::Netfilter)?;
    let write = |writer: &mut portolan_netlink::message::MessageWriter| writer.raw(&ANY_FAMILY);
    socket.dump(GET_CHAIN, write, Vec::new, |chains, message| chains.extend(read(message)))
}

fn read(message: &Message<'_>) -> Option<Dropping> {
    let family = Family::from_number(*message.payload.first()?)?;
    let attributes = message.attributes(ANY_FAMILY.len());
    let (table, chain) = (attributes.find(TABLE)?.str()?, attributes.find(NAME)?.str()?);
    let hook = Hook::from_number(family, attributes.find(HOOK)?.nested().find(HOOK_NUMBER)?.be32()?)?;
    let drops = attributes.find(POLICY)?.be32()? == DROP;
    let way_in = matches!(hook, Hook::Prerouting | Hook::Input | Hook::Forward);
    let inet = matches!(family, Family::Inet | Family::Ip | Family::Ip6);
    let ours = family == Family::Inet && table == "portolan";
    (drops && way_in && inet && !ours).then(|| Dropping {
        family,
        table: table.to_owned(),
        chain: chain.to_owned(),
        hook,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_netlink::namespace::Namespace;
    use portolan_nft::{Chain, ChainKind, Kernel, Nft, Policy, Table, Transaction, Verb};

    #[test]
    fn a_chain_that_drops_is_found_with_the_rule_that_helps() {
        portolan_testkit::need_root!();
        let found = Namespace::create().unwrap().run(|| {
            let mut transaction = Transaction::new(Table::new(Family::Ip, "filter"));
            transaction.add_table();
            let chain = |name: &str, hook| Chain::base(name, ChainKind::Filter, hook, 0);
            transaction.push(Verb::Add, chain("FORWARD", Hook::Forward).policy(Policy::Drop));
            transaction.push(Verb::Add, chain("INPUT", Hook::Input));
            Kernel::open().unwrap().run(&transaction).unwrap();
            dropping()
        });
        let found = found.unwrap().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        let mend = tell(&found[0]).mend.unwrap();
        assert!(mend.ends_with("nft insert rule ip filter FORWARD ct status dnat accept"), "{mend}");
    }
}
