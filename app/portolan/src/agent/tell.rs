//! Tells a Pod and its clients which ports it has: a file for its containers, annotations, an Event.
//!
//! Environment and mount are put into containers by [`super::nri`]; the catalog follows in [`super::catalog`]. What is
//! written here is written again by [`super::reconcile`] when it is not as it should be.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
};

use portolan_kubernetes::{EventKind, PodFacts};
use portolan_model::{
    GALAXY_ANNOTATION, GalaxyPort, Incarnation, InstanceId, PortsStatus, PublishedPort, STATUS_ANNOTATION,
    environment,
};
use portolan_netlink::step;

use super::{Agent, directory::Entry};

/// The file's name in the Pod's folder, which containers have at [`super::inject::FOLDER`].
const FILE_NAME: &str = "ports.json";

/// Everybody learns of a Pod's ports. Nothing of it can fail the Pod: the ports are there.
pub(crate) async fn published(agent: &Arc<Agent>, entry: Entry, pod: Option<&PodFacts>) {
    let before = agent.directory.get(&entry.instance);
    if entry.asked > 0 {
        if let Err(error) = write(agent, &entry).await {
            tracing::warn!(instance = %entry.instance, %error, "cannot write the file of a Pod's ports");
        }
        tracing::info!(instance = %entry.instance, ports = %show(&entry.ports), "published");
    }
    agent.directory.put(entry.clone());
    if let Some(pod) = pod.filter(|_| entry.asked > 0) {
        annotate(agent, &entry, pod);
        // The same again, as of a runtime that asks twice, is no news.
        if before.is_none_or(|before| before.ports != entry.ports) {
            agent.cluster.event(
                pod,
                EventKind::Normal,
                "PortsPublished",
                "Publish",
                &sentence(agent, &entry),
            );
        }
    }
    agent.wake.notify_one();
}

/// The sandbox is gone, and with it what was there for it.
pub(crate) async fn gone(agent: &Arc<Agent>, instance: &InstanceId, life: &Incarnation) {
    if let Some(entry) = agent.directory.remove(instance, life) {
        agent.localhost.stop(instance).await;
        if entry.asked > 0 {
            tracing::info!(%instance, "its ports are free again");
        }
    }
    if let Some(folder) = folder(agent, life)
        && let Err(error) = tokio::fs::remove_dir_all(&folder).await
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "cannot remove");
    }
    agent.wake.notify_one();
}

/// Writes the annotations that the Pod does not have yet. Answers whether there were any.
pub(crate) fn annotate(agent: &Agent, entry: &Entry, pod: &PodFacts) -> bool {
    let mut wanted = BTreeMap::from([(STATUS_ANNOTATION.to_owned(), status(agent, entry).to_json())]);
    if entry.galaxy {
        let name = entry.instance.pod().map_or("", |pod| pod.name);
        let ports = GalaxyPort::all(&entry.ports, name, &entry.addresses);
        wanted.insert(GALAXY_ANNOTATION.to_owned(), GalaxyPort::to_json(&ports));
    }
    wanted.retain(|key, value| pod.annotations.get(key) != Some(value));
    let any = !wanted.is_empty();
    if any {
        agent
            .cluster
            .annotate(pod.key(), wanted.into_iter().map(|(key, value)| (key, Some(value))).collect());
    }
    any
}

/// What the annotation, the file and the self address say.
pub(crate) fn status(agent: &Agent, entry: &Entry) -> PortsStatus {
    PortsStatus { node: agent.config.node.clone(), addresses: agent.addresses(), ports: entry.ports.clone() }
}

/// The variables of a Pod's containers.
pub(crate) fn variables(agent: &Agent, entry: &Entry) -> Vec<(String, String)> {
    environment(&entry.ports, advertised(&agent.addresses()))
}

/// The address to advertise.
fn advertised(addresses: &[IpAddr]) -> IpAddr {
    addresses.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The file on the host, which is mounted into containers.
pub(crate) fn file(agent: &Agent, entry: &Entry) -> Option<PathBuf> {
    folder(agent, &entry.incarnation).map(|folder| folder.join(FILE_NAME))
}

/// A folder for each sandbox. `None` for an ID that is not one name: no runtime has such.
fn folder(agent: &Agent, life: &Incarnation) -> Option<PathBuf> {
    let name = life.as_str();
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    plain.then(|| agent.config.pods().join(name))
}

async fn write(agent: &Agent, entry: &Entry) -> io::Result<()> {
    let Some(file) = file(agent, entry) else { return Ok(()) };
    if let Some(folder) = file.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    step::reached("tell.folder");
    // A container may read at any time: it sees the whole file or none.
    let beside = file.with_extension("new");
    tokio::fs::write(&beside, status(agent, entry).to_json() + "\n").await?;
    step::reached("tell.file");
    tokio::fs::rename(&beside, &file).await
}

/// The ports for a log.
fn show(ports: &[PublishedPort]) -> String {
    let one = |port: &PublishedPort| format!("{}={}/{}", port.name, port.host, port.protocols);
    ports.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// The ports for people: `http at 203.0.113.7:20417 (tcp), …`.
fn sentence(agent: &Agent, entry: &Entry) -> String {
    let address = match advertised(&agent.addresses()) {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let one = |port: &PublishedPort| format!("{} at {address}:{} ({})", port.name, port.host, port.protocols);
    // An Event's note has 1,024 bytes at most (events.k8s.io/v1).
    let mut all: Vec<String> = entry.ports.iter().take(16).map(one).collect();
    if entry.ports.len() > all.len() {
        all.push(format!("and {} more", entry.ports.len() - all.len()));
    }
    all.join(", ")
}
