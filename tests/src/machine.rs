//! A picture of what Portolan may change on a machine, to be compared before and after.

use std::{collections::BTreeMap, path::Path};

use portolan_testkit::{Portolan, programs};

/// Processes, namespaces, rules, links, routes and settings, as text by topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture(BTreeMap<&'static str, String>);

impl Picture {
    /// Looks at the machine now.
    #[track_caller]
    pub fn of(machine: &Portolan) -> Self {
        let say = |program: &str, words: &str| {
            let mut command = machine.observe(program);
            programs::run(command.args(words.split_whitespace()))
        };
        let setting = |path: &str| machine.namespace().read_sysctl(path);
        Self(BTreeMap::from([
            (
                "processes",
                machine.processes().into_iter().map(|(pid, command)| format!("{pid} {command}\n")).collect(),
            ),
            ("namespaces", say("ip", "netns list")),
            ("nftables", say("nft", "list ruleset")),
            ("links", say("ip", "-brief link")),
            ("addresses", say("ip", "-brief address")),
            ("routes", say("ip", "-4 route show table all")),
            ("IPv6 routes", say("ip", "-6 route show table main")),
            ("rules", say("ip", "rule")),
            ("bound ports", say("ss", "-Hlntu")),
            ("ip_local_reserved_ports", setting("net/ipv4/ip_local_reserved_ports")),
            ("ip_local_port_range", setting("net/ipv4/ip_local_port_range")),
            ("ip_forward", setting("net/ipv4/ip_forward")),
            ("IPv6 forwarding", setting("net/ipv6/conf/all/forwarding")),
            ("route_localnet", setting("net/ipv4/conf/all/route_localnet")),
            ("files outside of the data folder", files(machine.folder())),
        ]))
    }

    /// What is not as in `before`, in words.
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let changed = self.0.iter().filter(|(topic, now)| before.0.get(*topic) != Some(now));
        changed
            .map(|(topic, now)| {
                let then = before.0.get(topic).map(String::as_str).unwrap_or_default();
                format!("{topic}\n  before: {}\n  after:  {}", then.trim(), now.trim())
            })
            .collect()
    }

    /// Panics unless everything is as in `before`.
    #[track_caller]
    pub fn assert_same(&self, before: &Self) {
        let differences = self.differences(before);
        assert!(differences.is_empty(), "left behind:\n{}", differences.join("\n"));
    }
}

/// The files of the test's folder but for the data folder.
fn files(folder: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != "data")
        .collect();
    names.sort();
    names.join(" ")
}
