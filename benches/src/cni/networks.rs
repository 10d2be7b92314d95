//! Containers that have a network each, as several CNI plugins make them: every one is news to the rules.

use std::time::Instant;

use anyhow::Result;
use portolan_model::PortRange;
use serde_json::json;

use super::{EACH, Ours};
use crate::{
    Options,
    network::FIRST,
    stats::{Samples, show},
    table::Table,
};

/// As many Pods as a node is made for at most.
const CONTAINERS: u16 = 250;

/// The paragraph and its table.
pub(super) fn measure(options: Options) -> Result<String> {
    let containers = if options.is_quick() { 25 } else { CONTAINERS };
    let mut table = Table::new(&["", "ADD", "longest", "all of them", "DEL", "longest", "all of them"]);
    for ours in [Ours::with_agent(0)?, Ours::alone(0)?] {
        let mut cells = vec![ours.heading.to_owned()];
        for verb in ["ADD", "DEL"] {
            let (mut samples, begin) = (Samples::default(), Instant::now());
            for index in 0..containers {
                let first = FIRST + index * EACH;
                let mut config = ours.config(PortRange::new(first, first + EACH - 1)?);
                let address = format!("10.{}.{}.2/24", 100 + index / 256, index % 256);
                config["prevResult"]["ips"][0]["address"] = json!(address);
                let call = ours.call(verb, &format!("own-{index}"), &config);
                ours.node.run(|| samples.time(|| call.make()))?;
            }
            cells.extend([samples.median_and_spread(), samples.longest(), show(begin.elapsed())]);
        }
        eprintln!("[{containers} networks: {}]", cells.join(", "));
        table.row(cells);
    }
    Ok(format!(
        "{containers} containers one after the other, each with {EACH} ports and a network (/24) of its own:\n\n{}",
        table.markdown(),
    ))
}
