//! `portolan demo`.

use std::process::ExitCode;

use portolan_cli::{DemoArgs, Global};

/// Not there yet.
pub(crate) async fn main(_global: Global, _args: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`portolan demo` is not built yet")
}
