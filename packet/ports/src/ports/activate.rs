//! Socket activation: the held sockets themselves go to the instance, and there is no moment without them.

use std::os::fd::OwnedFd;

use portolan_model::{InstanceId, PortName, PortRange, Protocol};

use super::{Ports, PortsError};
use crate::hold::Hold;

/// A socket that was held and is the instance's now: bound, and for TCP not yet listening.
#[derive(Debug)]
pub struct Activated {
    /// The port's name: `LISTEN_FDNAMES` (sd_listen_fds(3)).
    pub name: PortName,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
    /// The socket, dual-stack unless the port is on one address. Close-on-exec.
    pub socket: OwnedFd,
}

impl Ports {
    /// Takes the sockets of a lease over from the holder, in the order of its ports. The lease counts as not held from
    /// then on, as after [`Ports::give_up_hold`].
    ///
    /// A protocol that the kernel has no sockets of is left out. When the holder fails in the middle, what was taken
    /// is closed and the next [`Ports::hold_again`] holds all of it.
    pub fn take_sockets(&mut self, instance: &InstanceId) -> Result<Vec<Activated>, PortsError> {
        self.set_held(instance, false)?;
        let mut sockets = Vec::new();
        let Some(lease) = self.leases.get(instance) else { return Ok(sockets) };
        for port in &lease.ports {
            for hold in Hold::of(port) {
                for number in hold.ports.iter() {
                    let Ok(ports) = PortRange::single(number) else { continue };
                    if let Some(socket) = self.holder.take(Hold { ports, ..hold })? {
                        let (name, protocol) = (port.name.clone(), hold.protocol);
                        sockets.push(Activated { name, protocol, port: number, socket });
                    }
                }
            }
        }
        Ok(sockets)
    }
}
