//! The user-space proxy: Services on sockets, for machines where the kernel cannot be asked.
//!
//! kube-proxy's first kind was such a proxy; what made it slow was that each byte was copied to the process and back,
//! and each datagram cost two system calls. Here bytes stay in the kernel and datagrams come and go in batches.
//!
//! - [`Relays`] is the door: it is told all [`Frontend`]s each time and makes the sockets agree;
//! - `choose` and `affinity` say which backend a client gets, `admit` whether it gets one;
//! - `tcp` accepts and connects, `splice` moves the bytes, `proxy_protocol` tells the backend who the client is;
//! - `udp` has a socket for each client, `batch` receives and sends many datagrams at once;
//! - [`LocalNodePorts`] is the same for node ports on the loopback alone.

mod admit;
mod affinity;
mod batch;
mod choose;
mod frontend;
mod listen;
mod local;
mod pool;
mod proxy_protocol;
mod relays;
mod splice;
mod stats;
mod tcp;
mod udp;

pub use choose::Backend;
pub use frontend::{Frontend, FrontendKey, Options};
pub use listen::ListenError;
pub use local::{LocalNodePort, LocalNodePorts};
pub use proxy_protocol::ProxyProtocol;
pub use relays::Relays;
pub use splice::copy_bidirectional as splice_bidirectional;
pub use stats::FrontendStats;
