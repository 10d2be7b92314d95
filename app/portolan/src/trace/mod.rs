//! `portolan trace`: what happens to a packet that asks a Service, hop by hop.
//!
//! [`question`] is which packet is meant, [`state`] the Services as they are served on this machine, by whom [`ask`] asks,
//! [`place`] this machine. The rules that follow from them are executed in memory ([`portolan_nft::evaluate`]); [`explain`] puts the
//! Services' reasons beside the outcomes, [`print()`] shows them. [`live`] follows a packet in the kernel and compares.

mod ask;
mod ending;
mod explain;
mod live;
mod place;
mod print;
mod question;
pub(crate) mod state;

use std::process::ExitCode;

use anyhow::Context as _;
use portolan_cli::{Format, Global, TraceArgs};
use portolan_model::Service;
use portolan_nft::{
    Family, Kernel, Nft as _, Ruleset, Table,
    evaluate::{Machine, Packet},
};
use portolan_services::Services;

use crate::output::structured;
use place::Place;
use print::print;
use state::State;

/// Prints what happens. Exits with 1 when the kernel does something else (`--live`).
pub(crate) async fn main(global: Global, args: TraceArgs) -> anyhow::Result<ExitCode> {
    let place = Place::here()?;
    let states = match (&args.table, &args.from) {
        (Some(_), _) => Vec::new(),
        (None, Some(path)) => vec![State::read(&args, path, &place.own)?],
        (None, None) => ask::ask(&global, &args).await?,
    };
    // Netlink blocks, and this verb does nothing else meanwhile.
    tokio::task::spawn_blocking(move || answer(&args, &place, &states)).await?
}

fn answer(args: &TraceArgs, place: &Place, states: &[State]) -> anyhow::Result<ExitCode> {
    let known: Vec<&Service> = states.iter().flat_map(|state| &state.services).collect();
    let question = question::read(&args.source, &args.destination, args.protocol, &known, &place.own)?;
    let origin = place.origin(question.source.ip(), args.interface.as_deref())?;
    let compiled: Vec<Services> = states.iter().map(State::compiled).collect::<anyhow::Result<_>>()?;
    let rulesets: Vec<Ruleset> = match &args.table {
        None => compiled.iter().map(Services::ruleset).collect(),
        Some(name) => {
            let table = Table::new(Family::Inet, name.clone());
            vec![Kernel::open()?.dump(&table)?.with_context(|| format!("the kernel has no table {table}"))?]
        }
    };
    let machine = rulesets.iter().fold(Machine::new(place.host.clone()), Machine::with);
    // Of several tables the one that has the address is told about; all of them see the packet.
    let meant = compiled.iter().position(|services| explain::serves(services, &machine, &question));
    let meant = meant.unwrap_or(0);
    let services = compiled.get(meant).zip(states.get(meant).map(|state| state.slices.as_slice()));
    let mut explained = explain::explain(&machine, services, &question, &origin)?;
    if let Some(ruleset) = rulesets.get(meant).filter(|_| args.live) {
        let packet = Packet::new(question.protocol.number(), question.source, question.destination);
        let outcomes = machine.outcomes(&packet, &origin)?;
        explained.live = Some(live::follow(args, &question, &ruleset.table.name, &outcomes)?);
    }
    match args.output {
        Format::Json => structured::json(&explained)?,
        Format::Yaml => structured::yaml(&explained)?,
        Format::Table => print(&explained, false)?,
        Format::Wide => print(&explained, true)?,
    }
    let agrees = explained.live.as_ref().is_none_or(|live| live.agrees);
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
