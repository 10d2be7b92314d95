//! The next such packet, followed through the kernel.

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use portolan_cli::TraceArgs;
use portolan_model::Protocol;
use portolan_nft::{
    Kernel, Nft as _, Ruleset, Transaction,
    evaluate::{Outcome, Step},
    trace::{TraceKind, Traced, Tracer, rules_to_follow},
};
use serde::Serialize;

use super::question::Question;

/// After so long without an event the packet has ended.
const QUIET: Duration = Duration::from_millis(300);

/// What the kernel did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Followed {
    /// Event by event, of all tables.
    pub(super) events: Vec<String>,
    /// Whether the rules of our table ran as in one of the outcomes.
    pub(super) agrees: bool,
}

/// A table of our own that goes when this does.
struct Following<'k> {
    kernel: &'k mut Kernel,
    rules: Ruleset,
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        let mut transaction = Transaction::new(self.rules.table.clone());
        transaction.destroy_table();
        if let Err(error) = self.kernel.run(&transaction) {
            tracing::warn!("cannot remove the table {}: {error}", self.rules.table);
        }
    }
}

/// Waits for the packet, or sends it, and compares what the table `ours` did with the outcomes.
pub(super) fn follow(
    args: &TraceArgs,
    question: &Question,
    ours: &str,
    outcomes: &[Outcome],
) -> anyhow::Result<Followed> {
    let mut kernel = Kernel::open()?;
    let table = portolan_nft::Table::new(portolan_nft::Family::Inet, ours);
    let shape = kernel.dump_shape(&table)?.with_context(|| {
        format!("the kernel has no table {table}: is there a `portolan proxy` on this machine?")
    })?;
    let mut tracer = Tracer::open().context("listening to the kernel's trace: are you root?")?;
    let name = format!("portolan-trace-{}", std::process::id());
    let protocol = question.protocol.number();
    let rules = rules_to_follow(&name, protocol, question.source.ip(), question.destination);
    kernel.run(&rules.creation()).context("setting the rule that follows the packet")?;
    let following = Following { kernel: &mut kernel, rules };
    if args.send {
        send(question)?;
    }
    let events = collect(args.wait, &mut tracer, following)?;
    if events.is_empty() {
        bail!(
            "no such packet came within {:?}: send one from {} to {}, or use --send on the machine that has the source",
            args.wait,
            question.source.ip(),
            question.destination
        );
    }
    let place = |event: &Traced| place(&shape, event);
    let ran: Vec<_> = events.iter().filter(|event| event.table == ours).filter_map(place).collect();
    let agrees = outcomes.iter().any(|outcome| ran == steps(ours, &outcome.steps));
    let told = events.iter().filter(|event| event.table != name);
    Ok(Followed { events: told.map(|event| words(event, place(event))).collect(), agrees })
}

/// Events of the first packet that comes. The rule goes at once, so that no other packet is followed.
fn collect(wait: Duration, tracer: &mut Tracer, following: Following<'_>) -> anyhow::Result<Vec<Traced>> {
    let until = Instant::now() + wait;
    let mut following = Some(following);
    let mut events: Vec<Traced> = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let patience = if events.is_empty() { left } else { QUIET };
        match tracer.next(patience)? {
            Some(event) => {
                drop(following.take());
                if events.is_empty() || event.is_of(&events) {
                    events.push(event);
                }
            }
            None => return Ok(events),
        }
    }
}

/// Chain and index of the rule that an event is about.
fn place(shape: &Ruleset, event: &Traced) -> Option<(String, usize)> {
    if event.kind != TraceKind::Rule || event.table != shape.table.name {
        return None;
    }
    let chain = shape.find_chain(&event.chain)?;
    let index = chain.rules.iter().position(|rule| rule.handle == event.rule)?;
    Some((event.chain.clone(), index))
}

/// The same of what the evaluator did.
fn steps(table: &str, steps: &[Step]) -> Vec<(String, usize)> {
    let of_rules = steps.iter().filter(|step| step.is_rule()).filter_map(|step| step.place.as_ref());
    let ours = of_rules.filter(|place| place.table == format!("inet {table}"));
    ours.filter_map(|place| Some((place.chain.clone(), place.rule?))).collect()
}

fn words(event: &Traced, place: Option<(String, usize)>) -> String {
    let rule = match (&event.kind, place) {
        (TraceKind::Policy, _) => " policy".to_owned(),
        (TraceKind::Return, _) => " end".to_owned(),
        (TraceKind::Rule, Some((_, index))) => format!(" rule {}", index + 1),
        (TraceKind::Rule, None) => format!(" rule with handle {}", event.rule.unwrap_or(0)),
    };
    let verdict = event.verdict.as_ref().map_or(String::new(), |verdict| format!(": {verdict}"));
    let mark = if event.mark == 0 { String::new() } else { format!(", mark {:#x}", event.mark) };
    let packet = event.packet.map_or(String::new(), |(source, to)| format!(" ({source} -> {to})"));
    format!("{} {} {}{rule}{verdict}{mark}{packet}", event.family, event.table, event.chain)
}

/// One packet, and whatever the protocol makes of it; nobody needs to answer.
fn send(question: &Question) -> anyhow::Result<()> {
    let from = SocketAddr::new(question.source.ip(), 0);
    let failed = || format!("cannot send from {}: it must be an address of this machine", from.ip());
    match question.protocol {
        Protocol::Udp => {
            let socket = UdpSocket::bind(from).with_context(failed)?;
            // A refusal is an answer too.
            let _ = socket.send_to(&[0], question.destination);
        }
        Protocol::Tcp => {
            let socket = socket2::Socket::new(
                socket2::Domain::for_address(from),
                socket2::Type::STREAM,
                Some(socket2::Protocol::TCP),
            )?;
            socket.bind(&from.into()).with_context(failed)?;
            // What comes of it is seen in the trace.
            let _ = socket.connect_timeout(&question.destination.into(), QUIET);
            drop(TcpStream::from(socket));
        }
        Protocol::Sctp => bail!("--send knows TCP and UDP: send the SCTP packet yourself while --live waits"),
    }
    Ok(())
}
