//! Pure types and their semantics: names, ports, instances, mappings.
//!
//! Every other crate speaks in these words (ARCHITECTURE.md, "Words"). Nothing here does I/O, reads a clock
//! or knows an async runtime, so everything here can be tested in microseconds.

mod ask;
mod attachment;
mod check;
mod container_port;
mod galaxy;
mod instance;
mod instance_id;
mod mapping;
mod name;
mod node;
mod ports_status;
mod protocol;
mod published;
mod range;
mod ranges;
mod registration;
mod request;
mod service;

pub use ask::{Ask, AskError, ENVIRONMENT_ANNOTATION, GALAXY_ANNOTATION, Item, PORTS_ANNOTATION, demand};
pub use attachment::{AGENT_SOCKET, AddRequest, AgentReply, AgentRequest, Attachment, PodRef, StaticPort};
pub use check::{CheckKind, CheckSpec, CheckSpecError};
pub use container_port::ContainerPort;
pub use galaxy::GalaxyPort;
pub use instance::{Incarnation, Instance, InstanceKey, InstancePort, State, Transition};
pub use instance_id::{InstanceId, InstanceIdError, PodInterface};
pub use mapping::{Mapping, MappingKey};
pub use name::{Name, NameError, PortName};
pub use node::{LeaseReply, LeaseRequest, LeaseUsage, Network, NodeInfo, NodePorts, Owner, PoolUsage};
pub use ports_status::{PortsStatus, STATUS_ANNOTATION};
pub use protocol::{Protocol, ProtocolError, Protocols};
pub use published::{PublishedPort, environment};
pub use range::{PortRange, RangeError};
pub use ranges::PortRanges;
pub use registration::{Filter, Listing, PortFilter, Registered, Registration};
pub use request::{PortRequest, RequestError};
pub use service::{
    AffinityScope, Balance, Endpoint, EndpointSlice, ObjectName, PortSpan, Service, ServiceNode,
    ServiceOptions, ServicePort, ServiceType, SlicePort, TrafficPolicy, Weights,
};
