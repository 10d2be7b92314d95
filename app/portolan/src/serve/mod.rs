//! `portolan serve`.

use std::process::ExitCode;

use portolan_cli::{Global, ServeArgs};

/// Not there yet.
pub(crate) async fn main(_global: Global, _args: ServeArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
