//! `portolan resolve`.

use std::process::ExitCode;

use portolan_cli::ResolveArgs;

/// Not there yet.
pub(crate) async fn main(_args: ResolveArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
