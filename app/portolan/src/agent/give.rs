//! Has an attachment given its ports, on the engine's thread.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use ipnet::IpNet;
use portolan_attach::{Attach, Wish};
use portolan_cni::code;
use portolan_model::{
    AddRequest, Attachment, Incarnation, InstanceId, Network, Owner, PodRef, PortRequest, StaticPort,
};
use portolan_netlink::step;
use portolan_ports::{Lease, owner};

use super::{failure::Failure, wanted::Wanted};

/// What came of an ADD.
pub(super) struct Given {
    /// Its ports.
    pub(super) lease: Lease,
    /// The runtime's part of it.
    pub(super) statics: Vec<PortRequest>,
    /// The Pod's part.
    pub(super) asked: Option<Wanted>,
}

/// Has the ports given that are left to be had: a runtime asks for the same for each interface of a container, and those
/// that others of them have are theirs. `None` when that is nothing.
///
/// On the engine's thread, so that two interfaces at once do not both find the same ports left.
pub(super) fn give(
    attach: &mut Attach,
    request: &AddRequest,
    asked: Option<Wanted>,
) -> Result<Option<Given>, Failure> {
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
pub(super) fn instance(attachment: &Attachment, pod: Option<&PodRef>) -> Result<InstanceId, Failure> {
    let interface = &attachment.interface;
    let id = match pod {
        Some(pod) => InstanceId::of_pod(&pod.namespace, &pod.name, interface),
        None => InstanceId::of_container(&attachment.container, interface),
    };
    id.map_err(|error| Failure::new(code::CONFIG, "input", error))
}

/// The life: the sandbox.
pub(super) fn incarnation(attachment: &Attachment) -> Result<Incarnation, Failure> {
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
