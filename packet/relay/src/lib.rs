//! Userspace forwarding where the kernel cannot: the loopback, and Services without privileges.
//!
//! What a process of this machine sends to `127.0.0.1:PORT` cannot be rewritten to an instance without
//! `route_localnet`, which opens the machine's own services to its neighbours (CVE-2020-8558), and `[::1]:PORT` not at
//! all. A [`Relay`] takes it in user space instead: on the very socket that holds the port (`packet/ports`), so that
//! there is never a moment in which somebody else could have it.
//!
//! - `filter`: what did not come in by `lo` to a loopback address never reaches the socket, no handshake is
//!   completed with it. While the kernel's rules are missing for a moment, clients of elsewhere find silence and try
//!   again, instead of a server that is not the one (kubernetes/kubernetes#108496).
//! - `tcp` accepts and copies in both directions, `udp` has a socket for each client.
//! - `held`: when the relay ends, the socket is bound and nothing else, as it was. The sockets of a relay that was
//!   killed are brought back by [`quiet`].
//!
//! The instance sees this machine as its client: the address of a loopback means nothing to it.
//!
//! [`service`] is the user-space proxy: Services on sockets of their own, for machines without privileges.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod filter;
mod held;
mod relay;
pub mod service;
mod tcp;
mod udp;

pub use held::quiet;
pub use relay::{Limits, Relay, RelayError, RelayStats, Targets};
pub use service::{LocalNodePort, LocalNodePorts};
