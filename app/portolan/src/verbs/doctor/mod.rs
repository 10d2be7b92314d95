//! `portolan doctor`: what this machine allows, what is in the way, and how to mend it.
//!
//! Each file here looks at one thing and gives [`Finding`]s; nothing is changed on the machine. What must be tried to be
//! known ([`kernel`]) is tried in a network namespace that is gone afterwards.

mod finding;
pub(crate) mod kernel;
mod leftovers;
mod others;
mod place;
mod pool;
mod privileges;
mod resolver;

use std::{io::Write, process::ExitCode};

use portolan_cli::{DoctorArgs, Format, Global};

use self::finding::{Finding, Level};
use crate::output::structured;

/// Looks at everything and prints it; 1 when something fails.
pub(crate) async fn main(global: Global, args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let output = args.output;
    // Netlink and files block; the one question over the network does not.
    let local = tokio::task::spawn_blocking(move || look(&global, &args));
    let (findings, resolver) = tokio::join!(local, resolver::look());
    let mut findings = findings?;
    findings.extend(resolver);
    print(&findings, output)?;
    let fails = findings.iter().any(|finding| finding.level == Level::Fail);
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn look(global: &Global, args: &DoctorArgs) -> Vec<Finding> {
    let rights = crate::rights::Rights::own();
    let folder = global.data_dir();
    let up = place::running_up(&folder);
    let mut findings = privileges::look(rights);
    findings.extend(kernel::look(rights));
    findings.extend(pool::look(&args.pools, rights));
    findings.extend(others::look(rights));
    findings.push(place::folder(&folder, up));
    findings.extend(place::listeners(&args.listen, args.dns_listen, up));
    findings.extend(leftovers::look(rights, up.is_some()));
    findings
}

fn print(findings: &[Finding], format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => structured::json(&findings),
        Format::Yaml => structured::yaml(&findings),
        Format::Table | Format::Wide => {
            let mut stdout = anstream::stdout().lock();
            for finding in findings {
                writeln!(stdout, "{finding}")?;
            }
            Ok(stdout.flush()?)
        }
    }
}
