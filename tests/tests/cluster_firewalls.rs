//! Others who reload their firewall on a real node: Pods keep their ports, and others their rules.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use portolan_cluster::{Node, need_cluster};
use portolan_testkit::need_root;
use portolan_tests::cluster::{Echo, Space, installed};

/// One at a time, since all of it is on one node.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn rules_that_somebody_flushes_come_back() {
    need_root!();
    let (cluster, _alone) = (need_cluster!(), alone());
    installed(cluster);
    let space = Space::new(cluster, "flushed");
    let node = cluster.node(1);
    let echo = Echo::start(&space, &node);
    // Of the node, which has a network namespace of its own: as a firewall that is loaded anew.
    let tables = node.run(["nft", "list", "tables"]).unwrap_or_default();
    assert!(tables.contains("portolan"), "{tables}");
    for table in tables.lines().filter(|table| table.contains("portolan")) {
        let words: Vec<&str> = ["nft", "delete"].into_iter().chain(table.split_whitespace()).collect();
        node.run(&words).unwrap_or_else(|error| panic!("{error:#}"));
    }
    echo.connect();
}

#[test]
fn a_firewall_that_is_reloaded_takes_no_port_away_and_finds_its_tables_as_it_left_them() {
    need_root!();
    let (cluster, _alone) = (need_cluster!(), alone());
    installed(cluster);
    let space = Space::new(cluster, "firewall");
    let node = cluster.node(1);
    let echo = Echo::start(&space, &node);
    let connection = echo.connect();
    let nft = |words: &[&str]| {
        let all: Vec<&str> = ["nft"].into_iter().chain(words.iter().copied()).collect();
        node.run(&all).unwrap_or_else(|error| panic!("{error:#}"))
    };
    // As firewalld's: chains of every hook, a set, and a policy; and what iptables-nft writes, which has no atomic reload.
    let _removed = Removed(&node);
    nft(&[FIREWALL]);
    let iptables = |words: &str| {
        let all: Vec<&str> =
            ["iptables-nft", "-w", "-t", "mangle"].into_iter().chain(words.split(' ')).collect();
        node.run(&all).unwrap_or_else(|error| panic!("{error:#}"))
    };
    iptables("-A PREROUTING -p tcp --dport 9 -j ACCEPT");
    let file = "/tmp/firewall.nft";
    let tables = || nft(&["list", "tables"]).lines().map(str::to_owned).collect::<Vec<_>>();
    let foreign = |flags: &[&str]| -> BTreeMap<String, String> {
        let of_others =
            tables().into_iter().filter_map(|line| line.strip_prefix("table ").map(str::to_owned));
        let show = |table: String| {
            let words: Vec<&str> = table.split(' ').collect();
            let text = nft(&[flags, &["list", "table"], &words].concat());
            (table, text)
        };
        of_others.filter(|table| !table.contains("portolan")).map(show).collect()
    };
    // kube-proxy writes its own all the time; nft shows rules of iptables with blanks of its own.
    let known = || -> BTreeMap<String, Vec<String>> {
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
        let all = foreign(&["-s"]).into_iter().filter(|(table, _)| !table.contains("kube-proxy"));
        all.map(|(table, text)| (table, words(text))).collect()
    };
    for round in 0..3 {
        let before = known();
        assert!(before.contains_key("inet firewall") && before.contains_key("ip mangle"), "{before:?}");
        let ruleset = node.root().join(file.trim_start_matches('/'));
        std::fs::write(
            &ruleset,
            format!("flush ruleset\n{}", foreign(&[]).into_values().collect::<String>()),
        )
        .unwrap_or_else(|e| panic!("{e}"));
        match round {
            // In one transaction, as the service nftables does; in two, as firewalld did before 2.0.
            0 => drop(nft(&["-f", file])),
            1 => {
                nft(&["flush", "ruleset"]);
                nft(&["-f", file]);
            }
            // And one that knows each of its tables.
            _ => {
                nft(&["delete", "table", "inet", "firewall"]);
                nft(&[FIREWALL]);
                iptables("-F PREROUTING");
                iptables("-A PREROUTING -p tcp --dport 9 -j ACCEPT");
            }
        }
        echo.is_back_within(Duration::from_secs(1));
        Echo::over(&connection, "still").unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(known(), before, "round {round}");
    }
}

/// Takes the firewall away again.
struct Removed<'a>(&'a Node<'a>);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _ = self.0.exec(["nft", "delete table inet firewall"]);
        let _ = self.0.exec(["iptables-nft", "-w", "-t", "mangle", "-F", "PREROUTING"]);
    }
}

/// A table that lets everything through and is none of ours.
const FIREWALL: &str = "table inet firewall { \
    set trusted { type ipv4_addr; elements = { 192.0.2.77, 192.0.2.78 }; }; \
    chain prerouting { type nat hook prerouting priority dstnat + 10; policy accept; ip saddr 192.0.2.99 tcp dport 7 redirect to :9; }; \
    chain input { type filter hook input priority filter + 10; policy accept; ip saddr @trusted accept; tcp dport 9 reject; }; \
    chain forward { type filter hook forward priority filter + 10; policy accept; ct state invalid drop; }; \
    chain postrouting { type nat hook postrouting priority srcnat + 10; policy accept; }; }";
