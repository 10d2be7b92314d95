//! `portolan get`.

use std::process::ExitCode;

use portolan_cli::{GetArgs, Global};

/// Not there yet.
pub(crate) async fn main(_global: Global, _args: GetArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`portolan get` is not built yet")
}
