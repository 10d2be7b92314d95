//! A service proxy under test: a cluster without kubelets, whose nodes and Pods are namespaces.
//!
//! etcd and the API server are real (`portolan_cluster`, light variant). Services, EndpointSlices and Nodes are written by
//! the test, so that conditions, hints and policies are exactly what a case wants. Each node is a network namespace in
//! which a service proxy runs, kube-proxy or ours; Pods are namespaces behind it, and each node has an outside behind it
//! as well. Netfilter, conntrack, routes and sockets are a namespace's own, so that many proxies on one kernel do what
//! they would do on many machines.
//!
//! 1. [`api`] talks to the API server, [`etcd`] to what is behind it; [`service`] says what a Service is, [`target`] how
//!    it is asked for, [`endpoint`] who is behind it.
//! 2. [`world`] makes the namespaces, [`echo`] and [`sctp`] answer in them, [`program`] starts the proxies.
//! 3. [`probe`] asks from somewhere and tells who answered and which source address they saw.
//! 4. [`stage`] is a small world for tests that start and stop proxies themselves, [`load`] what happens in it meanwhile.
//! 5. [`case`] is one named question with its expected answer; [`cases`] are all of them; [`bench`](mod@bench) runs them.

pub mod api;
pub mod bench;
pub mod case;
pub mod cases;
pub mod echo;
pub mod endpoint;
pub mod etcd;
pub mod load;
pub mod probe;
pub mod program;
pub mod sctp;
pub mod service;
pub mod stage;
pub mod target;
pub mod world;
