//! Finding what there is of sandboxes, and removing it: also what a crash left, also only a part.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use portolan_model::Name;
use portolan_netlink::{
    namespace::Namespace,
    process::{PidIdentity, processes_in_namespace},
    route::Rtnl,
};
use rustix::process::Signal;

use crate::{SandboxError, Sandboxes, config::LINK_PREFIX, sandboxes::Found};

/// How long killed processes may take to end. What waits for a device cannot be killed; it must not hold us up.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before looking again whether they have ended.
const PAUSE: Duration = Duration::from_millis(2);

impl Sandboxes {
    /// The instances of which there is anything: a namespace, whole or half made, or a link on the host.
    pub fn list(&self) -> Result<Vec<Name>, SandboxError> {
        let mut found = BTreeSet::new();
        let prefix = &self.config.prefix;
        let mut add = |text: &str| {
            // What has our prefix and no possible name after it is not ours.
            found.extend(text.strip_prefix(prefix).and_then(|name| Name::new(name).ok()));
        };
        for name in self.names.list(prefix).map_err(|error| SandboxError::Read(error.into()))? {
            add(&name);
        }
        // A link without the name of its namespace: a process in it keeps both.
        let links = Rtnl::open().and_then(|rtnl| rtnl.links());
        for link in links.map_err(|error| SandboxError::Read(error.into()))? {
            if link.name.starts_with(LINK_PREFIX)
                && let Some(alias) = link.alias
            {
                add(&alias);
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Removes the network of an instance: the processes that are still inside are killed, then the link with its
    /// addresses and routes goes, then the namespace. Does nothing when there is none. Goes on after a failure and
    /// reports all.
    pub fn destroy(&self, name: &Name) -> Result<(), SandboxError> {
        let mut failures = Vec::new();
        let namespace = self.namespace(name);
        match self.names.open(&namespace) {
            Ok(open) => failures.extend(kill_all(&open).err()),
            Err(error) if error.is_absent() => {}
            Err(error) => failures.push(error.to_string()),
        }
        let link = Rtnl::open().and_then(|rtnl| match self.find_link(&rtnl, name)? {
            Found::Ours(link) => rtnl.delete_link(&link.name),
            Found::Free(_) | Found::Taken(_) => Ok(false),
        });
        failures.extend(link.err().map(|error| error.to_string()));
        failures.extend(self.names.delete(&namespace).err().map(|error| error.to_string()));
        if failures.is_empty() {
            tracing::debug!(instance = %name, "removed the instance's network");
            return Ok(());
        }
        Err(SandboxError::Destroy { name: name.clone(), failures })
    }

    /// Takes the gateways' addresses off this machine, unless there are sandboxes left which need them. To be called
    /// at the end; after a crash the next [`Sandboxes::open`] takes them over.
    pub fn close(self) -> Result<(), SandboxError> {
        if !self.list()?.is_empty() {
            return Ok(());
        }
        let read = |error: portolan_netlink::route::RouteError| SandboxError::Read(error.into());
        let rtnl = Rtnl::open().map_err(read)?;
        let Some(loopback) = rtnl.links().map_err(read)?.into_iter().find(|link| link.loopback) else {
            return Ok(());
        };
        let removed: Vec<_> = self
            .config
            .gateways()
            .map(|gateway| rtnl.delete_address(loopback.index, gateway.into()))
            .collect();
        removed.into_iter().try_for_each(|result| result.map(drop)).map_err(read)
    }
}

/// Kills every process in the namespace and waits until none is left. Looks again after each round, as a process may
/// have had a child meanwhile.
fn kill_all(namespace: &Namespace) -> Result<(), String> {
    let here = Namespace::current().map_err(|error| error.to_string())?;
    if here.inode() == namespace.inode() {
        return Err("it is this process's own namespace, whose processes are not killed".to_owned());
    }
    let deadline = Instant::now() + PATIENCE;
    let mut refused = None;
    loop {
        let inside = processes_in_namespace(namespace.inode());
        if inside.is_empty() {
            return Ok(());
        }
        for process in &inside {
            if let Err(error) = process.signal(Signal::KILL) {
                refused = Some(error);
            }
        }
        if Instant::now() >= deadline {
            let pids: Vec<_> = inside.iter().map(|PidIdentity { pid, .. }| pid.to_string()).collect();
            let why = refused.map_or_else(String::new, |error| format!(" ({error})"));
            return Err(format!("processes {} in it do not end{why}", pids.join(", ")));
        }
        thread::sleep(PAUSE);
    }
}
