//! `portolan trace`: what happens to a packet that asks a Service, hop by hop.
//!
//! [`question`] is which packet is meant, [`state`] the Services as the proxy of this machine has them, [`place`] this
//! machine. The rules that follow from them are executed in memory ([`portolan_nft::evaluate`]); [`explain`] puts the
//! Services' reasons beside the outcomes, [`print()`] shows them. [`live`] follows a packet in the kernel and compares.

mod explain;
mod live;
mod place;
mod print;
mod question;
mod state;

use std::process::ExitCode;

use anyhow::Context as _;
use portolan_cli::{Format, TraceArgs};
use portolan_nft::{
    Family, Kernel, Nft as _, Table,
    evaluate::{Machine, Packet},
};

use crate::output::structured;
use place::Place;
use print::print;
use state::State;

/// Prints what happens. Exits with 1 when the kernel does something else (`--live`).
pub(crate) async fn main(args: TraceArgs) -> anyhow::Result<ExitCode> {
    let place = Place::here()?;
    let state = match args.table {
        Some(_) => None,
        None => Some(State::get(&args, &place.own).await?),
    };
    // Netlink blocks, and this verb does nothing else meanwhile.
    tokio::task::spawn_blocking(move || answer(&args, &place, state.as_ref())).await?
}

fn answer(args: &TraceArgs, place: &Place, state: Option<&State>) -> anyhow::Result<ExitCode> {
    let known = state.map(|state| state.services.as_slice()).unwrap_or_default();
    let question = question::read(&args.source, &args.destination, args.protocol, known, &place.own)?;
    let origin = place.origin(question.source.ip(), args.interface.as_deref())?;
    let compiled = state.map(State::compiled).transpose()?;
    let ruleset = match (&compiled, &args.table) {
        (Some(services), _) => services.ruleset(),
        (None, name) => {
            let table = Table::new(Family::Inet, name.clone().unwrap_or_default());
            Kernel::open()?.dump(&table)?.with_context(|| format!("the kernel has no table {table}"))?
        }
    };
    let machine = Machine::new(place.host.clone()).with(&ruleset);
    let services = compiled.as_ref().zip(state.map(|state| state.slices.as_slice()));
    let mut explained = explain::explain(&machine, services, &question, &origin)?;
    if args.live {
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
