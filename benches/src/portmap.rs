//! The peer: the CNI portmap plugin, built from its Go module, called as a container runtime calls it.
//!
//! What it leaves in the kernel is in `plugins/meta/portmap/portmap_iptables.go` and `portmap_nftables.go` of
//! github.com/containernetworking/plugins v1.9.1: one chain and four rules for each container (iptables), or three
//! rules (nftables). [`Portmap::preload`] loads the same rules for many containers in one go, because the plugin
//! itself would need hours.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use portolan_model::{PortRange, Protocol, Protocols};
use portolan_testkit::programs;
use serde_json::json;

use crate::network::{CONTAINER_PORT, FIRST, INSTANCE, Network, other_instance, other_protocol};

const VERSION: &str = "1.9.1";
const PACKAGE: &str = "github.com/containernetworking/plugins/plugins/meta/portmap";

/// Which of its two back ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Its default.
    Iptables,
    /// Since 1.6.0.
    Nftables,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// A call of a CNI plugin that is ready to be made: what it takes is the plugin's.
pub(crate) struct Call {
    /// For errors.
    pub(crate) what: String,
    /// The plugin, with its environment.
    pub(crate) command: Command,
    /// The configuration.
    pub(crate) input: String,
}

impl Call {
    /// From the start of the process to its end.
    pub(crate) fn make(mut self) -> Result<()> {
        feed(&mut self.command, &self.input).context(self.what)
    }
}

/// The built plugin with one back end, working on a node.
#[derive(Debug)]
pub(crate) struct Portmap {
    plugin: PathBuf,
    backend: Backend,
}

impl Portmap {
    /// Builds the plugin unless it is in the cache; an error says what is missing.
    pub(crate) fn new(backend: Backend) -> Result<Self> {
        Ok(Self { plugin: build()?, backend })
    }

    /// The heading of its column.
    pub(crate) fn heading(&self) -> String {
        format!("portmap {VERSION}, {}", self.backend.name())
    }

    /// ADD of these ports for `container`.
    pub(crate) fn add(
        &self,
        network: &Network,
        container: &str,
        host: PortRange,
        protocols: Protocols,
    ) -> Result<()> {
        self.call(network, "ADD", container, host, protocols).make()
    }

    /// DEL of the same.
    pub(crate) fn del(
        &self,
        network: &Network,
        container: &str,
        host: PortRange,
        protocols: Protocols,
    ) -> Result<()> {
        self.call(network, "DEL", container, host, protocols).make()
    }

    /// One of them, ready to be made.
    pub(crate) fn call(
        &self,
        network: &Network,
        verb: &str,
        container: &str,
        host: PortRange,
        protocols: Protocols,
    ) -> Call {
        let ports = port_mappings(host, protocols);
        let config = json!({
            "cniVersion": "1.0.0",
            "name": "bench",
            "type": "portmap",
            "backend": self.backend.name(),
            "capabilities": { "portMappings": true },
            "runtimeConfig": { "portMappings": ports },
            "prevResult": {
                "cniVersion": "1.0.0",
                "interfaces": [{ "name": "eth0", "sandbox": network.instance.path() }],
                "ips": [{ "address": format!("{INSTANCE}/24"), "gateway": "10.213.0.1", "interface": 0 }],
            },
        });
        let mut command = Command::new(&self.plugin);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", network.instance.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", self.plugin.parent().unwrap_or(Path::new("/")));
        Call { what: format!("portmap {verb} of {container}"), command, input: config.to_string() }
    }

    /// Loads the rules of `count` containers with one port each, TCP and UDP in turn. The plugin must have made its chains already.
    pub(crate) fn preload(&self, count: u16) -> Result<()> {
        let text = match self.backend {
            Backend::Iptables => iptables_rules(count),
            Backend::Nftables => nftables_rules(count),
        };
        let mut command = match self.backend {
            Backend::Iptables => programs::command("iptables-restore", ["--noflush"]),
            Backend::Nftables => programs::command("nft", ["-f", "-"]),
        };
        feed(&mut command, &text).with_context(|| format!("preloading {count} containers"))
    }
}

/// What a runtime gives a plugin for these ports.
pub(crate) fn port_mappings(host: PortRange, protocols: Protocols) -> Vec<serde_json::Value> {
    let container = |port| if host.is_single() { CONTAINER_PORT } else { port };
    let one = |port, protocol: Protocol| json!({ "hostPort": port, "containerPort": container(port), "protocol": protocol.as_str() });
    host.iter().flat_map(|port| protocols.iter().map(move |protocol| one(port, protocol))).collect()
}

fn iptables_rules(count: u16) -> String {
    let mut text = String::from("*nat\n");
    for index in 0..count {
        let _ = writeln!(text, ":CNI-DN-{index:021x} - [0:0]");
    }
    for index in 0..count {
        let (chain, port) = (format!("CNI-DN-{index:021x}"), FIRST + index);
        let comment = format!("dnat name: \\\"bench\\\" id: \\\"other-{index}\\\"");
        let (address, protocol) = (other_instance(index), other_protocol(index).as_str());
        let _ = write!(
            text,
            "-A CNI-HOSTPORT-DNAT -p {protocol} -m comment --comment \"{comment}\" -m multiport --dports {port} -j {chain}\n\
             -A {chain} -s {address}/24 -p {protocol} -m {protocol} --dport {port} -j CNI-HOSTPORT-SETMARK\n\
             -A {chain} -s 127.0.0.1/32 -p {protocol} -m {protocol} --dport {port} -j CNI-HOSTPORT-SETMARK\n\
             -A {chain} -p {protocol} -m {protocol} --dport {port} -j DNAT --to-destination {address}:{CONTAINER_PORT}\n"
        );
    }
    text + "COMMIT\n"
}

fn nftables_rules(count: u16) -> String {
    let mut text = String::new();
    for index in 0..count {
        let (port, address, protocol) = (FIRST + index, other_instance(index), other_protocol(index));
        let _ = write!(
            text,
            "add rule ip cni_hostport hostports {protocol} dport {port} dnat to {address}:{CONTAINER_PORT} comment \"other-{index}\"\n\
             add rule ip cni_hostport masquerading ip saddr {address} ip daddr {address} masquerade comment \"other-{index}\"\n\
             add rule ip cni_hostport masquerading ip saddr 127.0.0.1 ip daddr {address} masquerade comment \"other-{index}\"\n"
        );
    }
    text
}

/// Builds the plugin into the cache of the user, outside of the tree.
fn build() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(std::env::temp_dir);
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let folder = cache.join("portolan/tools").join(format!("portmap-{VERSION}"));
    let plugin = folder.join("portmap");
    if plugin.is_file() {
        return Ok(plugin);
    }
    let go = programs::find("go")
        .or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.is_file()));
    let Some(go) = go else { bail!("portmap is left out: it is built with Go, which is not installed") };
    eprintln!("[building portmap {VERSION} into {}]", folder.display());
    let status = Command::new(go)
        .args(["install", &format!("{PACKAGE}@v{VERSION}")])
        .env("GOBIN", &folder)
        .env("CGO_ENABLED", "0")
        .current_dir(std::env::temp_dir())
        .status()
        .context("cannot start go")?;
    if !status.success() {
        bail!("portmap is left out: go install {PACKAGE}@v{VERSION} ended with {status}");
    }
    Ok(plugin)
}

/// Runs a program with this standard input; what it says is shown when it fails.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start")?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    // These programs read all of it before they say anything.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{}: {}", output.status, String::from_utf8_lossy(&said).trim());
    }
    written.context("writing to its standard input")
}
