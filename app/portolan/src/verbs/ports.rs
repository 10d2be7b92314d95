//! `portolan ports`: the pools of this machine, and who has which port.

use std::process::ExitCode;

use http::Method;
use portolan_cli::{Format, Global, PortsArgs};
use portolan_model::{Network, NodePorts, Owner, PublishedPort};

use super::api;
use crate::output::{
    structured,
    table::{Table, plain},
};

/// Asks the node over its unix socket and prints.
pub(crate) async fn main(global: Global, args: PortsArgs) -> anyhow::Result<ExitCode> {
    let ports: NodePorts =
        api::node(&global).request_json(Method::GET, "/v1/node/ports", None::<&()>).await?;
    match args.output {
        Format::Json => structured::json(&ports)?,
        Format::Yaml => structured::yaml(&ports)?,
        Format::Table => print(&ports, false)?,
        Format::Wide => print(&ports, true)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(ports: &NodePorts, wide: bool) -> anyhow::Result<()> {
    pools(ports).print()?;
    if !ports.leases.is_empty() {
        anstream::println!();
        leases(ports, wide).print()?;
    }
    Ok(())
}

fn pools(ports: &NodePorts) -> Table {
    let mut table = Table::new(&["POOL", "RANGE", "USED", "QUARANTINED", "FREE", "LARGEST BLOCK"]);
    for pool in &ports.pools {
        table.row([
            plain(pool.name.as_str()),
            plain(pool.range.to_string()),
            plain(pool.used.to_string()),
            plain(pool.quarantined.to_string()),
            plain(pool.free.to_string()),
            plain(pool.largest_block.to_string()),
        ]);
    }
    table
}

/// One row for each port.
fn leases(ports: &NodePorts, wide: bool) -> Table {
    let headers =
        ["INSTANCE", "PORT", "HOST", "PROTOCOL", "CONTAINER", "NETWORK", "PID", "ADDRESSES", "ONLY ON"];
    let mut table = Table::new(if wide { &headers } else { &headers[..7] });
    for lease in &ports.leases {
        let network = match lease.network {
            Network::Own => "own",
            Network::Host => "host",
        };
        let addresses: Vec<_> = lease.addresses.iter().map(ToString::to_string).collect();
        for port in &lease.ports {
            let mut row = vec![
                plain(lease.instance.as_str()),
                plain(port.name.as_str()),
                plain(port.host.to_string()),
                plain(port.protocols.to_string()),
                plain(container(port)),
                plain(network),
                plain(pid(&lease.owner)),
            ];
            if wide {
                row.push(plain(addresses.join(",")));
                row.push(plain(port.address.map(|address| address.to_string()).unwrap_or_default()));
            }
            table.row(row);
        }
    }
    table
}

/// The supervisor's number; a container's network has none.
fn pid(owner: &Owner) -> String {
    match owner {
        Owner::Process { pid, .. } => pid.to_string(),
        Owner::Namespace { .. } | Owner::Sandbox { .. } => String::new(),
    }
}

/// The port inside; a block keeps its numbers.
fn container(port: &PublishedPort) -> String {
    if port.host.is_single() { port.container.to_string() } else { port.host.to_string() }
}
