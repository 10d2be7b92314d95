//! What an attachment is to have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use portolan_model::{Attachment, Incarnation, InstanceId, Network, Owner, PortRequest, StaticPort};
use portolan_ports::LeaseRequest;

use super::Attach;

/// What an attachment is to have.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Whose it is: the same over all its lives.
    pub instance: InstanceId,
    /// Which life: the sandbox.
    pub incarnation: Incarnation,
    /// How long it lives.
    pub owner: Owner,
    /// The ports, with names that differ.
    pub requests: Vec<PortRequest>,
    /// [`Network::Own`]: its ports are mapped. [`Network::Host`]: its process binds them itself.
    pub network: Network,
    /// Where packets go.
    pub v4: Option<Ipv4Addr>,
    /// See `v4`.
    pub v6: Option<Ipv6Addr>,
    /// The networks of these addresses.
    pub local: Vec<IpNet>,
    /// What the runtime calls it; `None` on the host's network, which no CNI plugin is called for.
    pub attachment: Option<Attachment>,
}

impl Wish {
    /// The same in the words of the ports.
    pub(super) fn into_request(self) -> LeaseRequest {
        let mut local: Vec<IpNet> = self.local.iter().map(IpNet::trunc).collect();
        local.sort_unstable();
        local.dedup();
        LeaseRequest {
            instance: self.instance,
            incarnation: self.incarnation,
            owner: self.owner,
            requests: without_repetition(self.requests),
            network: self.network,
            v4: self.v4,
            v6: self.v6,
            local,
            attachment: self.attachment,
        }
    }
}

impl Attach {
    /// Those of the runtime's mappings that no other interface of the same container has. Runtimes give the same mappings
    /// to each network of a container, and the first one serves them.
    pub fn not_served(&self, own: &Attachment, ports: &[StaticPort]) -> Vec<StaticPort> {
        let theirs = self.of_other_interfaces(own);
        let has = |port: &&StaticPort| port.host_port != 0 && theirs.iter().any(|one| port.is_in(one));
        ports.iter().filter(|port| !has(port)).copied().collect()
    }

    /// The same of what an annotation asks for.
    pub fn not_given(&self, own: &Attachment, requests: &[PortRequest]) -> Vec<PortRequest> {
        let theirs = self.of_other_interfaces(own);
        requests.iter().filter(|request| !theirs.contains(request)).cloned().collect()
    }

    fn of_other_interfaces(&self, own: &Attachment) -> Vec<&PortRequest> {
        let others = self.ports.of_container(&own.container).into_iter().filter(|lease| {
            let attachment = lease.request.attachment.as_ref();
            attachment.is_some_and(|one| one.interface != own.interface)
        });
        others.flat_map(|lease| &lease.request.requests).collect()
    }
}

/// Runtimes repeat themselves: the same mapping twice, or once for all addresses of each family. The first of them
/// stands for all.
fn without_repetition(requests: Vec<PortRequest>) -> Vec<PortRequest> {
    let mut kept: Vec<PortRequest> = Vec::with_capacity(requests.len());
    for request in requests {
        let repeats = |known: &&mut PortRequest| {
            let PortRequest { protocols, count, host, container, pool, .. } = &request;
            host.is_some()
                && (protocols, count, host, container, pool)
                    == (&known.protocols, &known.count, &known.host, &known.container, &known.pool)
        };
        let same = |known: &PortRequest| known.address == request.address;
        if let Some(known) = kept.iter_mut().find(|known| repeats(known) && same(known)) {
            tracing::debug!(port = %request.name, again = %known.name, "asked for twice");
        } else if let Some(known) =
            kept.iter_mut().find(|known| repeats(known) && are_both_families(known.address, request.address))
        {
            known.address = None;
        } else {
            kept.push(request);
        }
    }
    kept
}

/// Whether one is `0.0.0.0` and the other `::`.
fn are_both_families(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one.is_unspecified() && other.is_unspecified() && one.is_ipv4() != other.is_ipv4()
        }
        _ => false,
    }
}
