//! The runtime's other side: containers get their ports in the environment and as a file, and Pods on the host network
//! get ports at all, since no CNI plugin is called for them.
//!
//! The runtime asks under a lock for the whole node, so what is not ours is answered at once ([`Handler::concerns`]),
//! and nothing here waits for the API server longer than the watch takes to tell of a Pod.

use std::{path::Path, sync::Arc, time::Duration};

use portolan_attach::Wish;
use portolan_kubernetes::{EventKind, PodFacts};
use portolan_model::{Incarnation, InstanceId, Network, Owner, PodRef};
use portolan_nri::{Container, ContainerAdjustment, Event, Events, Handler, PodSandbox};
use portolan_ports::Lease;

use super::{
    Agent,
    asks::asks,
    directory::Entry,
    inject, tell,
    wanted::{Outcome, wanted},
};

/// How long a Pod on the host network may hold up the node. The runtime gives up after 2 s and goes on without us.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What the runtime talks to.
pub(crate) struct Runtime(pub(crate) Arc<Agent>);

impl Handler for Runtime {
    fn events(&self) -> Events {
        Events::none()
            .with(Event::RunPodSandbox)
            .with(Event::CreateContainer)
            .with(Event::StartContainer)
            .with(Event::StopPodSandbox)
            .with(Event::RemovePodSandbox)
    }

    fn concerns(&self, pod: &PodSandbox) -> bool {
        asks(&pod.annotations)
    }

    async fn synchronize(&self, pods: Vec<PodSandbox>, containers: Vec<Container>) {
        let agent = &self.0;
        // The sandboxes that exist are the truth for Pods on the host network.
        let known: Vec<String> = pods.iter().map(|pod| pod.id.clone()).collect();
        let gone = agent.engine.call(move |attach| {
            let sandbox = |owner: &Owner| match owner {
                Owner::Sandbox { id } => Some(id.clone()),
                _ => None,
            };
            let leases = attach
                .leases()
                .filter(|lease| sandbox(&lease.request.owner).is_some_and(|id| !known.contains(&id)));
            let gone: Vec<_> = leases
                .map(|lease| (lease.request.instance.clone(), lease.request.incarnation.clone()))
                .collect();
            gone.into_iter()
                .filter(|(instance, life)| attach.detach(instance, life).is_ok())
                .collect::<Vec<_>>()
        });
        for (instance, life) in gone.await.unwrap_or_default() {
            tracing::info!(%instance, "its sandbox is gone: its ports are free again");
            tell::gone(agent, &instance, &life).await;
        }
        for pod in pods.iter().filter(|pod| asks(&pod.annotations)) {
            let of_pod = || containers.iter().filter(|container| container.pod == pod.id);
            if of_pod().next().is_some() && of_pod().all(|c| c.variable("PORTOLAN_PORTS").is_none()) {
                let entry = key(pod).and_then(|instance| agent.directory.get(&instance));
                if entry.is_some_and(|entry| entry.asked > 0 && entry.environment) {
                    tracing::warn!(
                        pod = %format!("{}/{}", pod.namespace, pod.name),
                        "it was started while this agent was away and does not know its ports: restart it"
                    );
                }
            }
        }
    }

    async fn run_pod_sandbox(&self, pod: PodSandbox) -> Result<(), String> {
        if !pod.host_network {
            return Ok(());
        }
        publish_soon(&self.0, &pod).await
    }

    async fn stop_pod_sandbox(&self, pod: PodSandbox) {
        release(&self.0, &pod).await;
    }

    async fn remove_pod_sandbox(&self, pod: PodSandbox) {
        release(&self.0, &pod).await;
    }

    async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<ContainerAdjustment, String> {
        let agent = &self.0;
        if pod.host_network && entry(agent, &pod).is_none() {
            // Its sandbox was made while no agent was there.
            publish_soon(agent, &pod).await?;
        }
        let Some(entry) = entry(agent, &pod).filter(|entry| entry.asked > 0 && entry.environment) else {
            return Ok(ContainerAdjustment::default());
        };
        let file = tell::file(agent, &entry).filter(|file| file.exists());
        let folder = file.as_deref().and_then(Path::parent);
        Ok(inject::adjustment(tell::variables(agent, &entry), folder, &container))
    }

    async fn start_container(&self, pod: PodSandbox, container: Container) {
        let Some(entry) = entry(&self.0, &pod).filter(|entry| entry.network == Network::Host) else { return };
        // Init containers come first, and the ports are not theirs. `containers` is what serves.
        let facts = self.0.cluster.known(&pod.namespace, &pod.name);
        let serves = |facts: &PodFacts| facts.containers.iter().any(|known| known.name == container.name);
        if facts.as_deref().is_none_or(serves) {
            let instance = entry.instance.clone();
            let given_up = self.0.engine.call(move |attach| attach.give_up_hold(&instance)).await;
            if let Ok(Err(error)) = given_up {
                tracing::warn!(instance = %entry.instance, %error, "cannot let go of the ports for it to bind");
            }
        }
    }
}

/// The Pod, if it is this life of it that has ports.
fn entry(agent: &Agent, pod: &PodSandbox) -> Option<Entry> {
    let entry = agent.directory.get(&key(pod)?)?;
    (entry.incarnation.as_str() == pod.id).then_some(entry)
}

fn key(pod: &PodSandbox) -> Option<InstanceId> {
    InstanceId::of_pod(&pod.namespace, &pod.name, "eth0").ok()
}

/// [`publish`], as long as the runtime waits. What comes of it after that is taken back when the runtime says that
/// the sandbox it failed is gone.
async fn publish_soon(agent: &Arc<Agent>, pod: &PodSandbox) -> Result<(), String> {
    match tokio::time::timeout(PATIENCE, publish(agent, pod)).await {
        Ok(done) => done,
        Err(_) => Err("the API server does not tell of the Pod in time: it is tried again".to_owned()),
    }
}

/// Ports for a Pod on the host network: chosen and held, and nothing mapped.
async fn publish(agent: &Arc<Agent>, pod: &PodSandbox) -> Result<(), String> {
    let reference =
        PodRef { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: Some(pod.uid.clone()) };
    let outcome = wanted(agent, &reference, Some(&pod.annotations), Network::Host).await;
    let Some(Outcome { facts, wanted }) = outcome.map_err(|error| error.to_string())? else { return Ok(()) };
    let refuse = |reason: &str, message: String| {
        if let Some(facts) = &facts {
            agent.cluster.event(facts, EventKind::Warning, reason, "Publish", &message);
        }
        message
    };
    let wanted = wanted.map_err(|refusal| refuse("PortsRefused", refusal.to_string()))?;
    let (Some(instance), Some(incarnation)) = (key(pod), Incarnation::new(pod.id.as_str())) else {
        return Err(format!("the sandbox {:?} has no ID that can be kept", pod.id));
    };
    let wish = Wish {
        instance: instance.clone(),
        incarnation: incarnation.clone(),
        owner: Owner::Sandbox { id: pod.id.clone() },
        requests: wanted.requests,
        network: Network::Host,
        v4: None,
        v6: None,
        local: Vec::new(),
        attachment: None,
    };
    let attached = agent.engine.call(move |attach| attach.attach(wish)).await.map_err(|e| e.to_string())?;
    let lease = attached.map_err(|error| refuse("PortsFailed", error.to_string()))?;
    let entry = Entry {
        instance,
        incarnation,
        network: Network::Host,
        // The node's addresses are those of every such Pod.
        addresses: Vec::new(),
        asked: lease.ports.len(),
        ports: lease.ports,
        environment: wanted.ask.environment,
        galaxy: false,
    };
    tell::published(agent, entry, facts.as_deref()).await;
    Ok(())
}

async fn release(agent: &Arc<Agent>, pod: &PodSandbox) {
    let (Some(instance), Some(life)) = (key(pod), Incarnation::new(pod.id.as_str())) else { return };
    let (key, of_life) = (instance.clone(), life.clone());
    // The engine is asked and not the directory: what was given to a Pod whose runtime did not wait for it is before
    // us in the queue, and nowhere else. Ports of other Pods are the CNI plugin's to take back.
    let released = agent.engine.call(move |attach| {
        let of_host = |lease: &Lease| matches!(lease.request.owner, Owner::Sandbox { .. });
        let ours = attach.get(&key).is_some_and(of_host) && attach.has(&key, &of_life);
        if ours { attach.detach(&key, &of_life).map(|()| true) } else { Ok(false) }
    });
    match released.await {
        Ok(Ok(true)) => tell::gone(agent, &instance, &life).await,
        Ok(Ok(false)) => {}
        Ok(Err(error)) => tracing::error!(%instance, %error, "cannot take back its ports; trying again"),
        Err(_) => {}
    }
}
