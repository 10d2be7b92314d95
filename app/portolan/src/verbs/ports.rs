//! `portolan ports`.

use std::process::ExitCode;

use portolan_cli::{Global, PortsArgs};

/// Not there yet.
pub(crate) async fn main(_global: Global, _args: PortsArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`portolan ports` is not built yet")
}
