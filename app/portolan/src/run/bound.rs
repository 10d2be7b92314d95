//! What a command on the host's network really bound, read from the kernel.
//!
//! A program told to listen on 20417 may ignore it. The catalog would then send clients to a port that nobody
//! answers; the kernel knows better than the environment, so it is asked.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use portolan_model::{Name, Protocol, PublishedPort};
use portolan_netlink::{
    process,
    sockdiag::{self, SockDiagError, State},
};

/// How long a command may take to bind its ports before it is said that it did not.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to look meanwhile.
const INTERVAL: Duration = Duration::from_millis(100);

/// Looks until every leased port is bound by the process `pid` or a descendant, and logs what is bound; warns when
/// the time is up.
pub(crate) async fn tell(name: Name, pid: u32, ports: Vec<PublishedPort>) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let looked = tokio::task::spawn_blocking(move || look(pid)).await;
        let bound = match looked {
            Ok(Ok(bound)) => bound,
            Ok(Err(error)) => {
                tracing::warn!(instance = %name, %error, "cannot ask the kernel what the command bound");
                return;
            }
            Err(_) => return,
        };
        let missing = missing(&ports, &bound);
        if missing.is_empty() {
            tracing::info!(instance = %name, bound = %show(&bound), "the command bound its ports");
            return;
        }
        if tokio::time::Instant::now() >= deadline {
            tracing::warn!(
                instance = %name, missing = missing.join(" "), bound = %show(&bound),
                "the command has not bound all of its ports: does it read PORT and PORTOLAN_PORT_<NAME>?"
            );
            return;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

type Bound = BTreeSet<(Protocol, SocketAddr)>;

/// The sockets of a process and its descendants that wait for clients.
fn look(pid: u32) -> Result<Bound, SockDiagError> {
    let inodes = process::inodes_of_tree(pid);
    let mut bound = Bound::new();
    for protocol in Protocol::ALL {
        let sockets = match sockdiag::all(protocol) {
            // A kernel without SCTP sockets has none that could be bound.
            Err(SockDiagError::Unsupported(_)) => continue,
            sockets => sockets?,
        };
        let waits = |state| matches!(state, State::Bound | State::Listening);
        let ours = sockets.iter().filter(|socket| waits(socket.state) && inodes.contains(&socket.inode));
        bound.extend(ours.map(|socket| (protocol, socket.local)));
    }
    Ok(bound)
}

/// The leased ports that nothing has bound. Of a block one bound port is enough: a media server binds as calls come.
fn missing(ports: &[PublishedPort], bound: &Bound) -> Vec<String> {
    let mut missing = Vec::new();
    for port in ports {
        for protocol in port.protocols.iter() {
            if !bound.iter().any(|(p, socket)| *p == protocol && port.host.contains(socket.port())) {
                missing.push(format!("{}={}/{protocol}", port.name, port.host));
            }
        }
    }
    missing
}

fn show(bound: &Bound) -> String {
    bound.iter().map(|(protocol, socket)| format!("{socket}/{protocol}")).collect::<Vec<_>>().join(" ")
}
