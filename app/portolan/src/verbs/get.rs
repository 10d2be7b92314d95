//! `portolan get`: all about one instance; of Services, `services`.

use std::{io::Write, process::ExitCode};

use portolan_cli::{Format, GetArgs, Global};
use portolan_model::{Instance, Name};

use super::{api, services};
use crate::output::{
    age,
    instances::{labels, printable},
    problem::Hint,
    structured,
};

/// Asks and prints.
pub(crate) async fn main(global: Global, args: GetArgs) -> anyhow::Result<ExitCode> {
    if let Some(name) = services::asked(&args) {
        return services::main(global, &args, name).await;
    }
    let name: Name = args.name.parse()?;
    let instance = match api::registry(&global)?.get(&name).await {
        Err(error) if error.is_not_found() => {
            return Err(anyhow::anyhow!("there is no instance {name}"))
                .hint("`portolan list` shows all of them");
        }
        answer => answer?,
    };
    match args.output {
        Format::Json => structured::json(&instance)?,
        Format::Yaml => structured::yaml(&instance)?,
        Format::Table | Format::Wide => {
            let mut stdout = anstream::stdout().lock();
            for (what, text) in lines(&instance) {
                writeln!(stdout, "{:<13}{text}", format!("{what}:"))?;
            }
            stdout.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a person wants to know, in that order.
fn lines(instance: &Instance) -> Vec<(&'static str, String)> {
    let address = instance.addresses.first().copied();
    let mut lines = vec![
        ("Name", instance.key.name.to_string()),
        ("Service", instance.service.to_string()),
        ("State", format!("{}, for {}", instance.state, age::since(instance.since))),
        ("Node", printable(&instance.node)),
    ];
    lines.extend(instance.addresses.iter().map(|address| ("Address", address.to_string())));
    lines.extend(instance.ports.iter().map(|port| {
        let first = address.map(|address| std::net::SocketAddr::new(address, port.port.first()).to_string());
        let until = if port.port.is_single() { String::new() } else { format!("-{}", port.port.last()) };
        let inside = port.container.map(|inside| format!(", inside {inside}")).unwrap_or_default();
        let place = first.unwrap_or_else(|| port.port.first().to_string());
        ("Port", format!("{} {place}{until} {}{inside}", port.name, port.protocols))
    }));
    if !instance.labels.is_empty() {
        lines.push(("Labels", labels(instance)));
    }
    if !instance.tags.is_empty() {
        lines.push(("Tags", printable(&instance.tags.join(","))));
    }
    match &instance.check {
        Some(check) => {
            lines.push(("Check", format!("{check} every {}", humantime::format_duration(check.interval))))
        }
        None => lines.push(("Check", "none: its lease alone speaks for it".to_owned())),
    }
    lines.extend(instance.output.lines().map(|line| ("Said", printable(line))));
    lines.push((
        "Registered",
        format!(
            "{} ({} ago)",
            humantime::format_rfc3339_seconds(instance.registered),
            age::since(instance.registered)
        ),
    ));
    lines.push(("Incarnation", instance.key.incarnation.to_string()));
    lines
}
