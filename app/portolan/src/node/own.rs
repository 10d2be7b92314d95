//! Networks of instances' own: the namespace and the mappings that lead to it, made and unmade together.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::Context;
use portolan_apply::{DataPlane, PlanConfig, Stats};
use portolan_model::{Mapping, MappingKey, Name, Network};
use portolan_ports::Lease;
use portolan_sandbox::{Forwarding, SandboxConfig, Sandboxes};

use super::error::NodeError;

/// How namespaces and the table are to be.
#[derive(Clone, Debug)]
pub(crate) struct OwnConfig {
    /// Subnets and names.
    pub(crate) sandboxes: SandboxConfig,
    /// The table.
    pub(crate) plan: PlanConfig,
    /// What the instances' `resolv.conf` says.
    pub(crate) resolv_conf: String,
}

/// Namespaces, forwarding and the data plane.
pub(crate) struct OwnNetwork {
    sandboxes: Sandboxes,
    forwarding: Forwarding,
    dataplane: DataPlane,
    resolv_conf: PathBuf,
}

impl OwnNetwork {
    /// Makes the kernel agree with `leases`: removes namespaces that belong to none, remakes those that are missing,
    /// and maps the ports of all.
    pub(crate) fn open<'a>(
        config: &OwnConfig,
        data: &Path,
        leases: impl Iterator<Item = &'a Lease>,
    ) -> anyhow::Result<Self> {
        let leases: Vec<_> = leases.filter(|lease| lease.request.network == Network::Own).collect();
        let resolv_conf = data.join("resolv.conf");
        std::fs::write(&resolv_conf, &config.resolv_conf)
            .with_context(|| format!("writing {}", resolv_conf.display()))?;
        // First what fails on most machines that cannot do it, as nothing is to be undone then.
        let mappings = leases.iter().flat_map(|lease| lease.mappings()).collect();
        let dataplane = DataPlane::start(config.plan.clone(), mappings).context("starting the data plane")?;
        match networks(config, data, &leases) {
            Ok((sandboxes, forwarding)) => Ok(Self { sandboxes, forwarding, dataplane, resolv_conf }),
            Err(error) => {
                // Instances that live keep what they have, as after a crash.
                if leases.is_empty()
                    && let Err(error) = dataplane.stop()
                {
                    tracing::error!("not cleaned up: removing the nftables table: {error}");
                }
                Err(error)
            }
        }
    }

    /// Free addresses, the same for the same name as long as nobody else has them.
    pub(crate) fn choose_addresses(
        &self,
        name: &Name,
        used: &BTreeSet<IpAddr>,
    ) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), NodeError> {
        self.sandboxes.choose_addresses(name, used).map_err(|error| NodeError::Addresses(error.to_string()))
    }

    /// The namespace, then the mappings. On an error neither is left.
    pub(crate) fn connect(&mut self, lease: &Lease) -> Result<(), NodeError> {
        let name = &named(lease)?;
        self.sandboxes
            .create(name, lease.request.v4, lease.request.v6)
            .map_err(|error| NodeError::Sandbox { name: name.clone(), source: Box::new(error) })?;
        let mapped = self.dataplane.change(Vec::new(), lease.mappings());
        if mapped.is_err()
            && let Err(error) = self.sandboxes.destroy(name)
        {
            tracing::warn!(instance = %name, %error, "cannot remove the namespace of a lease that failed");
        }
        mapped.map_err(|error| NodeError::DataPlane { name: name.clone(), source: Box::new(error) })
    }

    /// The mappings, then the namespace with all that still runs in it. Goes on after a failure and reports the first.
    pub(crate) fn disconnect(&mut self, lease: &Lease) -> Result<(), NodeError> {
        let name = &named(lease)?;
        let keys: Vec<MappingKey> = lease.mappings().iter().map(Mapping::key).collect();
        let unmapped = self.dataplane.change(keys, Vec::new());
        let destroyed = self.sandboxes.destroy(name);
        unmapped.map_err(|error| NodeError::DataPlane { name: name.clone(), source: Box::new(error) })?;
        destroyed.map_err(|error| NodeError::Sandbox { name: name.clone(), source: Box::new(error) })
    }

    /// The namespace's file.
    pub(crate) fn namespace(&self, name: &Name) -> String {
        self.sandboxes.path(name).display().to_string()
    }

    /// What is mounted over `/etc/resolv.conf` inside.
    pub(crate) fn resolv_conf(&self) -> &Path {
        &self.resolv_conf
    }

    /// How the data plane does.
    pub(crate) fn stats(&self) -> Stats {
        self.dataplane.stats()
    }

    /// Removes the table and puts the kernel's settings back. Returns what failed.
    pub(crate) fn close(self) -> Vec<String> {
        let mut failures = Vec::new();
        if let Err(error) = self.dataplane.stop() {
            failures.push(format!("removing the nftables table: {error}"));
        }
        if let Err(error) = self.sandboxes.close() {
            failures.push(format!("removing the gateways' addresses: {error}"));
        }
        if let Err(error) = self.forwarding.restore() {
            failures.push(format!("putting forwarding settings back: {error}"));
        }
        if let Err(error) = std::fs::remove_file(&self.resolv_conf) {
            failures.push(format!("removing {}: {error}", self.resolv_conf.display()));
        }
        failures
    }
}

/// A namespace has the instance's name.
fn named(lease: &Lease) -> Result<Name, NodeError> {
    let instance = &lease.request.instance;
    instance.as_name().ok_or_else(|| NodeError::NoName(instance.clone()))
}

/// The namespaces of `leases` and no others, on a machine that forwards. On an error the machine's settings are as they
/// were.
fn networks(config: &OwnConfig, data: &Path, leases: &[&Lease]) -> anyhow::Result<(Sandboxes, Forwarding)> {
    let sandboxes = Sandboxes::open(config.sandboxes.clone()).context("opening the instances' namespaces")?;
    let wanted: BTreeSet<Name> = leases.iter().filter_map(|lease| lease.request.instance.as_name()).collect();
    let mend = || {
        for name in sandboxes.list().context("listing the instances' namespaces")? {
            if !wanted.contains(&name) {
                tracing::info!(instance = %name, "removing a namespace that belongs to nobody");
                if let Err(error) = sandboxes.destroy(&name) {
                    tracing::warn!(instance = %name, %error, "cannot remove everything of it");
                }
            }
        }
        for lease in leases {
            let request = &lease.request;
            let Some(name) = request.instance.as_name() else { continue };
            if let Err(error) = sandboxes.ensure(&name, request.v4, request.v6) {
                tracing::error!(instance = %request.instance, %error, "cannot mend its network");
            }
        }
        Forwarding::open(&data.join("sysctls.json")).context("letting this machine forward packets")
    };
    match mend() {
        Ok(forwarding) => Ok((sandboxes, forwarding)),
        Err(error) => {
            if let Err(error) = sandboxes.close() {
                tracing::error!("not cleaned up: the gateways' addresses: {error}");
            }
            Err(error)
        }
    }
}
