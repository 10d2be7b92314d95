//! Why an attachment has no ports, or is not as it should be.

use portolan_apply::ApplyError;
use portolan_model::InstanceId;
use portolan_ports::{PortsError, allocate::AllocateError, hold::Hold, holder::HoldError};

/// Why something about an attachment could not be done, or was found not to be so.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No port could be had, or given back.
    #[error(transparent)]
    Ports(Box<PortsError>),
    /// The kernel did not take the rules.
    #[error("cannot map ports: {0}")]
    Plane(Box<ApplyError>),
    /// It has no ports.
    #[error("{0} has no ports here: it was not added, or is gone")]
    Unknown(InstanceId),
    /// A port is not held.
    #[error("{instance}: the host port {hold} is not held; another process may have it")]
    NotHeld {
        /// Whose it is.
        instance: InstanceId,
        /// The port.
        hold: Hold,
    },
    /// The rules in the kernel are others.
    #[error("the packet rules are not as they should be: {}", .0.join("; "))]
    Differs(Vec<String>),
}

impl AttachError {
    /// One word for it, for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ports(error) => match &**error {
                PortsError::Allocate(error) => match &**error {
                    AllocateError::Exhausted { .. } => "exhausted",
                    AllocateError::Leased { .. } => "leased",
                    _ => "request",
                },
                PortsError::Leased { .. } => "leased",
                PortsError::Taken { .. } => "taken",
                PortsError::Bind { .. } => "bind",
                PortsError::Hold(_) | PortsError::Holder(_) => "holder",
                PortsError::Journal(_) | PortsError::Folder { .. } | PortsError::Locked { .. } => "journal",
                PortsError::InUse { .. } => "in-use",
                PortsError::Unknown { .. } => "unknown",
                PortsError::Shifted { .. } => "request",
            },
            Self::Plane(_) => "kernel",
            Self::Unknown(_) => "unknown",
            Self::NotHeld { .. } => "not-held",
            Self::Differs(_) => "differs",
        }
    }

    /// Whether leases of owners that are gone may be what is in the way.
    pub(super) fn is_in_the_way(&self) -> bool {
        let full = |error: &PortsError| matches!(error, PortsError::Hold(HoldError::Full { .. }));
        matches!(self.word(), "exhausted" | "leased") || matches!(self, Self::Ports(error) if full(error))
    }
}

impl From<PortsError> for AttachError {
    fn from(error: PortsError) -> Self {
        Self::Ports(Box::new(error))
    }
}

impl From<ApplyError> for AttachError {
    fn from(error: ApplyError) -> Self {
        Self::Plane(Box::new(error))
    }
}
