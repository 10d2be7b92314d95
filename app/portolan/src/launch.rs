//! The hidden verb `portolan launch`.

use std::process::ExitCode;

use portolan_cli::{Global, LaunchArgs};

/// Not there yet.
pub(crate) fn main(_global: Global, _args: LaunchArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`portolan launch` is not built yet")
}
