//! Compares what is with what should be, at the start, every few seconds and when the cluster says that something has
//! changed. There is no other recovery: what a crash, a lost message or a busy API server left undone is found here.
//!
//! | what | compared with |
//! | --- | --- |
//! | leases | the namespaces and sandboxes that exist (the engine's `reap`) |
//! | holds, rules, reserved ports | the leases (`maintain`; the data plane watches its rules by itself) |
//! | the engine's pools, the sources they admit | the PortPools |
//! | what random choices avoid | the static host ports of the other Pods |
//! | networks without translation | the Nodes' Pod networks and the Service networks |
//! | annotations of Pods | the leases |
//! | the Node's resources | the pools |

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use portolan_kubernetes::{Change, EventKind, PodFacts};
use portolan_model::{InstanceId, Name, Network, Owner, PortRequest, Protocol, STATUS_ANNOTATION};
use portolan_ports::Lease;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Agent, asks, catalog::Catalog, directory::Entry, overlaps, plan, pools, tell};

/// How often everything is compared, whatever anybody says.
const EVERY: Duration = Duration::from_secs(5);
/// How often the owners of leases are looked at: a Pod that was killed without DEL gives its ports back that soon.
const REAP: Duration = Duration::from_secs(1);
/// The shortest time between two rounds: sixty Pods that start at once are one change.
const CALM: Duration = Duration::from_millis(100);

/// Goes round until `stop`.
pub(crate) async fn run(agent: Arc<Agent>, mut catalog: Option<Catalog>, stop: CancellationToken) {
    let (mut every, mut owners) = (interval(EVERY), interval(REAP));
    for timer in [&mut every, &mut owners] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut changes = agent.cluster.changes();
    let mut state = State::default();
    loop {
        let change = async {
            match &mut changes {
                Some(changes) => changes.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            _ = owners.tick() => { reap(&agent).await; continue }
            _ = every.tick() => full_round(&agent, &mut state).await,
            // Of leases there is nothing to compare: whoever changed them has told it.
            () = agent.wake.notified() => {}
            changed = change => match changed {
                Some(changed) => follow_cluster(&agent, &changed, &mut state).await,
                None => changes = None,
            }
        }
        agent.localhost.follow(&agent).await;
        if let Some(catalog) = &mut catalog {
            catalog.follow(&agent).await;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(CALM) => {}
        }
    }
    if let Some(catalog) = catalog {
        // Its Pods run on, and so do their registrations: the next agent renews them.
        catalog.leave_as_it_is();
    }
}

/// What was done the last time.
#[derive(Debug, Default)]
struct State {
    said: overlaps::Said,
    avoided: Vec<(Protocol, u16)>,
}

/// What the cluster says has changed: only that.
async fn follow_cluster(agent: &Arc<Agent>, changed: &BTreeSet<Change>, state: &mut State) {
    if !agent.cluster.is_known() {
        return;
    }
    let of_pod = |change: &Change| match change {
        Change::Pod { namespace, name } => Some((namespace.clone(), name.clone())),
        _ => None,
    };
    if changed.contains(&Change::Everything) {
        tell_all(agent, &agent.cluster.pods());
    } else {
        let pods = changed.iter().filter_map(of_pod);
        let pods: Vec<_> =
            pods.filter_map(|(namespace, name)| agent.cluster.known(&namespace, &name)).collect();
        tell_all(agent, &pods);
    }
    avoid_statics(agent, state).await;
    if changed.iter().any(|change| of_pod(change).is_none()) {
        follow_pools(agent).await;
        follow_networks(agent).await;
    }
}

/// Everything.
async fn full_round(agent: &Arc<Agent>, state: &mut State) {
    let maintained = agent.engine.call(move |attach| {
        attach.maintain();
        let leases: Vec<Lease> = attach.leases().cloned().collect();
        (attach.usage(String::new()), leases, attach.unheld().count())
    });
    let Ok((usage, leases, unheld)) = maintained.await else { return };
    agent.metrics.unheld.set(i64::try_from(unheld).unwrap_or(i64::MAX));
    agree_on_leases(agent, &leases).await;
    // What is not known is not changed: an agent that starts while the API server is away leaves all as it finds it.
    if agent.cluster.is_known() {
        follow_pools(agent).await;
        follow_networks(agent).await;
        avoid_statics(agent, state).await;
        capacity(agent, &usage.pools, &leases);
        tell_all(agent, &agent.cluster.pods());
        overlaps::look(agent, &agent.cluster.static_ports(), &leases, &mut state.said).await;
    }
}

/// Random choices keep away from the static host ports of this node's Pods.
async fn avoid_statics(agent: &Arc<Agent>, state: &mut State) {
    let statics = agent.cluster.static_ports();
    let mut now: Vec<_> = statics.iter().map(|port| (port.protocol, port.port)).collect();
    now.sort_unstable();
    if now != state.avoided {
        state.avoided.clone_from(&now);
        // The agent is ending otherwise.
        let _ = agent.engine.call(move |attach| attach.avoid(now)).await;
    }
}

/// The rules have the networks and sources that the cluster says. Nothing is done when they have them already.
async fn follow_networks(agent: &Arc<Agent>) {
    let plan = plan::plan(agent);
    if let Ok(Err(error)) = agent.engine.call(move |attach| attach.set_plan(plan)).await {
        tracing::error!(%error, "cannot change the packet rules; trying again");
    }
}

/// Takes back what belongs to namespaces that are gone.
async fn reap(agent: &Arc<Agent>) {
    let Ok(gone) = agent.engine.call(|attach| attach.reap()).await else { return };
    for lease in gone {
        tell::gone(agent, &lease.request.instance, &lease.request.incarnation).await;
    }
}

/// The engine has the pools that the cluster says.
async fn follow_pools(agent: &Arc<Agent>) {
    let now = pools::pools(agent.cluster.pools(), &agent.config.pools, agent.config.quarantine);
    if !agent.set_pools(now.clone()) {
        return;
    }
    let names: Vec<&str> = now.iter().map(|pool| pool.name.as_str()).collect();
    tracing::info!(pools = %names.join(","), "the pools of this node");
    match pools::of_ports(&now) {
        Ok(pools) => {
            let changed = agent.engine.call(move |attach| attach.set_pools(pools)).await;
            if let Ok(Err(error)) = changed {
                tracing::error!(%error, "cannot change the pools; trying again");
                agent.forget_pools();
            }
        }
        Err(error) => tracing::warn!("{error}: Pods that ask get no ports on this node"),
    }
}

/// The directory knows the leases that are, and no others. A missed message is the only way to anything else.
async fn agree_on_leases(agent: &Arc<Agent>, leases: &[Lease]) {
    let alive: BTreeSet<_> = leases.iter().map(|l| (&l.request.instance, &l.request.incarnation)).collect();
    for entry in agent.directory.select(|entry| !alive.contains(&(&entry.instance, &entry.incarnation))) {
        // An ADD that has finished since the leases were listed is there as well.
        let (instance, life) = (entry.instance.clone(), entry.incarnation.clone());
        let still = agent.engine.call(move |attach| attach.has(&instance, &life)).await;
        if matches!(still, Ok(false)) {
            tell::gone(agent, &entry.instance, &entry.incarnation).await;
        }
    }
    for lease in leases.iter().filter(|lease| agent.directory.get(&lease.request.instance).is_none()) {
        let (instance, life) = (lease.request.instance.clone(), lease.request.incarnation.clone());
        let still = agent.engine.call(move |attach| attach.has(&instance, &life)).await;
        if matches!(still, Ok(true)) {
            recover(agent, std::slice::from_ref(lease));
        }
    }
}

/// Annotations of the Pods that have ports, and no more those of Pods whose sandbox has ended.
fn tell_all(agent: &Agent, pods: &[Arc<PodFacts>]) {
    for pod in pods.iter().filter(|pod| !pod.terminating) {
        let Ok(instance) = InstanceId::of_pod(&pod.namespace, &pod.name, "eth0") else { continue };
        match agent.directory.get(&instance) {
            Some(entry) if entry.asked > 0 && !pod.phase.is_finished() => {
                tell::annotate(agent, &entry, pod);
            }
            None if pod.annotations.contains_key(STATUS_ANNOTATION) => {
                let gone = BTreeMap::from([(STATUS_ANNOTATION.to_owned(), None)]);
                agent.cluster.annotate(pod.key(), gone);
            }
            _ => {}
        }
    }
}

/// What the scheduler may count on: the numbers that are free or soon are, and those of the Pods that have asked for
/// some. The quarantined ones are among them, or each Pod that goes would take its numbers from the Node for that time:
/// the scheduler sends the next Pod as soon as one is gone, and kubelet, which may have heard of the smaller Node first,
/// would fail it for ever (`OutOf…`). So it waits here for its number, which says why.
fn capacity(agent: &Agent, usage: &[portolan_model::PoolUsage], leases: &[Lease]) {
    let Some(kubernetes) = agent.cluster.kubernetes() else { return };
    let mut wanted: BTreeMap<Name, u32> = BTreeMap::new();
    for pool in agent.pools().iter() {
        let free = usage
            .iter()
            .find(|usage| usage.name == pool.name)
            .map_or(0, |usage| usage.free + usage.quarantined);
        let asked = leases.iter().flat_map(|lease| &lease.request.requests);
        // Only requests of annotations have the name of a pool.
        let asked = asked.filter(|request| request.pool.as_ref() == Some(&pool.name));
        let asked: u32 = asked.map(|request| u32::from(request.count)).sum();
        wanted.insert(pool.name.clone(), free + asked);
    }
    kubernetes.capacity.set(wanted);
}

/// What the leases that an agent before us has left say of their Pods.
pub(crate) fn recover(agent: &Agent, leases: &[Lease]) {
    for lease in leases {
        let request = &lease.request;
        let facts = request.instance.pod().and_then(|pod| agent.cluster.known(pod.namespace, pod.name));
        agent.directory.put(entry(lease, facts.as_deref()));
    }
    for lease in leases.iter().filter(|lease| matches!(lease.request.owner, Owner::Sandbox { .. })) {
        tracing::debug!(instance = %lease.request.instance, "its runtime will say whether it is there");
    }
}

/// A directory entry out of a lease.
fn entry(lease: &Lease, facts: Option<&PodFacts>) -> Entry {
    let request = &lease.request;
    let pairs = || lease.ports.iter().zip(&request.requests);
    let of_annotation = pairs().filter(|(_, asked)| !of_runtime(asked)).map(|(port, _)| port.clone());
    let runtimes = pairs().filter(|(_, asked)| of_runtime(asked)).map(|(port, _)| port.clone());
    let mut ports: Vec<_> = of_annotation.collect();
    let asked = ports.len();
    ports.extend(runtimes);
    let ask = facts.and_then(|facts| asks::requests(facts).ok().flatten()).map(|(ask, _)| ask);
    let addresses = [request.v4.map(Into::into), request.v6.map(Into::into)];
    Entry {
        instance: request.instance.clone(),
        incarnation: request.incarnation.clone(),
        network: request.network,
        addresses: addresses.into_iter().flatten().filter(|_| request.network == Network::Own).collect(),
        ports,
        asked,
        environment: ask.as_ref().is_none_or(|ask| ask.environment),
        galaxy: ask.as_ref().is_some_and(|ask| ask.galaxy),
    }
}

/// Whether a request is one of the runtime's `portMappings`: those of annotations have the name of their pool, or one
/// that the Pod gave them.
fn of_runtime(request: &PortRequest) -> bool {
    let named = |protocol, container| request.name.as_str().starts_with(&format!("{protocol}-{container}"));
    let protocol = request.protocols.iter().next();
    request.pool.is_none()
        && protocol.zip(request.container).is_some_and(|(p, container)| named(p, container))
}

/// An Event on the Node, and a line in the log.
pub(crate) fn warn_node(agent: &Agent, reason: &str, message: &str) {
    tracing::warn!("{message}");
    agent.cluster.node_event(&agent.config.node, EventKind::Warning, reason, "Check", message);
}
