//! The hidden verb `portolan holder`.

use std::process::ExitCode;

use portolan_cli::{Global, HolderArgs};

/// Not there yet.
pub(crate) fn main(_global: Global, _args: HolderArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`portolan holder` is not built yet")
}
