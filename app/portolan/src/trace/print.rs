//! The answer for people: what is asked, what the Service says, what comes of it, and step by step how.

use super::{
    ending::Ending,
    explain::{EndpointLine, Explained},
};
use crate::output::{
    paint::Tone,
    table::{Table, plain, toned},
};

pub(super) fn print(explained: &Explained, wide: bool) -> anyhow::Result<()> {
    let packet = &explained.packet;
    let by = packet.interface.as_ref().map_or_else(|| "sent here".to_owned(), |name| format!("by {name}"));
    let from = match packet.from {
        "pod" => "from a Pod of this node",
        "node" => "from this node",
        _ => "from outside of this node",
    };
    line("packet", &format!("{} {} -> {}, {by}, {from}", packet.protocol, packet.source, packet.destination));
    match &explained.frontend {
        None => line("frontend", "none: no Service has this address and port"),
        Some(frontend) => {
            line(
                "frontend",
                &format!("{} of {}, port {}", frontend.address, frontend.service, frontend.port),
            );
            line("policy", &frontend.policy);
            let choice = match frontend.balance.as_str() {
                "source" => "by the client's address, the same endpoint each time",
                _ => "at random",
            };
            line("choice", choice);
            if let Some(seconds) = frontend.affinity_seconds {
                let text = format!("a client that connected within {seconds} s stays with its endpoint");
                line("affinity", &text);
            }
        }
    }
    if !explained.endpoints.is_empty() {
        anstream::println!();
        endpoints(&explained.endpoints).print()?;
    } else if explained.frontend.is_some() {
        line("endpoints", "none");
    }
    anstream::println!();
    for ending in &explained.outcomes {
        line("outcome", &outcome(ending, explained.outcomes.len() > 1));
    }
    if wide || explained.live.is_none() {
        anstream::println!();
        for step in &explained.steps {
            anstream::println!("  {step}");
        }
    }
    if let Some(live) = &explained.live {
        anstream::println!();
        for event in &live.events {
            anstream::println!("  {event}");
        }
        let agrees = if live.agrees {
            "yes, the kernel did what was expected"
        } else {
            "NO, the kernel did something else than expected"
        };
        anstream::println!();
        line("agrees", agrees);
    }
    Ok(())
}

fn line(what: &str, text: &str) {
    anstream::println!("{what:<11}{text}");
}

fn endpoints(lines: &[EndpointLine]) -> Table {
    let mut table = Table::new(&["ENDPOINT", "NODE", "USED", "WHY"]);
    for line in lines {
        let used = if line.used { toned(Tone::Good, "yes") } else { toned(Tone::Faint, "no") };
        table.row([
            plain(line.endpoint.to_string()),
            plain(line.node.clone().unwrap_or_default()),
            used,
            plain(&line.why),
        ]);
    }
    table
}

fn outcome(ending: &Ending, several: bool) -> String {
    let share = if several { format!("{:.1} %: ", ending.share * 100.0) } else { String::new() };
    let by = ending.by.as_ref().map_or(String::new(), |by| format!(" ({by})"));
    let text = match (ending.what, ending.destination) {
        ("sent" | "delivered", Some(to)) if !ending.translated => {
            let local = if ending.what == "delivered" { ", to this node itself" } else { "" };
            format!("left alone: goes on to {to}{local}")
        }
        ("delivered", Some(to)) => format!("to {to} on this node{}", masqueraded(ending)),
        ("sent", Some(to)) => {
            let by = ending.interface.as_ref().map_or(String::new(), |name| format!(" by {name}"));
            format!("to {to}{by}{}", masqueraded(ending))
        }
        (what, _) => what.to_owned(),
    };
    format!("{share}{text}{by}")
}

fn masqueraded(ending: &Ending) -> String {
    match (ending.masqueraded, ending.source) {
        (true, Some(source)) => format!(", masqueraded as {source}"),
        (_, Some(source)) => format!(", with its source {source}"),
        (_, None) => String::new(),
    }
}
