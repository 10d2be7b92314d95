//! `portolan doctor`.

use std::process::ExitCode;

use portolan_cli::{DoctorArgs, Global};

/// Not there yet.
pub(crate) async fn main(_global: Global, _args: DoctorArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`portolan doctor` is not built yet")
}
