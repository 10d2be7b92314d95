//! `portolan watch`: instances as they come, change and go, until Ctrl-C.

use std::{collections::BTreeMap, io::Write, process::ExitCode, time::SystemTime};

use portolan_cli::{Format, Global, WatchArgs};
use portolan_client::Event;
use portolan_model::{Instance, Name, Transition};

use super::api;
use crate::output::{
    instances,
    stream::{Row, Stream},
    structured,
};

/// Shows what is there, then what happens. A lost connection is told and made again.
pub(crate) async fn main(global: Global, args: WatchArgs) -> anyhow::Result<ExitCode> {
    // The first connection must succeed: whoever waits for a registry to come up can call again.
    let mut watch = api::registry(&global)?.watch(&args.filter.into()).await?;
    let mut known = BTreeMap::new();
    let mut show = Show { format: args.output, stream: Stream::default() };
    let mut lost = false;
    loop {
        match watch.next().await {
            Ok(event) => {
                if std::mem::take(&mut lost) {
                    tracing::warn!("connected again");
                }
                show.show(&transitions(&mut known, event))?;
            }
            Err(error) if error.is_transient() => {
                if !std::mem::replace(&mut lost, true) {
                    tracing::warn!("{error}; trying again");
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What changed for whoever has seen `known`. A snapshot after a lost connection is told as what it changes, so that a
/// reader of the stream always knows what is there.
fn transitions(known: &mut BTreeMap<Name, Instance>, event: Event) -> Vec<Transition> {
    match event {
        Event::Change { transition, .. } => {
            let instance = transition.instance();
            match &transition {
                Transition::Removed(_) => known.remove(&instance.key.name),
                _ => known.insert(instance.key.name.clone(), instance.clone()),
            };
            vec![transition]
        }
        Event::Snapshot(listing) => {
            let mut before = std::mem::take(known);
            let mut transitions = Vec::new();
            for instance in listing.instances {
                match before.remove(&instance.key.name) {
                    Some(old) if old == instance => {}
                    Some(old) if old.key == instance.key => {
                        transitions.push(Transition::Changed(instance.clone()));
                    }
                    _ => transitions.push(Transition::Added(instance.clone())),
                }
                known.insert(instance.key.name.clone(), instance);
            }
            let removed = before.into_values().map(Transition::Removed);
            removed.chain(transitions).collect()
        }
    }
}

struct Show {
    format: Format,
    stream: Stream,
}

impl Show {
    /// What happened at once, one after the other.
    fn show(&mut self, transitions: &[Transition]) -> anyhow::Result<()> {
        match self.format {
            Format::Json => transitions.iter().try_for_each(structured::json_line),
            Format::Yaml => transitions.iter().try_for_each(|transition| {
                writeln!(std::io::stdout(), "---")?;
                structured::yaml(transition)
            }),
            Format::Table | Format::Wide => {
                let wide = self.format == Format::Wide;
                let rows: Vec<_> = transitions.iter().map(|transition| row(transition, wide)).collect();
                Ok(self.stream.rows(&rows)?)
            }
        }
    }
}

const HEADERS: [&str; 8] = ["TIME", "EVENT", "NAME", "STATE", "ADDRESS", "PORTS", "NODE", "OUTPUT"];

/// Under each header, what happened.
fn row(transition: &Transition, wide: bool) -> Row {
    let instance = transition.instance();
    let event = match transition {
        Transition::Added(_) => "added",
        Transition::Changed(_) => "changed",
        Transition::Removed(_) => "removed",
    };
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let cells = [
        // The day is today.
        time.get(11..19).unwrap_or_default().to_owned(),
        event.to_owned(),
        instance.key.name.to_string(),
        instance.state.to_string(),
        instance.addresses.first().map(ToString::to_string).unwrap_or_default(),
        instances::ports(&instance.ports),
        instances::printable(&instance.node),
        instances::printable(instance.output.lines().next().unwrap_or_default()),
    ];
    HEADERS.into_iter().zip(cells).take(if wide { 8 } else { 7 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_model::{Listing, State};

    fn instance(name: &str, state: &str) -> Instance {
        serde_json::from_value(serde_json::json!({
            "name": name, "incarnation": "x", "service": "web", "node": "n", "addresses": [], "ports": [],
            "state": state, "since": "2026-01-01T00:00:00Z", "registered": "2026-01-01T00:00:00Z"
        }))
        .unwrap()
    }

    fn told(known: &mut BTreeMap<Name, Instance>, event: Event) -> Vec<(char, String)> {
        let short = |transition: &Transition| match transition {
            Transition::Added(i) => ('+', i.key.name.to_string()),
            Transition::Changed(i) => ('~', i.key.name.to_string()),
            Transition::Removed(i) => ('-', i.key.name.to_string()),
        };
        transitions(known, event).iter().map(short).collect()
    }

    #[test]
    fn a_second_snapshot_is_told_as_what_it_changes() {
        let mut known = BTreeMap::new();
        let snapshot = |instances| Event::Snapshot(Listing { index: 1, instances });
        let first = vec![instance("a", "passing"), instance("b", "passing"), instance("c", "passing")];
        assert_eq!(told(&mut known, snapshot(first)).len(), 3);
        let second = vec![instance("b", "critical"), instance("c", "passing"), instance("d", "unknown")];
        let expected = [('-', "a"), ('~', "b"), ('+', "d")].map(|(c, name)| (c, name.to_owned()));
        assert_eq!(told(&mut known, snapshot(second)), expected);
        let gone = Transition::Removed(instance("d", "unknown"));
        assert_eq!(told(&mut known, Event::Change { index: 2, transition: gone }).len(), 1);
        assert_eq!(known.len(), 2);
        assert_eq!(known.get("b").map(|i| i.state), Some(State::Critical));
    }
}
