//! `portolan up`.

use std::process::ExitCode;

use portolan_cli::{Global, UpArgs};

/// Not there yet.
pub(crate) async fn main(_global: Global, _args: UpArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`portolan up` is not built yet")
}
