//! `portolan get services`: the Services of this machine, as `kubectl` shows them.

use std::process::ExitCode;

use http::Method;
use portolan_cli::{Format, GetArgs, Global};
use serde_json::json;

use super::api;
use crate::{
    output::{
        age,
        problem::Hint,
        structured,
        table::{Table, plain},
    },
    services::{api::ServiceList, shown::Shown},
};

/// Whether that word asks for Services, and for which one (`service/web`).
pub(crate) fn asked(args: &GetArgs) -> Option<Option<String>> {
    let (kind, name) = args.name.split_once('/').map_or((args.name.as_str(), None), |(k, n)| (k, Some(n)));
    let services = matches!(kind, "service" | "services" | "svc");
    services.then(|| name.map(str::to_owned).or_else(|| args.service.clone()))
}

/// Asks and prints: one of them, or all.
pub(crate) async fn main(global: Global, args: &GetArgs, name: Option<String>) -> anyhow::Result<ExitCode> {
    let list: ServiceList = api::node(&global).request_json(Method::GET, "/v1/services", None::<&()>).await?;
    for problem in &list.problems {
        anstream::eprintln!("warning: {problem}; what the file said before holds");
    }
    let mut shown = list.services;
    shown.retain(|one| args.namespace.as_ref().is_none_or(|namespace| one.namespace == *namespace));
    if let Some(name) = &name {
        shown.retain(|one| one.name == *name);
        if shown.is_empty() {
            return Err(anyhow::anyhow!("services \"{name}\" not found"))
                .hint("`portolan get services` shows all of them");
        }
    }
    for one in &shown {
        if let Some(problem) = &one.problem {
            anstream::eprintln!("warning: {}: Service {}/{}: {problem}", one.source, one.namespace, one.name);
        }
    }
    let objects = || match (&name, shown.as_slice()) {
        (Some(_), [one]) => one.object(),
        _ => {
            json!({ "apiVersion": "v1", "kind": "List", "items": shown.iter().map(Shown::object).collect::<Vec<_>>() })
        }
    };
    match args.output {
        Format::Json => structured::json(&objects())?,
        Format::Yaml => structured::yaml(&objects())?,
        Format::Table | Format::Wide => {
            let table = table(&shown, args.output == Format::Wide);
            if table.is_empty() {
                anstream::eprintln!("No services found.");
            } else {
                table.print()?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(shown: &[Shown], wide: bool) -> Table {
    // Who has one namespace only is not told which.
    let namespaces = shown.iter().any(|one| one.namespace != "default");
    let mut headers = if namespaces { vec!["NAMESPACE"] } else { Vec::new() };
    headers.extend(["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    if wide {
        headers.extend(["SELECTOR", "ENDPOINTS", "FROM"]);
    }
    let mut table = Table::new(&headers);
    for one in shown {
        let mut row = if namespaces { vec![plain(&*one.namespace)] } else { Vec::new() };
        row.extend([
            plain(&*one.name),
            plain(&*one.kind),
            plain(cluster(one)),
            plain(external(one)),
            plain(ports(one)),
            plain(age::since(one.since)),
        ]);
        if wide {
            let selector: Vec<_> = one.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let ready = one.endpoints.iter().filter(|endpoint| endpoint.ready);
            let endpoints: Vec<_> = ready.map(|endpoint| endpoint.address.to_string()).collect();
            row.extend([
                plain(none(selector.join(","))),
                plain(none(endpoints.join(","))),
                plain(&*one.source),
            ]);
        }
        table.row(row);
    }
    table
}

fn none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

fn cluster(one: &Shown) -> String {
    let all: Vec<_> = one.cluster_addresses.iter().map(ToString::to_string).collect();
    if one.headless { "None".to_owned() } else { none(all.join(",")) }
}

fn external(one: &Shown) -> String {
    if let Some(name) = &one.external_name {
        return name.clone();
    }
    let all = one.load_balancer_addresses.iter().chain(&one.external_addresses);
    let all: Vec<_> = all.map(ToString::to_string).collect();
    if all.is_empty() && one.kind == "LoadBalancer" { "<pending>".to_owned() } else { none(all.join(",")) }
}

fn ports(one: &Shown) -> String {
    let port = |port: &crate::services::shown::ShownPort| match port.node_port {
        Some(node) => format!("{}:{node}/{}", port.port, port.protocol),
        None => format!("{}/{}", port.port, port.protocol),
    };
    none(one.ports.iter().map(port).collect::<Vec<_>>().join(","))
}
