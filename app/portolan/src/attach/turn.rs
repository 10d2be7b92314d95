//! One of several processes that take turns: the CNI plugin where there is no agent.
//!
//! Each is started for a single call. A lock on the folder lets one of them at a time have the ports and the rules;
//! the others wait, no longer than they are told.

use std::{path::PathBuf, time::Duration};

use portolan_apply::{Known, PlanConfig};
use portolan_ports::{Pools, Ports, Turn, reserve};

use super::{Attach, AttachConfig, AttachError, Plane, Rules, effective, locals};
use crate::holder;

/// How long a process waits for its turn. A turn takes milliseconds; a runtime gives a call minutes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

impl AttachConfig {
    /// For a process that takes its turn at the ports of this folder. The holder is started with the first port, and
    /// stays as long as there is one.
    pub(crate) fn in_turn(folder: PathBuf, pools: Pools) -> anyhow::Result<Self> {
        Ok(Self {
            folder,
            pools,
            holder: holder::spawned_to_stay()?,
            holder_socket: None,
            reserved_ports: Some(reserve::PATH.into()),
            patience: PATIENCE,
            plan: PlanConfig::any(),
            fixed: Vec::new(),
            plane: Plane::OneShot,
        })
    }
}

impl Attach {
    /// Waits for the turn and takes it; [`Attach::close`] or the end of the process gives it to the next.
    pub(crate) fn take_turn(config: AttachConfig) -> Result<Self, AttachError> {
        let Turn { ports, recovered, note } = Ports::take_turn(config.ports())?;
        if let Some(recovered) = recovered {
            let (attach, recovered) = Self::agree(config, ports, recovered)?;
            recovered.report();
            return Ok(attach);
        }
        let local = locals(&ports);
        let effective = effective(&config.plan, &local, ports.pools());
        let rules = Rules::trust(effective, note.map(Known))?;
        Ok(Self { ports, rules, given: config.plan, local, fixed: config.fixed, unsettled: false })
    }
}
