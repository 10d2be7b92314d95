//! `portolan list`.

use std::process::ExitCode;

use portolan_cli::{Global, ListArgs};

/// Not there yet.
pub(crate) async fn main(_global: Global, _args: ListArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`portolan list` is not built yet")
}
