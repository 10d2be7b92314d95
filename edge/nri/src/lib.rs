//! The NRI protocol: what a container runtime tells and lets a node resource plugin change.
//!
//! A container runtime (containerd from 1.7, CRI-O from 1.26) listens on a unix socket for plugins of the [Node
//! Resource Interface](https://github.com/containerd/nri). It tells them when Pods and containers come and go, and
//! before a container is created they may add to its environment and its mounts. That is the only way on Kubernetes
//! by which a program learns ports that were chosen on the node before it starts: an environment variable that
//! refers to an annotation is read before a CNI plugin can write that annotation.
//!
//! - [`Handler`] is what a plugin says and does, [`PodSandbox`] and [`Container`] what it is told,
//!   [`ContainerAdjustment`] what it may answer;
//! - [`Plugin`] keeps a handler connected: [`serve`] finds the runtime, `session` talks for one connection,
//!   `dispatch` asks the handler;
//! - below is the wire, from the top: `message` (protobuf), `ttrpc` (calls), `link` (one connection), `frame` (two
//!   logical connections through one socket);
//! - [`fake`] is the other end of the socket, for tests without a runtime.
//!
//! # What a plugin should know of runtimes
//!
//! Read in containerd 2.4.2 with nri 0.12.3, and tested against it in `edge/nri/tests/containerd/`:
//!
//! - Plugins are called under one lock for the whole node. A handler that takes a second holds up every Pod for a
//!   second. Events that a handler does not subscribe to ([`Handler::events`]) cost nothing.
//! - The runtime waits 2 seconds (`plugin_request_timeout`). Then it closes the connection and goes on as if the
//!   plugin were not there. The limit here is a little shorter, so that a slow answer is an error with a reason
//!   instead of a container that silently lacks its ports.
//! - `RunPodSandbox` comes after the CNI plugins, with addresses and the network namespace; its error fails the
//!   sandbox, and the runtime then says `StopPodSandbox` and `RemovePodSandbox`. Errors of `CreateContainer` fail
//!   the container. kubelet tries both again. All other errors are the runtime's to log.
//! - `StopPodSandbox` comes before the network is torn down, `RemovePodSandbox` after.
//! - A container that is created while the plugin is not connected is not changed. `Synchronize`, at each
//!   connection, lists what exists with its environment, so such containers can be found; and a runtime with its
//!   `default_validator` enabled refuses to create containers of Pods that name the plugin in the annotation
//!   `required-plugins.noderesource.dev` until it is there.
//!
//! # Why this is no generated code
//!
//! The `ttrpc` crate is made for code that `protoc` generates, for protobuf 3's runtime or with a build script, and
//! for one direction on one socket; NRI needs both directions through a multiplexer of its own. What is left of
//! ttrpc then is a header of ten bytes and two messages. The messages of NRI are some structs with the tags of
//! [api.proto](https://github.com/containerd/nri/blob/v0.12.3/pkg/api/api.proto); fields that are not named are
//! skipped, so newer runtimes are understood.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod container;
mod dispatch;
mod event;
pub mod fake;
mod frame;
mod handler;
mod link;
mod message;
mod pod;
pub mod serve;
mod session;
mod ttrpc;

pub use container::{Container, ContainerAdjustment, ContainerState, Mount};
pub use event::{Event, Events};
pub use handler::Handler;
pub use pod::PodSandbox;
pub use serve::{DEFAULT_SOCKET, NameError, Plugin, State};
