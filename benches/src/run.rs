//! What `portolan run` adds to the start of a command.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use portolan_testkit::Portolan;

use crate::{
    Options,
    stats::{Samples, ratio},
    table::Table,
};

/// Starts in each round.
const SAMPLES: usize = 20;

/// The section of the document.
pub(crate) fn measure(options: Options) -> Result<String> {
    let machine = Portolan::new();
    let up = machine.up(&["--quarantine", "0"]);
    let published = ["run", "--restart", "no", "-p", "web"];
    let mut ways: [(&str, Command, Samples); 4] = [
        ("plain exec of `true`", machine.program("true"), Samples::default()),
        ("`portolan --version`: the program alone", machine.command(&["--version"]), Samples::default()),
        (
            "`portolan run --network host -p web -- true`",
            machine.command(&[&published[..], &["--network", "host", "--", "true"]].concat()),
            Samples::default(),
        ),
        (
            "`portolan run --network own -p web -- true`",
            machine.command(&[&published[..], &["--network", "own", "--", "true"]].concat()),
            Samples::default(),
        ),
    ];
    for _ in 0..options.rounds() {
        for (name, command, samples) in &mut ways {
            samples.begin_round();
            for _ in 0..SAMPLES {
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
                let output = samples.time(|| command.output())?;
                if !output.status.success() {
                    bail!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
                }
            }
        }
    }
    drop(up);
    let mut table = Table::new(&["", "start to end", "p99", "against plain exec"]);
    let plain = ways[0].2.clone();
    for (name, _, samples) in &ways {
        table.row([(*name).to_owned(), samples.median_and_spread(), samples.p99(), ratio(&plain, samples)]);
    }
    Ok(format!(
        "## Starting a command\n\n\
         `true` with nothing, and with ports, a registration and (`own`) a network of its own; from the start of the\n\
         program to its end, all of it given back. Each start enters the test's namespace by nsenter, which is in\n\
         every row.\n\n{}",
        table.markdown()
    ))
}
