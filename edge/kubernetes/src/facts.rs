//! What Portolan needs to know of Pods and Nodes, and nothing else: a Pod of the API has some hundred fields, and a node
//! agent keeps all Pods of its node in memory.

mod node;
mod pod;

pub use node::NodeFacts;
pub(crate) use node::{SlimNode, whole};
pub use pod::{ContainerFacts, ContainerPort, OwnerFacts, Phase, PodFacts, PodKey, StaticHostPort};
