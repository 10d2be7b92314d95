//! `portolan watch`.

use std::process::ExitCode;

use portolan_cli::{Global, WatchArgs};

/// Not there yet.
pub(crate) async fn main(_global: Global, _args: WatchArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`portolan watch` is not built yet")
}
