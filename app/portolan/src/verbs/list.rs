//! `portolan list`: the instances of the catalog, now.

use std::process::ExitCode;

use portolan_cli::{Format, Global, ListArgs};

use super::api;
use crate::output::{instances, structured};

/// Asks and prints. No instance is no failure: an empty table says so, on stderr.
pub(crate) async fn main(global: Global, args: ListArgs) -> anyhow::Result<ExitCode> {
    let listing = api::registry(&global)?.list(&args.filter.into()).await?;
    match args.output {
        Format::Json => structured::json(&listing)?,
        Format::Yaml => structured::yaml(&listing)?,
        Format::Table | Format::Wide => {
            let table = instances::table(&listing.instances, args.output == Format::Wide);
            if table.is_empty() {
                anstream::eprintln!("No instances found.");
            } else {
                table.print()?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
