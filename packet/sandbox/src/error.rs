//! Why something with a sandbox failed.

use ipnet::IpNet;
use portolan_model::Name;
use portolan_netlink::{namespace::NamespaceError, route::RouteError, sysctl::SysctlError};

/// Why something with a sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Neither IPv4 nor IPv6.
    #[error("there is no subnet for the instances' networks: give an IPv4 or an IPv6 subnet")]
    NoSubnet,
    /// A subnet without room for a gateway and an instance.
    #[error("the subnet {0} is too small for a gateway and an instance: use at most a /30 or a /126")]
    SubnetTooSmall(IpNet),
    /// Another interface has an address in our subnet.
    #[error("the subnet {subnet} for instances is in use: {interface} has {address}. Choose another subnet")]
    SubnetInUse {
        /// Our subnet.
        subnet: IpNet,
        /// Who has it.
        interface: String,
        /// With which address.
        address: IpNet,
    },
    /// Neither address was given, or one of a family that the configuration does not have.
    #[error("the network of {0} needs an address of a family that has a subnet")]
    NoAddress(Name),
    /// There is one of this name already.
    #[error("{0} has a network already: remove it first")]
    Exists(Name),
    /// All names that its link could have are taken by others.
    #[error("cannot name the link of {0}: the interfaces {1} belong to others")]
    LinkNames(Name, String),
    /// A step of making it failed; everything that was made has been removed, or `left` says what has not.
    #[error("cannot make the network of {name}: {step}{}", also(left))]
    Create {
        /// The instance.
        name: Name,
        /// What failed.
        step: Step,
        /// What could not be removed again.
        left: Vec<String>,
    },
    /// Some of it could not be removed; all else has been.
    #[error("cannot remove the whole network of {name}: {}", failures.join("; "))]
    Destroy {
        /// The instance.
        name: Name,
        /// What could not be removed, and why.
        failures: Vec<String>,
    },
    /// The state of the machine could not be read.
    #[error("reading the instances' networks: {0}")]
    Read(Step),
}

fn also(left: &[String]) -> String {
    if left.is_empty() { String::new() } else { format!(" (and could not remove: {})", left.join("; ")) }
}

/// What failed in one step, with the words of the crate below.
#[derive(Debug, thiserror::Error)]
pub enum Step {
    /// With the namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// With links, addresses, routes.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// With a kernel setting.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// An interface that had just been made is not there.
    #[error("the interface {0} is gone: somebody else removed it")]
    Gone(String),
}
