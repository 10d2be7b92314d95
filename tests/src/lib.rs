//! One file per promise, in `tests/`, against the real binary and the real kernel.
//!
//! This library holds what several of them share: [`cni`] is a container runtime in small, [`agent`] a node with an agent and without a cluster, [`cluster`] what tests on a
//! real cluster begin with, [`proxy`] a service proxy under test, [`services`] Services of one machine, [`console`] runs the examples of documents, [`machine`] takes pictures of a machine before and after, [`world`] is the rest of the world:
//! clients on another machine, and what the catalog and the node tell about the instances that they look for.

pub mod agent;
pub mod cluster;
pub mod cni;
pub mod console;
pub mod machine;
pub mod proxy;
pub mod services;
pub mod world;
