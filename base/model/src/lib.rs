//! Pure types and their semantics: names, ports, instances, mappings.
//!
//! Every other crate speaks in these words (ARCHITECTURE.md, "Words"). Nothing here does I/O, reads a clock
//! or knows an async runtime, so everything here can be tested in microseconds.

mod attachment;
mod check;
mod instance;
mod mapping;
mod name;
mod node;
mod protocol;
mod published;
mod range;
mod registration;
mod request;

pub use attachment::{AGENT_SOCKET, AddRequest, AgentReply, AgentRequest, Attachment, PodRef, StaticPort};
pub use check::{CheckKind, CheckSpec, CheckSpecError};
pub use instance::{Incarnation, Instance, InstanceKey, InstancePort, State, Transition};
pub use mapping::{Mapping, MappingKey};
pub use name::{Name, NameError, PortName};
pub use node::{LeaseReply, LeaseRequest, LeaseUsage, Network, NodeInfo, NodePorts, Owner, PoolUsage};
pub use protocol::{Protocol, ProtocolError, Protocols};
pub use published::{PublishedPort, environment};
pub use range::{PortRange, RangeError};
pub use registration::{Filter, Listing, PortFilter, Registered, Registration};
pub use request::{PortRequest, RequestError};
