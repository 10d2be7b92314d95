//! What the plugin asks, one by one: ADD, DEL, CHECK, GC, STATUS.

use std::{sync::Arc, time::Instant};

use ipnet::IpNet;
use portolan_attach::Attach;
use portolan_cni::code;
use portolan_kubernetes::EventKind;
use portolan_model::{AddRequest, AgentReply, AgentRequest, Attachment, Network, PodRef, PublishedPort};
use portolan_netlink::step;

use super::{
    Agent,
    directory::Entry,
    failure::Failure,
    give::{Given, give, incarnation, instance},
    tell,
    wanted::{Outcome, wanted},
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
