//! The node: what this machine gives to instances. Ports ([`portolan_ports`]), a namespace ([`portolan_sandbox`]) and
//! the packets' way to it ([`portolan_apply`]), behind one owner.
//!
//! `api` takes the requests of `portolan run` from the unix socket, `handle` brings them to the thread that owns
//! everything, `engine` does them in order. The catalog knows nothing of this; see [`crate::up`] for where they meet.

mod api;
mod engine;
mod error;
mod handle;
mod own;

pub(crate) use api::router;
pub(crate) use engine::{Engine, NodeConfig};
pub(crate) use handle::NodeHandle;
pub(crate) use own::OwnConfig;
