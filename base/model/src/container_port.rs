//! A port that a container says it listens on.

use serde::{Deserialize, Serialize};

use crate::Protocol;

/// An entry of `ports:` of a Pod's container (Kubernetes API reference, core/v1 ContainerPort).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerPort {
    /// Its name, if it has one. Two containers of a Pod may use one name twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The number that the container listens on.
    pub number: u16,
    /// Its protocol; TCP unless the Pod says otherwise.
    pub protocol: Protocol,
    /// The host port that the Pod asks the runtime for. On the host network it is `number`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
}
