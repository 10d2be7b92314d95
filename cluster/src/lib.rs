//! A real Kubernetes cluster of network namespaces, for tests and as a playground.
//!
//! etcd, API server, controller manager and scheduler in one namespace; each node with containerd, runc, kubelet and
//! kube-proxy in namespaces and on a root of its own, so that a node's `/etc/cni/net.d` or `/run/netns` is not the next
//! one's; a client outside of all nodes. `cargo xtask cluster` is the command line of it, docs/cluster.md its manual.
//!
//! 1. [`Tools`] builds the programs once, into a cache outside of the tree; [`images`] makes images without a registry.
//! 2. [`Cluster::up`] starts everything, [`Cluster::find`] finds it again, [`down()`] removes everything, also after a crash.
//! 3. [`Cluster`] and [`Node`] are what tests ask: kubectl, commands on nodes and outside of them, reboots, failures.
//! 4. [`need_cluster!`] begins a test that needs one.

mod cgroup;
mod cluster;
mod command;
mod control;
mod down;
pub mod images;
mod layout;
mod network;
mod node;
mod options;
mod secrets;
mod spawn;
mod status;
mod test;
mod tools;
mod up;

pub use cluster::Cluster;
pub use command::without_package;
pub use down::{down, remains};
pub use layout::{
    CLIENT_V4, CLIENT_V6, CONTROL_V4, CONTROL_V6, DNS_V4, POD_NETWORKS, SERVICE_NETWORKS, node_addresses,
    node_name,
};
pub use node::Node;
pub use options::Options;
pub use status::{NodeStatus, Status};
pub use test::{cluster_problem, test_cluster, test_cluster_name};
pub use tools::{RECIPES, Recipe, Say, Tools};
