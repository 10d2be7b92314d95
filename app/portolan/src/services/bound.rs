//! Ports that somebody else has.

use portolan_model::Protocol;
use portolan_netlink::{process, sockdiag};

/// Who has a port for himself, on whatever address.
pub(super) fn bound(port: u16) -> Option<String> {
    let sockets = [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, sockdiag::bound(protocol, port)));
    sockets.into_iter().find_map(|(protocol, sockets)| {
        let socket = sockets.ok()?.into_iter().next()?;
        let by = process::owner_of(socket.inode).map_or("somebody".to_owned(), |process| process.to_string());
        Some(format!("{port}/{protocol} is bound by {by}: choose another, or stop it"))
    })
}
