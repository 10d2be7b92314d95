//! What `run` is asked to do, checked before anything happens.

use std::{collections::BTreeMap, collections::HashSet, ffi::OsString, path::PathBuf, time::Duration};

use portolan_cli::{Restart, RunArgs};
use portolan_model::{CheckSpec, Name, Network, PortRequest, Protocol};

use super::program::{self, ProgramError};

/// Where a copy's output goes.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    /// Where `run`'s own goes.
    Inherit,
    /// `NAME.log` in this folder, appended to.
    Folder(PathBuf),
}

/// Copies of one command.
#[derive(Clone, Debug)]
pub(crate) struct RunPlan {
    pub(crate) names: Vec<Name>,
    pub(crate) service: Name,
    pub(crate) network: Network,
    pub(crate) ports: Vec<PortRequest>,
    pub(crate) check: Option<CheckSpec>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) restart: Restart,
    pub(crate) socket_activation: bool,
    pub(crate) ready_timeout: Duration,
    pub(crate) stop_timeout: Duration,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) output: Output,
}

/// Why the request makes no sense, or cannot be met here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("no name can be made from the command {0:?}: give one by --name")]
    NoName(PathBuf),
    #[error("the name {name:?} with -{last} behind it is longer than the 63 characters of a DNS label")]
    NameTooLong { name: Name, last: u16 },
    #[error("two ports are named {0:?}: give each a name of its own")]
    TwoPorts(Name),
    #[error(
        "{replicas} copies cannot all have the static host port {port}: leave the number out, or run one copy"
    )]
    StaticReplicas { replicas: u16, port: u16 },
    #[error("the health check names the port {port:?}, which is not published: add -p {port}")]
    CheckedPort { port: Name },
    #[error(
        "the health check {check} needs a TCP port, and none is published: add -p http, or another check"
    )]
    NothingToCheck { check: String },
    #[error("--network own needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN)")]
    NotRoot,
    #[error("--socket-activation is for --network host: the holder's sockets are in the host's network")]
    Activation,
    #[error("--socket-activation needs a published port: add -p NAME")]
    NothingToActivate,
    #[error(
        "port {name:?} has a container port, and with --network host there is nothing to map: the command binds the host port itself"
    )]
    ContainerPort { name: Name },
}

impl PlanError {
    /// 126 and 127 as shells have it for the command, 2 for the rest: wrong usage.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Program(error) => error.exit_code(),
            Self::NotRoot => 1,
            _ => 2,
        }
    }

    /// What to do about it, where the message does not say.
    pub(crate) const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotRoot => Some("run it as root, or with --network host"),
            _ => None,
        }
    }
}

impl RunPlan {
    /// Reads the flags. `root` tells whether namespaces can be entered.
    pub(crate) fn new(args: &RunArgs, root: bool) -> Result<Self, PlanError> {
        let (command, arguments) = args.command.split_first().map_or((None, &[][..]), |(c, a)| (Some(c), a));
        let program = program::find(&command.cloned().unwrap_or_default())?;
        let base = match &args.name {
            Some(name) => name.clone(),
            None => program
                .file_name()
                .and_then(|file| Name::sanitized(&file.to_string_lossy()))
                .ok_or_else(|| PlanError::NoName(program.clone()))?,
        };
        let network = match args.network {
            Some(portolan_cli::Network::Own) if !root => return Err(PlanError::NotRoot),
            Some(portolan_cli::Network::Own) => Network::Own,
            Some(portolan_cli::Network::Host) => Network::Host,
            None if root && !args.socket_activation => Network::Own,
            None => Network::Host,
        };
        let plan = Self {
            names: names(&base, args.replicas)?,
            service: args.service.clone().unwrap_or(base),
            network,
            ports: args.ports.clone(),
            check: args.health.clone(),
            labels: args.labels.iter().map(|l| (l.key.clone(), l.value.clone())).collect(),
            restart: args.restart,
            socket_activation: args.socket_activation,
            ready_timeout: args.ready_timeout,
            stop_timeout: args.stop_timeout,
            program,
            arguments: arguments.to_vec(),
            output: Output::Inherit,
        };
        plan.check_ports()?;
        Ok(plan)
    }

    fn check_ports(&self) -> Result<(), PlanError> {
        let mut seen = HashSet::new();
        for port in &self.ports {
            if !seen.insert(&port.name) {
                return Err(PlanError::TwoPorts(port.name.clone()));
            }
            if let Some(host) = port.host
                && self.names.len() > 1
            {
                let replicas = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
                return Err(PlanError::StaticReplicas { replicas, port: host });
            }
            if self.network == Network::Host && port.container.is_some_and(|c| port.host != Some(c)) {
                return Err(PlanError::ContainerPort { name: port.name.clone() });
            }
        }
        if self.socket_activation && self.network == Network::Own {
            return Err(PlanError::Activation);
        }
        if self.socket_activation && self.ports.is_empty() {
            return Err(PlanError::NothingToActivate);
        }
        let Some(check) = &self.check else { return Ok(()) };
        match &check.port {
            Some(port) if !seen.contains(port) => Err(PlanError::CheckedPort { port: port.clone() }),
            None if !self.ports.iter().any(|p| p.protocols.contains(Protocol::Tcp)) => {
                Err(PlanError::NothingToCheck { check: check.to_string() })
            }
            _ => Ok(()),
        }
    }
}

/// `web` for one copy, `web-0`, `web-1` … for more.
pub(crate) fn names(base: &Name, replicas: u16) -> Result<Vec<Name>, PlanError> {
    if replicas == 1 {
        return Ok(vec![base.clone()]);
    }
    let too_long = || PlanError::NameTooLong { name: base.clone(), last: replicas - 1 };
    (0..replicas).map(|n| Name::new(format!("{base}-{n}")).map_err(|_| too_long())).collect()
}
