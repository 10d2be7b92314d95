//! What the plugin asks, one by one: ADD, DEL, CHECK, GC, STATUS.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::Arc,
    time::Instant,
};

use ipnet::IpNet;
use portolan_attach::{AttachError, Wish};
use portolan_cni::code;
use portolan_kubernetes::EventKind;
use portolan_model::{
    AddRequest, AgentReply, AgentRequest, Attachment, Incarnation, InstanceId, Network, Owner, PodRef,
    PublishedPort, StaticPort,
};
use portolan_netlink::step;
use portolan_ports::owner;

use super::{
    Agent,
    directory::Entry,
    engine::Ended,
    tell,
    wanted::{Outcome, Wanted, wanted},
};

/// Does it, and answers. Never panics the agent, and leaves nothing behind when it fails.
pub(crate) async fn serve(agent: &Arc<Agent>, request: AgentRequest) -> AgentReply {
    let (verb, begun) = (verb(&request), Instant::now());
    let done = match request {
        AgentRequest::Add(request) => add(agent, request).await,
        AgentRequest::Del { attachment, pod } => del(agent, &attachment, pod.as_ref()).await,
        AgentRequest::Check(request) => check(agent, request).await,
        AgentRequest::Gc { network, valid } => gc(agent, network, valid).await,
        AgentRequest::Status => Ok(AgentReply::Done { ports: Vec::new() }),
        AgentRequest::Ports => usage(agent).await,
    };
    let took = begun.elapsed();
    let (reply, result) = match done {
        Ok(reply) => (reply, "done"),
        Err(failure) => {
            tracing::warn!(verb, code = failure.code, "{}", failure.message);
            let Failure { code, message, details, word } = failure;
            (AgentReply::Error { code, message, details }, word)
        }
    };
    agent.metrics.cni(verb, result, took);
    tracing::debug!(verb, result, ?took, "answered the plugin");
    reply
}

const fn verb(request: &AgentRequest) -> &'static str {
    match request {
        AgentRequest::Add(_) => "add",
        AgentRequest::Del { .. } => "del",
        AgentRequest::Check(_) => "check",
        AgentRequest::Gc { .. } => "gc",
        AgentRequest::Status => "status",
        AgentRequest::Ports => "ports",
    }
}

/// Why not, for the runtime and for the metrics.
struct Failure {
    code: u32,
    message: String,
    details: String,
    word: &'static str,
}

impl Failure {
    fn new(code: u32, word: &'static str, message: impl ToString) -> Self {
        Self { code, message: message.to_string(), details: String::new(), word }
    }
}

impl From<Ended> for Failure {
    fn from(error: Ended) -> Self {
        Self::new(code::TRY_AGAIN, "ending", error)
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        Self::new(code::FAILED, error.word(), &error)
    }
}

async fn add(agent: &Arc<Agent>, request: AddRequest) -> Result<AgentReply, Failure> {
    step::reached("add.asked");
    let outcome = match &request.pod {
        None => None,
        Some(pod) => {
            wanted(agent, pod, request.annotations.as_ref(), Network::Own).await.map_err(|error| {
                Failure::new(code::TRY_AGAIN, "api", format!("cannot know what the Pod asks for: {error}"))
            })?
        }
    };
    let (facts, asked) = match outcome {
        None => (None, None),
        Some(Outcome { facts, wanted: Ok(wanted) }) => (facts, Some(wanted)),
        Some(Outcome { facts, wanted: Err(refusal) }) => {
            if let Some(facts) = &facts {
                agent.cluster.event(
                    facts,
                    EventKind::Warning,
                    "PortsRefused",
                    "Publish",
                    &refusal.to_string(),
                );
            }
            return Err(Failure::new(code::REFUSED, refusal.word(), &refusal));
        }
    };
    let (ports, asked) = without_others(agent, &request, asked).await?;
    let statics = StaticPort::requests(&ports, asked.as_ref().map_or(&[], |w| w.requests.as_slice()));
    if statics.is_empty() && asked.is_none() {
        return Ok(AgentReply::Done { ports: Vec::new() });
    }
    step::reached("add.decided");
    let wish = wish(&request, &statics, asked.as_ref())?;
    let (instance, incarnation) = (wish.instance.clone(), wish.incarnation.clone());
    if agent.directory.get(&instance).is_some_and(|entry| entry.incarnation != incarnation) {
        agent.localhost.stop(&instance).await;
    }
    let attached = agent.engine.call(move |attach| attach.attach(wish)).await?;
    let lease = match attached {
        Ok(lease) => lease,
        Err(error) => {
            if let Some(facts) = &facts {
                let message = error.to_string();
                agent.cluster.event(facts, EventKind::Warning, "PortsFailed", "Publish", &message);
            }
            return Err(error.into());
        }
    };
    step::reached("add.mapped");
    // In the directory those that were asked for come first: `PORT` is the first of them.
    let of_runtime = |port: &&PublishedPort| statics.iter().any(|request| request.name == port.name);
    let (runtimes, of_annotation): (Vec<_>, Vec<_>) = lease.ports.iter().partition(of_runtime);
    let entry = Entry {
        instance,
        incarnation,
        network: Network::Own,
        addresses: request.addresses.iter().map(IpNet::addr).collect(),
        asked: of_annotation.len(),
        ports: of_annotation.into_iter().chain(runtimes).cloned().collect(),
        environment: asked.as_ref().is_none_or(|wanted| wanted.ask.environment),
        galaxy: asked.as_ref().is_some_and(|wanted| wanted.ask.galaxy),
    };
    tell::published(agent, entry, facts.as_deref()).await;
    step::reached("add.answered");
    Ok(AgentReply::Done { ports: lease.ports })
}

/// What is left to be had of the runtime's ports and of those that the Pod asks for: other interfaces of the same
/// container may have them already, as a runtime says the same for each.
async fn without_others(
    agent: &Arc<Agent>,
    request: &AddRequest,
    asked: Option<Wanted>,
) -> Result<(Vec<StaticPort>, Option<Wanted>), Failure> {
    let (own, ports) = (request.attachment.clone(), request.ports.clone());
    if ports.is_empty() && asked.is_none() {
        return Ok((ports, asked));
    }
    let (ports, asked) = agent
        .engine
        .call(move |attach| {
            let asked = asked
                .map(|wanted| Wanted { requests: attach.not_given(&own, &wanted.requests), ask: wanted.ask });
            (attach.not_served(&own, &ports), asked)
        })
        .await?;
    Ok((ports, asked.filter(|wanted| !wanted.requests.is_empty())))
}

/// What the engine is asked for: the runtime's ports, then those of the annotation.
fn wish(
    request: &AddRequest,
    statics: &[portolan_model::PortRequest],
    asked: Option<&Wanted>,
) -> Result<Wish, Failure> {
    let wrong = |message: String| Failure::new(code::CONFIG, "input", message);
    let netns = request.netns.as_deref().ok_or_else(|| wrong("ADD has no CNI_NETNS".to_owned()))?;
    if request.addresses.is_empty() {
        let interface = &request.attachment.interface;
        return Err(wrong(format!(
            "prevResult has no address for {interface}: there is nothing to map ports to"
        )));
    }
    let of = |v4: bool| request.addresses.iter().find(|net| net.addr().is_ipv4() == v4).map(IpNet::addr);
    let asked = asked.map(|wanted| wanted.requests.as_slice()).unwrap_or_default();
    Ok(Wish {
        instance: instance(&request.attachment, request.pod.as_ref())?,
        incarnation: incarnation(&request.attachment)?,
        owner: owner(Path::new(netns)).map_err(|error| wrong(format!("cannot look at {netns}: {error}")))?,
        requests: [statics, asked].concat(),
        network: Network::Own,
        v4: of(true).and_then(v4),
        v6: of(false).and_then(v6),
        local: request.addresses.iter().map(IpNet::trunc).collect(),
        attachment: Some(request.attachment.clone()),
    })
}

const fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

const fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

/// The key of a lease.
fn instance(attachment: &Attachment, pod: Option<&PodRef>) -> Result<InstanceId, Failure> {
    let interface = &attachment.interface;
    let id = match pod {
        Some(pod) => InstanceId::of_pod(&pod.namespace, &pod.name, interface),
        None => InstanceId::of_container(&attachment.container, interface),
    };
    id.map_err(|error| Failure::new(code::CONFIG, "input", error))
}

/// The life: the sandbox.
fn incarnation(attachment: &Attachment) -> Result<Incarnation, Failure> {
    let id = &attachment.container;
    Incarnation::new(id.as_str()).ok_or_else(|| {
        Failure::new(code::CONFIG, "input", format!("{id:?} is no container ID that can be kept"))
    })
}

/// The namespace's file, which is gone when the sandbox is. Runtimes say `/var/run/netns`, which is a link to
/// `/run/netns` on the host and need not be one where this agent runs.
fn owner(path: &Path) -> std::io::Result<Owner> {
    owner::namespace(path).or_else(|error| match path.strip_prefix("/var/run") {
        Ok(rest) => owner::namespace(&Path::new("/run").join(rest)).map_err(|_| error),
        Err(_) => Err(error),
    })
}

async fn del(
    agent: &Arc<Agent>,
    attachment: &Attachment,
    pod: Option<&PodRef>,
) -> Result<AgentReply, Failure> {
    step::reached("del.asked");
    let life = incarnation(attachment)?;
    // Some runtimes leave CNI_ARGS out of DEL, so what is not found by Pod is looked for by container.
    let by_pod = pod.map(|_| instance(attachment, pod)).transpose()?;
    // A relay has the socket of a port: it lets go of it before somebody else may have the port.
    for entry in agent.directory.select(|entry| entry.incarnation == life) {
        agent.localhost.stop(&entry.instance).await;
    }
    let (container, interface) = (attachment.container.clone(), attachment.interface.clone());
    let (of_pod, of_life) = (by_pod.clone(), life.clone());
    agent
        .engine
        .call(move |attach| {
            if let Some(instance) = &of_pod {
                attach.detach(instance, &of_life)?;
            }
            attach.detach_container(&container, &interface)
        })
        .await??;
    match by_pod {
        Some(instance) => tell::gone(agent, &instance, &life).await,
        None => {
            for entry in agent.directory.select(|entry| entry.incarnation == life) {
                tell::gone(agent, &entry.instance, &life).await;
            }
        }
    }
    step::reached("del.answered");
    Ok(AgentReply::Done { ports: Vec::new() })
}

async fn check(agent: &Arc<Agent>, request: AddRequest) -> Result<AgentReply, Failure> {
    let instance = instance(&request.attachment, request.pod.as_ref())?;
    let life = incarnation(&request.attachment)?;
    let (ports, _) = without_others(agent, &request, None).await?;
    // A Pod without a lease is right when it asks for nothing.
    if agent.directory.get(&instance).is_none() && ports.is_empty() {
        return Ok(AgentReply::Done { ports: Vec::new() });
    }
    let ports = agent.engine.call(move |attach| attach.check(&instance, &life)).await??;
    Ok(AgentReply::Done { ports })
}

async fn gc(agent: &Arc<Agent>, network: String, valid: Vec<Attachment>) -> Result<AgentReply, Failure> {
    agent.engine.call(move |attach| attach.gc(&network, &valid)).await?;
    agent.wake.notify_one();
    Ok(AgentReply::Done { ports: Vec::new() })
}

async fn usage(agent: &Arc<Agent>) -> Result<AgentReply, Failure> {
    let node = agent.config.node.clone();
    Ok(AgentReply::Ports(agent.engine.call(move |attach| attach.usage(node)).await?))
}
