//! Why the node gives no ports, and the HTTP status that says the same.

use axum::http::StatusCode;
use portolan_model::{InstanceId, Name, Owner};

/// Why a request of `run` was refused. Nothing of it was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// Another supervisor runs an instance of this name.
    #[error(
        "an instance named {name} is already run by the {owner} on this node: give this one another --name"
    )]
    NameTaken { name: Name, owner: Owner },
    /// The same supervisor asks for something else under the same name.
    #[error("{0} already has a lease with other ports or another network: give that back first")]
    Different(Name),
    /// The supervisor that asks is not there.
    #[error("no {0} with that start time runs here: a lease needs a supervisor that lives")]
    NoOwner(Owner),
    /// There is no such lease.
    #[error("no lease for {0}: ask for one first")]
    NotFound(Name),
    /// A lease of something that `run` has not started.
    #[error("{0} is no name of an instance: it can have no namespace here")]
    NoName(InstanceId),
    /// Namespaces and mappings cannot be made here.
    #[error("this node gives no network of its own: {0}; or use --network host")]
    NoDataPlane(String),
    /// Every address of the subnets is given away.
    #[error("no free address for an instance: {0}")]
    Addresses(String),
    /// No port could be had.
    #[error(transparent)]
    Ports(Box<portolan_ports::PortsError>),
    /// The namespace could not be made.
    #[error("cannot make the network of {name}: {source}")]
    Sandbox { name: Name, source: Box<portolan_sandbox::SandboxError> },
    /// The kernel did not take the mappings.
    #[error("cannot map the ports of {name}: {source}")]
    DataPlane { name: Name, source: Box<portolan_apply::ApplyError> },
    /// `up` is ending.
    #[error("this node is shutting down: start `portolan up` again, then try once more")]
    ShuttingDown,
}

impl From<portolan_ports::PortsError> for NodeError {
    fn from(error: portolan_ports::PortsError) -> Self {
        Self::Ports(Box::new(error))
    }
}

impl NodeError {
    /// The status that an HTTP reply carries for this.
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::NoOwner(_) | Self::NoName(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            // Not of the 500s: asking again gets the same answer until somebody does something about it.
            Self::NameTaken { .. } | Self::Different(_) | Self::Addresses(_) | Self::Ports(_) => {
                StatusCode::CONFLICT
            }
            Self::NoDataPlane(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Sandbox { .. } | Self::DataPlane { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
