//! Sends each datagram back to where it came from.

use tokio::net::UdpSocket;

/// Ports below this belong to services, of which some answer whatever comes: RFC 862 echo (7) and RFC 864 chargen (19)
/// would play ping-pong with this one for ever once somebody forges a sender.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// Echoes until the task is dropped.
pub(crate) async fn run(socket: UdpSocket) {
    let own = socket.local_addr().map(|address| address.port()).unwrap_or_default();
    let mut buffer = vec![0; 65_536];
    loop {
        // An error here is about an earlier answer (ICMP port unreachable), not about this socket.
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else { continue };
        if sender.port() < FIRST_UNPRIVILEGED || sender.port() == own {
            continue;
        }
        if let (Some(datagram), false) = (buffer.get(..length), length == 0) {
            let _ = socket.try_send_to(datagram, sender);
        }
    }
}
