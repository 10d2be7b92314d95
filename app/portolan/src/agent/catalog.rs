//! The Pods with ports in a registry: there while they are ready.
//!
//! A [`Keeper`] for each holds the registration, whatever happens to the registry. What it says is compared with what
//! it should say each time the cluster or the leases change.

use std::{collections::HashMap, sync::Arc};

use portolan_client::{Client, Keeper};
use portolan_kubernetes::PodFacts;
use portolan_model::{InstanceId, InstancePort, Name, Registration};

use super::{Agent, directory::Entry};

/// The registrations of this node's Pods.
pub(crate) struct Catalog {
    client: Client,
    kept: HashMap<InstanceId, (Registration, Keeper)>,
}

impl Catalog {
    /// Nothing registered yet.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, kept: HashMap::new() }
    }

    /// Registers, changes and takes out, so that it is as the Pods are.
    pub(crate) async fn follow(&mut self, agent: &Arc<Agent>) {
        let mut wanted: HashMap<InstanceId, Registration> = HashMap::new();
        for entry in agent.directory.select(|entry| entry.asked > 0) {
            let Some(pod) = entry.instance.pod().filter(|pod| pod.interface == "eth0") else { continue };
            let Some(facts) = agent.cluster.known(pod.namespace, pod.name) else { continue };
            // Without a word from the API server a Pod stays as it was said last.
            if facts.ready
                && !facts.terminating
                && let Some(registration) = registration(agent, &entry, &facts)
            {
                wanted.insert(entry.instance.clone(), registration);
            }
        }
        let gone: Vec<InstanceId> =
            self.kept.keys().filter(|instance| !wanted.contains_key(*instance)).cloned().collect();
        for instance in gone {
            if let Some((_, keeper)) = self.kept.remove(&instance) {
                // It may take seconds when the registry is away, and nothing has to wait for it.
                tokio::spawn(keeper.leave());
            }
        }
        for (instance, registration) in wanted {
            match self.kept.get_mut(&instance) {
                Some((said, keeper)) if said.incarnation == registration.incarnation => {
                    if *said != registration {
                        keeper.update(registration.clone());
                        *said = registration;
                    }
                }
                _ => {
                    let keeper = Keeper::start(self.client.clone(), registration.clone());
                    self.kept.insert(instance, (registration, keeper));
                }
            }
        }
    }

    /// Ends without taking anybody out.
    pub(crate) fn leave_as_it_is(self) {
        std::mem::drop(self.kept);
    }
}

fn registration(agent: &Agent, entry: &Entry, pod: &PodFacts) -> Option<Registration> {
    let port = |port: &portolan_model::PublishedPort| InstancePort {
        name: port.name.clone(),
        protocols: port.protocols,
        port: port.host,
        container: (port.container != port.host.first()).then_some(port.container),
    };
    let labels = [("namespace", pod.namespace.clone()), ("pod", pod.name.clone())];
    Some(Registration {
        incarnation: Some(entry.incarnation.clone()),
        service: service(pod),
        node: Some(agent.config.node.clone()),
        addresses: agent.addresses(),
        ports: entry.ports.iter().take(entry.asked).map(port).collect(),
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        ..Registration::new(name(pod)?)
    })
}

/// One label of a DNS name for a Pod: its name, and its namespace too unless that is `default`. What is too long ends
/// with the Pod's UID, so that two that begin alike stay two.
fn name(pod: &PodFacts) -> Option<Name> {
    let text = match pod.namespace.as_str() {
        "default" => pod.name.clone(),
        namespace => format!("{}-{namespace}", pod.name),
    };
    if text.len() <= 63 {
        return Name::sanitized(&text);
    }
    let short: String = pod.uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    let begin: String = text.chars().take(54).collect();
    Name::sanitized(&format!("{begin}-{short}"))
}

/// The workload: the Deployment of a ReplicaSet, otherwise whatever controls the Pod.
fn service(pod: &PodFacts) -> Option<Name> {
    let owner = pod.owner.as_ref()?;
    let name = match (owner.kind.as_str(), pod.labels.get("pod-template-hash")) {
        ("ReplicaSet", Some(hash)) => owner.name.strip_suffix(hash.as_str())?.trim_end_matches('-'),
        _ => owner.name.as_str(),
    };
    Name::sanitized(name)
}
