//! One of several processes that take turns: the CNI plugin where there is no agent.
//!
//! Each is started for a single call. A lock on the folder lets one of them at a time have the ports and the rules;
//! the others wait, no longer than they are told.

use std::{os::fd::AsFd as _, path::PathBuf, time::Duration};

use portolan_apply::{ApplyError, Known, PlanConfig};
use portolan_netlink::{Bus, Socket};
use portolan_ports::{HolderMode, Pools, Ports, Turn, reserve};

use super::{Attach, AttachConfig, AttachError, Plane, Rules, effective, locals};

/// How long a process waits for its turn. A turn takes milliseconds; a runtime gives a call minutes.
const PATIENCE: Duration = Duration::from_secs(30);

impl AttachConfig {
    /// For a process that takes its turn at the ports of this folder. The holder is started with the first port.
    pub fn in_turn(folder: PathBuf, pools: Pools, holder: HolderMode) -> Self {
        Self {
            folder,
            pools,
            holder,
            holder_socket: None,
            reserved_ports: Some(reserve::PATH.into()),
            patience: PATIENCE,
            plan: PlanConfig::any(),
            fixed: Vec::new(),
            plane: Plane::OneShot,
        }
    }
}

impl Attach {
    /// Waits for the turn and takes it; [`Attach::close`] or the end of the process gives it to the next.
    pub fn take_turn(config: AttachConfig) -> Result<Self, AttachError> {
        let Turn { mut ports, recovered, note } = Ports::take_turn(config.ports())?;
        if let Some(recovered) = recovered {
            let (attach, recovered) = Self::agree(config, ports, recovered)?;
            recovered.report();
            return Ok(attach);
        }
        let local = locals(&ports);
        let effective = effective(&config.plan, &local, ports.pools());
        let rules = Rules::trust(effective, door(&mut ports)?, note.map(Known))?;
        Ok(Self { ports, rules, given: config.plan, local, fixed: config.fixed, unsettled: false })
    }
}

/// The socket to nf_tables that the holder keeps from one turn to the next, so that no process has to close it, which
/// takes longer than everything else ([`Socket::adopt`]). The first turn opens it. Each network namespace has its own:
/// the holder's name of it cannot be another one's, since the socket keeps its namespace alive.
fn door(ports: &mut Ports) -> Result<Socket, AttachError> {
    let fail =
        |error: &dyn std::fmt::Display| ApplyError::from(portolan_nft::Error::Socket(error.to_string()));
    let namespace = rustix::fs::stat("/proc/thread-self/ns/net").map_err(|error| fail(&error))?;
    let name = format!("netfilter-{}", namespace.st_ino);
    match ports.kept(&name).map(|kept| kept.map(|descriptor| Socket::adopt(Bus::Netfilter, descriptor))) {
        Ok(Some(Ok(socket))) => return Ok(socket),
        Ok(None) => {}
        Ok(Some(Err(error))) => tracing::debug!(%error, "the socket that was kept is of no use"),
        Err(error) => tracing::debug!(%error, "no socket was kept"),
    }
    let socket = Socket::open(Bus::Netfilter).map_err(|error| fail(&error))?;
    if let Err(error) = ports.keep(&name, socket.as_fd()) {
        tracing::debug!(%error, "the socket cannot be kept");
    }
    Ok(socket)
}
