//! The network of a cluster: namespaces on one bridge, which is in a namespace itself.
//!
//! ```text
//!   control 10.240.0.2   node1 10.240.0.11   node2 10.240.0.12   client 10.240.0.100
//!         └──────────────────┴──── br0 in lan ───┴──────────────────────┘
//! ```
//! Nothing of it is in the machine's own network namespace, so that clusters live side by side.

use std::{
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command,
    layout::{CLIENT_V4, CLIENT_V6, CONTROL_V4, CONTROL_V6, Layout, POD_NETWORKS, node_addresses, node_name},
};

/// Makes the bridge, the control plane's namespace and the client's.
pub(crate) fn make(layout: &Layout) -> Result<()> {
    let lan = layout.network_namespace("lan");
    add_namespace(&lan)?;
    command::ip(&format!("-n {lan} link add br0 type bridge"))?;
    command::ip(&format!("-n {lan} link set br0 up"))?;
    host(layout, "control", CONTROL_V4, CONTROL_V6)?;
    host(layout, "client", CLIENT_V4, CLIENT_V6)
}

/// Makes the namespace of a node, from new.
pub(crate) fn make_node(layout: &Layout, node: usize) -> Result<()> {
    let name = node_name(node);
    let (v4, v6) = node_addresses(node);
    remove_namespace(&layout.network_namespace(&name))?;
    host(layout, &name, v4, v6)?;
    let namespace = layout.network_namespace(&name);
    command::ip(&format!("-n {namespace} route add default via {CONTROL_V4}"))?;
    command::ip(&format!("-n {namespace} -6 route add default via {CONTROL_V6}"))?;
    sysctl(&namespace, &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
    // Pods know each other's addresses; outside of the Pods' networks a Pod has its node's address.
    let [v4, v6] = POD_NETWORKS;
    nft(
        &namespace,
        &format!(
            "table inet cluster_masquerade {{ chain postrouting {{ type nat hook postrouting priority srcnat; \
             ip saddr {v4} ip daddr != {v4} oifname eth0 masquerade; \
             ip6 saddr {v6} ip6 daddr != {v6} oifname eth0 masquerade; }}; }}"
        ),
    )
}

/// Routes the Pods of `node` to it, in the namespace of `part`.
pub(crate) fn route_pods(layout: &Layout, part: &str, node: usize, networks: &[String]) -> Result<()> {
    if part == node_name(node) {
        return Ok(());
    }
    let (v4, v6) = node_addresses(node);
    let namespace = layout.network_namespace(part);
    for network in networks {
        let words = match network.contains(':') {
            true => format!("-n {namespace} -6 route replace {network} via {v6}"),
            false => format!("-n {namespace} route replace {network} via {v4}"),
        };
        command::ip(&words)?;
    }
    Ok(())
}

/// A namespace with `eth0` on the bridge.
fn host(layout: &Layout, part: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    let (namespace, lan) = (layout.network_namespace(part), layout.network_namespace("lan"));
    add_namespace(&namespace)?;
    // The other end of a removed namespace's pair goes a moment later than the namespace.
    let _ = command::ip(&format!("-n {lan} link del {part}"));
    // A machine has the same card after a reboot: its neighbours would ask for a new one only when they have waited for
    // the old one in vain, up to a minute.
    let [_, b, c, d] = v4.octets();
    let card = format!("02:0a:00:{b:02x}:{c:02x}:{d:02x}");
    command::ip(&format!(
        "-n {lan} link add {part} type veth peer name eth0 address {card} netns {namespace}"
    ))?;
    command::ip(&format!("-n {lan} link set {part} master br0 up"))?;
    command::ip(&format!("-n {namespace} addr add {v4}/24 dev eth0"))?;
    command::ip(&format!("-n {namespace} -6 addr add {v6}/64 dev eth0 nodad"))?;
    command::ip(&format!("-n {namespace} link set eth0 up"))?;
    Ok(())
}

fn add_namespace(namespace: &str) -> Result<()> {
    command::ip(&format!("netns add {namespace}"))?;
    command::ip(&format!("-n {namespace} link set lo up"))?;
    Ok(())
}

/// The network namespaces of the cluster that exist.
pub(crate) fn namespaces(layout: &Layout) -> Vec<String> {
    let prefix = layout.network_namespace("");
    let files = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    // `a` must not take the namespaces of `a-b`: what follows the prefix is a part's name.
    let part = |name: &str| {
        let rest = name.strip_prefix(&prefix)?;
        let node = rest.strip_prefix("node").is_some_and(|number| number.parse::<usize>().is_ok());
        (node || matches!(rest, "lan" | "control" | "client")).then_some(())
    };
    names.filter(|name| part(name).is_some()).collect()
}

/// Removes a namespace with what runs in it; one that does not exist is fine.
pub(crate) fn remove_namespace(namespace: &str) -> Result<()> {
    if !std::path::Path::new("/run/netns").join(namespace).exists() {
        return Ok(());
    }
    let pids = command::ip(&format!("netns pids {namespace}")).unwrap_or_default();
    pids.lines().filter_map(|pid| pid.trim().parse().ok()).for_each(crate::cgroup::kill);
    command::ip(&format!("netns del {namespace}"))?;
    Ok(())
}

fn sysctl(namespace: &str, settings: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command::run(command.args(["netns", "exec", namespace, "sysctl", "-qw"]).args(settings))?;
    Ok(())
}

fn nft(namespace: &str, rules: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "nft", "-f", "-"]);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start ip")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(rules.as_bytes()).context("cannot write to nft")?;
    }
    let output = child.wait_with_output().context("cannot wait for nft")?;
    if !output.status.success() {
        bail!("nft in {namespace}: {}", command::said(&output));
    }
    Ok(())
}
