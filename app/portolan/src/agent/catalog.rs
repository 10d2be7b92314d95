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

#[cfg(test)]
mod tests {
    use portolan_kubernetes::OwnerFacts;

    use super::*;

    fn pod(namespace: &str, name: &str) -> PodFacts {
        PodFacts {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: "0123-4567-89ab".to_owned(),
            ..PodFacts::default()
        }
    }

    #[test]
    fn a_pod_has_one_label_of_its_own() {
        assert_eq!(name(&pod("default", "web-0")).unwrap().as_str(), "web-0");
        assert_eq!(name(&pod("games", "web-0")).unwrap().as_str(), "web-0-games");
        assert_eq!(name(&pod("default", "web.example")).unwrap().as_str(), "web-example");
        let long = name(&pod("default", &"x".repeat(80))).unwrap();
        assert!(long.as_str().len() <= 63 && long.as_str().ends_with("-01234567"), "{long}");
    }

    #[test]
    fn a_pod_of_a_deployment_is_a_copy_of_it() {
        let mut replica = pod("default", "web-6f7d-abcde");
        assert_eq!(service(&replica), None);
        let owner = |kind: &str, name: &str| {
            Some(OwnerFacts { kind: kind.to_owned(), name: name.to_owned(), uid: String::new() })
        };
        replica.owner = owner("ReplicaSet", "web-6f7d");
        replica.labels.insert("pod-template-hash".to_owned(), "6f7d".to_owned());
        assert_eq!(service(&replica).unwrap().as_str(), "web");
        replica.owner = owner("StatefulSet", "db");
        assert_eq!(service(&replica).unwrap().as_str(), "db");
    }
}
