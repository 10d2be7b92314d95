//! The plugin without an agent: in the place of portmap, for runtimes without Kubernetes.
//!
//! Calls take turns by the lock of the data folder. Journal and rules are the same as the agent's; ports are held by a
//! holder that the first call starts and that stays as long as it holds anything. Each call also takes back what
//! belonged to network namespaces that are gone, if it is in the way.
//!
//! A runtime has no place for random ports in the result, so they are written to `ports/CONTAINER@INTERFACE.json` in
//! the data folder, for whoever started the container.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use portolan_attach::{Attach, AttachConfig, AttachError, Wish};
use portolan_cni::{CniError, Settings, code};
use portolan_model::{
    AddRequest, Attachment, Incarnation, InstanceId, Name, Network, PortRange, PublishedPort, StaticPort,
};
use portolan_ports::{
    Pool, Pools,
    ephemeral::{self, ephemeral_range},
    owner,
};

use crate::{files, holder, log};

/// ADD.
pub(super) fn add(settings: &Settings, request: &AddRequest) -> Result<(), CniError> {
    let attachment = &request.attachment;
    let mut attach = open(settings)?;
    let ports = attach.not_served(attachment, &request.ports);
    if ports.is_empty() {
        attach.close();
        return Ok(());
    }
    let lease = attach.attach(wish(request, &ports)?).map_err(|error| refused(&error))?;
    let file = told(settings, attachment);
    // Static ports are what the runtime itself asked for: nobody needs to be told.
    if ports.iter().all(|port| port.host_port != 0) {
        attach.close();
        return Ok(());
    }
    if let Err(error) = tell(&file, &lease.ports) {
        let taken_back = attach.detach_container(&attachment.container, &attachment.interface);
        let error = failed(&format!("writing down the random ports: {error:#}"));
        return Err(match taken_back {
            Ok(_) => error,
            Err(second) => error.with_details(format!("and they could not be taken back: {second}")),
        });
    }
    attach.close();
    Ok(())
}

/// CHECK.
pub(super) fn check(settings: &Settings, request: &AddRequest) -> Result<(), CniError> {
    let mut attach = open(settings)?;
    if attach.not_served(&request.attachment, &request.ports).is_empty() {
        return Ok(());
    }
    let changed = |error: AttachError| CniError::new(code::CHANGED, error.to_string());
    attach.check(&instance(request)?, &incarnation(request)?).map(drop).map_err(changed)
}

/// DEL. Nothing is known of the container: nothing to do, and nothing is made for that.
pub(super) fn del(settings: &Settings, attachment: &Attachment) -> Result<(), CniError> {
    if !settings.data_dir().exists() {
        return Ok(());
    }
    let mut attach = open(settings)?;
    attach.detach_container(&attachment.container, &attachment.interface).map_err(|error| refused(&error))?;
    attach.close();
    let file = told(settings, attachment);
    files::remove(&file).map_err(|error| failed(&format!("{error:#}")))
}

/// GC.
pub(super) fn gc(settings: &Settings, network: &str, valid: &[Attachment]) -> Result<(), CniError> {
    if !settings.data_dir().exists() {
        return Ok(());
    }
    let mut attach = open(settings)?;
    let mut ended = attach.reap();
    ended.extend(attach.gc(network, valid));
    for attachment in ended.iter().filter_map(|lease| lease.request.attachment.as_ref()) {
        files::remove(&told(settings, attachment)).map_err(|error| failed(&format!("{error:#}")))?;
    }
    Ok(())
}

/// STATUS: everything that an ADD needs can be had.
pub(super) fn status(settings: &Settings) -> Result<(), CniError> {
    open(settings).map(Attach::close).map_err(|error| CniError { code: code::NOT_AVAILABLE, ..error })
}

/// Waits for the turn of this call. Holds and rules are as the journal says then, whatever has happened to them.
fn open(settings: &Settings) -> Result<Attach, CniError> {
    let config = config(settings).map_err(|error| failed(&format!("{error:#}")))?;
    log::start();
    Attach::take_turn(config).map_err(|error| refused(&error))
}

fn config(settings: &Settings) -> anyhow::Result<AttachConfig> {
    let folder = settings.data_dir().to_owned();
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    let default = PortRange::new(20000, 29999)?;
    let pool = Pool::new(Name::new("default")?, settings.pool.unwrap_or(default));
    let mut config = AttachConfig::in_turn(folder, Pools::new(vec![pool])?, holder::spawned_to_stay()?);
    if let Ok(range) = ephemeral_range(Path::new(ephemeral::PATH)) {
        config.plan.outbound_ports = range;
    }
    Ok(config)
}

fn wish(request: &AddRequest, ports: &[StaticPort]) -> Result<Wish, CniError> {
    let path = request.netns.as_deref().unwrap_or_default();
    let owner = owner::namespace(Path::new(path))
        .map_err(|error| CniError::new(code::ENVIRONMENT, format!("CNI_NETNS {path}: {error}")))?;
    let addresses = || request.addresses.iter().map(ipnet::IpNet::addr);
    Ok(Wish {
        instance: instance(request)?,
        incarnation: incarnation(request)?,
        owner,
        requests: StaticPort::requests(ports, &[]),
        network: Network::Own,
        v4: addresses().find_map(|address| if let IpAddr::V4(v4) = address { Some(v4) } else { None }),
        v6: addresses().find_map(|address| if let IpAddr::V6(v6) = address { Some(v6) } else { None }),
        local: request.addresses.clone(),
        attachment: Some(request.attachment.clone()),
    })
}

fn instance(request: &AddRequest) -> Result<InstanceId, CniError> {
    let Attachment { container, interface, .. } = &request.attachment;
    match &request.pod {
        Some(pod) => InstanceId::of_pod(&pod.namespace, &pod.name, interface),
        None => InstanceId::of_container(container, interface),
    }
    .map_err(|error| CniError::new(code::ENVIRONMENT, error.to_string()))
}

/// The container's ID; its first 64 characters, which a Pod's IDs have at most, and others are in the instance too.
fn incarnation(request: &AddRequest) -> Result<Incarnation, CniError> {
    let container = &request.attachment.container;
    let text = &container[..container.len().min(64)];
    Incarnation::new(text)
        .ok_or_else(|| CniError::new(code::ENVIRONMENT, format!("invalid CNI_CONTAINERID: {container:?}")))
}

/// Where the ports of an attachment are told.
fn told(settings: &Settings, attachment: &Attachment) -> PathBuf {
    let name = format!("{}@{}.json", attachment.container, attachment.interface);
    settings.data_dir().join("ports").join(name)
}

fn tell(file: &Path, ports: &[PublishedPort]) -> anyhow::Result<()> {
    let folder = file.parent().context("a file without a folder")?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    files::replace(file, &serde_json::to_vec(ports)?, 0o644)
}

/// In the words of the specification.
fn refused(error: &AttachError) -> CniError {
    let code = match error.word() {
        "exhausted" | "leased" | "taken" | "in-use" | "request" | "bind" => code::REFUSED,
        // Somebody else has the folder for longer than it should take.
        "journal" | "holder" => code::TRY_AGAIN,
        _ => code::FAILED,
    };
    CniError::new(code, error.to_string())
}

fn failed(text: &str) -> CniError {
    CniError::new(code::FAILED, text)
}
