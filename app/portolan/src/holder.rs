//! `portolan holder`: the process that keeps bound sockets while `up` or the agent is restarted ([`portolan_plugin::holder`]).

use std::process::ExitCode;

use portolan_cli::{Global, HolderArgs};
pub(crate) use portolan_plugin::holder::{spawned, spawned_to_stay};

/// Serves until it is told to end.
pub(crate) fn main(_: Global, args: HolderArgs) -> anyhow::Result<ExitCode> {
    portolan_plugin::holder::main(&args.arguments)?;
    Ok(ExitCode::SUCCESS)
}
