//! Why a lease was refused, and who is in the way.

use std::{fmt, path::PathBuf};

use portolan_netlink::{
    process::{self, ProcessId},
    sockdiag,
};

use portolan_model::PortRange;

use super::{Failure, HoldError, HolderError, InstanceId, PortName, Ports, Protocol};
use crate::{allocate::AllocateError, hold::Hold, journal::JournalError, lease::Owner};

/// Why something about ports could not be done.
#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    /// No port could be chosen.
    #[error(transparent)]
    Allocate(Box<AllocateError>),
    /// Another instance has a static port.
    #[error("{source}: {instance} has it ({owner})")]
    Leased {
        /// Which port.
        source: Box<AllocateError>,
        /// Who has it.
        instance: InstanceId,
        /// What its lease lives as long as.
        owner: Box<Owner>,
    },
    /// A foreign process has a static port.
    #[error("port {port}: host port {number}/{protocol} is in use by {by}")]
    Taken {
        /// The port's name.
        port: PortName,
        /// The number.
        number: u16,
        /// The protocol.
        protocol: Protocol,
        /// Who has it.
        by: Occupant,
    },
    /// The kernel refuses a port for another reason: the address is not this machine's, or no privilege.
    #[error("port {port}: cannot bind {hold}: {}", why(.source))]
    Bind {
        /// The port's name.
        port: PortName,
        /// Protocol, address and number.
        hold: Hold,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// Ports are not held.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The holder cannot be used.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The instance belongs to another that lives.
    #[error(
        "the instance {instance} has a lease already, of {owner}: end that one first, or use another name"
    )]
    InUse {
        /// The instance.
        instance: InstanceId,
        /// Who has it.
        owner: Box<Owner>,
    },
    /// There is no lease of that name.
    #[error("the instance {instance} has no lease of ports")]
    Unknown {
        /// The instance.
        instance: InstanceId,
    },
    /// A container port that differs from the host port, on the host's network.
    #[error(
        "port {port}: on the host's network the process listens on the published number itself; write {port}={container} to publish {container}, or use a network of its own"
    )]
    Shifted {
        /// The port's name.
        port: PortName,
        /// The number that it would listen on.
        container: u16,
    },
    /// The folder cannot be used.
    #[error("cannot use the folder {path} for the journal of leases: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has the folder.
    #[error("the folder {path} is in use by another portolan{}: end it, or use another data folder", .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process, if it has said so.
        pid: Option<u32>,
    },
}

/// Who has a port that we want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// This process.
    Process(ProcessId),
    /// Connections of a process that has ended: TIME_WAIT, a minute at most.
    Closing,
    /// A process that we may not see: of another user, or in another container on the same network.
    Unseen,
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(process) => write!(f, "{process}: end it, or ask for another port"),
            Self::Closing => {
                f.write_str("connections that are still closing: try again in a minute, or ask for another port")
            }
            Self::Unseen => f.write_str(
                "a process that cannot be seen from here (of another user or container): ask for another port",
            ),
        }
    }
}

impl From<AllocateError> for PortsError {
    fn from(error: AllocateError) -> Self {
        Self::Allocate(Box::new(error))
    }
}

fn why(source: &std::io::Error) -> String {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => format!(
            "{source}; ports below net.ipv4.ip_unprivileged_port_start (1024) need root or CAP_NET_BIND_SERVICE"
        ),
        std::io::ErrorKind::AddrNotAvailable => format!("{source}; the address is not one of this machine's"),
        _ => source.to_string(),
    }
}

impl Ports {
    /// Adds to the refusal of a leased port whose it is.
    pub(super) fn explain(&self, error: AllocateError) -> PortsError {
        if let AllocateError::Leased { number, protocol, .. } = error
            && let Some(lease) = self.leases.values().find(|lease| {
                lease.ports.iter().any(|p| p.protocols.contains(protocol) && p.host.contains(number))
            })
        {
            let (instance, owner) = (lease.request.instance.clone(), Box::new(lease.request.owner.clone()));
            return PortsError::Leased { source: Box::new(error), instance, owner };
        }
        error.into()
    }

    /// The error for a port that the kernel refuses and for which there is no other choice.
    pub(super) fn refused(&self, port: Option<&PortName>, failure: &Failure) -> PortsError {
        let (Some(port), Ok(ports)) = (port, PortRange::single(failure.port)) else {
            return HoldError::Refused(vec![failure.clone()]).into();
        };
        let port = port.clone();
        if !failure.is_taken() {
            let hold = Hold { protocol: failure.protocol, address: failure.address, ports };
            return PortsError::Bind { port, hold, source: failure.error() };
        }
        let by = who_has(failure);
        PortsError::Taken { port, number: failure.port, protocol: failure.protocol, by }
    }
}

/// Who has a port, as far as we may see.
fn who_has(failure: &Failure) -> Occupant {
    let sockets = match sockdiag::bound(failure.protocol, failure.port) {
        Ok(sockets) => sockets,
        Err(error) => {
            tracing::debug!(%error, "cannot tell who has port {}", failure.port);
            return Occupant::Unseen;
        }
    };
    let in_the_way: Vec<u64> = sockets
        .iter()
        .filter(|socket| {
            let all = socket.local.ip().is_unspecified();
            failure.address.is_none_or(|address| all || socket.serves(address))
        })
        .map(|socket| socket.inode)
        .collect();
    let visible = in_the_way.iter().filter(|&&inode| inode != 0).find_map(|&inode| process::owner_of(inode));
    match visible {
        Some(process) => Occupant::Process(process),
        None if !in_the_way.is_empty() && in_the_way.iter().all(|&inode| inode == 0) => Occupant::Closing,
        None => Occupant::Unseen,
    }
}
