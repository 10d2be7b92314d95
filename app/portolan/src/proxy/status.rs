//! `portolan proxy status`: what the proxy of this node serves.

use std::process::ExitCode;

use http::Method;
use portolan_cli::{Format, ProxyStatusArgs};
use portolan_client::{Client, Endpoint};

use super::api::{ServiceStatus, Status};
use crate::output::{
    age,
    paint::Tone,
    problem::Hint as _,
    structured,
    table::{Table, plain, toned},
};

/// Asks it over its unix socket and prints. Exits with 1 when it is not healthy, or a Service that was asked for is not
/// live as it was last seen.
pub(crate) async fn main(args: &ProxyStatusArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(Endpoint::Unix(args.socket.clone()), None);
    let asked = client.request_json::<Status>(Method::GET, "/v1/status", None::<&()>).await;
    let mut status =
        asked.hint("is there a `portolan proxy` on this node, and are you root? See also --socket")?;
    if let Some(service) = &args.service {
        let (namespace, name) = service.split_once('/').unwrap_or(("default", service));
        status.services.retain(|one| one.name.namespace == namespace && one.name.name == name);
        status.problems.retain(|one| one.name.namespace == namespace && one.name.name == name);
        if status.services.is_empty() {
            anyhow::bail!("the proxy of {} does not know the Service {namespace}/{name}", status.node);
        }
    }
    match args.output {
        Format::Json => structured::json(&status)?,
        Format::Yaml => structured::yaml(&status)?,
        Format::Table | Format::Wide => print(&status)?,
    }
    let live = status.services.iter().all(|service| service.live == Some(service.generation));
    let good = status.synced && status.healthy && (args.service.is_none() || live);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(status: &Status) -> anyhow::Result<()> {
    for (what, text) in head(status) {
        anstream::println!("{what:<12}{text}");
    }
    if !status.services.is_empty() {
        anstream::println!();
        table(&status.services).print()?;
    }
    for problem in &status.problems {
        anstream::println!("problem     {}: {}", problem.name, problem.problem);
    }
    Ok(())
}

fn head(status: &Status) -> Vec<(&'static str, String)> {
    let mut head = vec![("node", status.node.clone())];
    head.extend(status.zone.iter().map(|zone| ("zone", zone.clone())));
    let whose = match &status.service_proxy_name {
        None => "all Services".to_owned(),
        Some(name) => format!("Services of the proxy {name}"),
    };
    head.push(("serves", format!("{whose}, in the table inet {}", status.table)));
    let state = match (status.synced, status.healthy) {
        (false, _) => "waits for the API server: rules are as an earlier proxy left them".to_owned(),
        (true, true) => format!("healthy, {} changes wait, {} repairs", status.pending, status.repairs),
        (true, false) => format!("not healthy: {} changes wait", status.pending),
    };
    head.push(("state", state));
    let node_ports = match &status.node_ports {
        None => "all addresses".to_owned(),
        Some(addresses) if addresses.is_empty() => "no address".to_owned(),
        Some(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    head.push(("node ports", node_ports));
    head.push(("since", age::since(status.started)));
    head.extend(status.api_away.map(|away| ("api server", format!("away for {}", age::text(away)))));
    head.extend(status.errors.iter().map(|error| ("error", error.clone())));
    head
}

fn table(services: &[ServiceStatus]) -> Table {
    let mut table =
        Table::new(&["NAMESPACE", "NAME", "TYPE", "ADDRESSES", "PORTS", "LOCAL", "LIVE", "SINCE"]);
    for service in services {
        let addresses: Vec<_> = service.addresses.iter().map(ToString::to_string).collect();
        let live = match service.live {
            Some(live) if live == service.generation => toned(Tone::Good, "yes"),
            Some(_) => toned(Tone::Warn, "before"),
            None => toned(Tone::Bad, "no"),
        };
        table.row([
            plain(&service.name.namespace),
            plain(&service.name.name),
            plain(kind(service)),
            plain(addresses.join(",")),
            plain(service.ports.join(",")),
            plain(service.local.to_string()),
            live,
            plain(service.since.map(age::since).unwrap_or_default()),
        ]);
    }
    table
}

const fn kind(service: &ServiceStatus) -> &'static str {
    match service.kind {
        portolan_model::ServiceType::ClusterIp => "ClusterIP",
        portolan_model::ServiceType::NodePort => "NodePort",
        portolan_model::ServiceType::LoadBalancer => "LoadBalancer",
    }
}
