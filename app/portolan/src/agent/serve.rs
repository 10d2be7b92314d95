//! What the plugin asks, one by one: ADD, DEL, CHECK, GC, STATUS.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::Arc,
    time::Instant,
};

use ipnet::IpNet;
use portolan_attach::{Attach, AttachError, Wish};
use portolan_cni::code;
use portolan_kubernetes::EventKind;
use portolan_model::{
    AddRequest, AgentReply, AgentRequest, Attachment, Incarnation, InstanceId, Network, Owner, PodRef,
    PortRequest, PublishedPort, StaticPort,
};
use portolan_netlink::step;
use portolan_ports::{Lease, owner};

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
    if request.ports.is_empty() && asked.is_none() {
        return Ok(AgentReply::Done { ports: Vec::new() });
    }
    let instance = instance(&request.attachment, request.pod.as_ref())?;
    let incarnation = incarnation(&request.attachment)?;
    if agent.directory.get(&instance).is_some_and(|entry| entry.incarnation != incarnation) {
        agent.localhost.stop(&instance).await;
    }
    let addresses = request.addresses.iter().map(IpNet::addr).collect();
    let given = match agent.engine.call(move |attach| give(attach, &request, asked)).await? {
        Ok(Some(given)) => given,
        Ok(None) => return Ok(AgentReply::Done { ports: Vec::new() }),
        Err(failure) => {
            if let Some(facts) = &facts {
                agent.cluster.event(facts, EventKind::Warning, "PortsFailed", "Publish", &failure.message);
            }
            return Err(failure);
        }
    };
    step::reached("add.mapped");
    let Given { lease, statics, asked } = given;
    // In the directory those that were asked for come first: `PORT` is the first of them.
    let of_runtime = |port: &&PublishedPort| statics.iter().any(|request| request.name == port.name);
    let (runtimes, of_annotation): (Vec<_>, Vec<_>) = lease.ports.iter().partition(of_runtime);
    let entry = Entry {
        instance,
        incarnation,
        network: Network::Own,
        addresses,
        asked: of_annotation.len(),
        ports: of_annotation.into_iter().chain(runtimes).cloned().collect(),
        environment: asked.as_ref().is_none_or(|wanted| wanted.ask.environment),
        galaxy: asked.as_ref().is_some_and(|wanted| wanted.ask.galaxy),
    };
    tell::published(agent, entry, facts.as_deref()).await;
    step::reached("add.answered");
    Ok(AgentReply::Done { ports: lease.ports })
}

/// What came of an ADD.
struct Given {
    lease: Lease,
    /// The runtime's part of it.
    statics: Vec<PortRequest>,
    /// The Pod's part.
    asked: Option<Wanted>,
}

/// Has the ports given that are left to be had: a runtime asks for the same for each interface of a container, and those
/// that others of them have are theirs. `None` when that is nothing.
///
/// On the engine's thread, so that two interfaces at once do not both find the same ports left.
fn give(attach: &mut Attach, request: &AddRequest, asked: Option<Wanted>) -> Result<Option<Given>, Failure> {
    let own = &request.attachment;
    let left = |wanted: Wanted| Wanted { requests: attach.not_given(own, &wanted.requests), ..wanted };
    let asked = asked.map(left).filter(|wanted| !wanted.requests.is_empty());
    let of_pod = asked.as_ref().map(|wanted| wanted.requests.as_slice()).unwrap_or_default();
    let statics = StaticPort::requests(&attach.not_served(own, &request.ports), of_pod);
    let requests = [&statics, of_pod].concat();
    if requests.is_empty() {
        return Ok(None);
    }
    step::reached("add.decided");
    let lease = attach.attach(wish(request, requests)?)?;
    Ok(Some(Given { lease, statics, asked }))
}

/// What the engine is asked for.
fn wish(request: &AddRequest, requests: Vec<PortRequest>) -> Result<Wish, Failure> {
    let wrong = |message: String| Failure::new(code::CONFIG, "input", message);
    let netns = request.netns.as_deref().ok_or_else(|| wrong("ADD has no CNI_NETNS".to_owned()))?;
    if request.addresses.is_empty() {
        let interface = &request.attachment.interface;
        return Err(wrong(format!(
            "prevResult has no address for {interface}: there is nothing to map ports to"
        )));
    }
    let of = |v4: bool| request.addresses.iter().find(|net| net.addr().is_ipv4() == v4).map(IpNet::addr);
    Ok(Wish {
        instance: instance(&request.attachment, request.pod.as_ref())?,
        incarnation: incarnation(&request.attachment)?,
        owner: owner(Path::new(netns)).map_err(|error| wrong(format!("cannot look at {netns}: {error}")))?,
        requests,
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
    let is_known = agent.directory.get(&instance).is_some();
    let check = move |attach: &mut Attach| {
        // A Pod without a lease is right when it asks for nothing.
        if !is_known && attach.not_served(&request.attachment, &request.ports).is_empty() {
            return Ok(Vec::new());
        }
        attach.check(&instance, &life)
    };
    Ok(AgentReply::Done { ports: agent.engine.call(check).await?? })
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
