//! `portolan resolve`: what clients of the DNS server get for a name, asked over the network as they do.

pub(crate) mod ask;

use std::{collections::BTreeMap, net::IpAddr, process::ExitCode};

use anyhow::{Context, bail};
use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType},
};
use portolan_cli::{Format, ResolveArgs};
use serde::Serialize;

use crate::output::{
    problem::Hint,
    structured,
    table::{Table, plain},
};

/// The answer as programs get it.
#[derive(Serialize)]
struct Resolved {
    /// The full name that was asked for.
    name: String,
    /// Who answered.
    server: String,
    /// Where a client could connect: from SRV records, with the addresses of their targets.
    endpoints: Vec<Endpoint>,
    /// Everything that was answered.
    records: Vec<Line>,
}

#[derive(Serialize)]
struct Endpoint {
    target: String,
    port: u16,
    addresses: Vec<IpAddr>,
    weight: u16,
}

#[derive(Serialize)]
struct Line {
    name: String,
    ttl: u32,
    #[serde(rename = "type")]
    kind: String,
    data: String,
}

/// Asks and prints.
pub(crate) async fn main(args: ResolveArgs) -> anyhow::Result<ExitCode> {
    let name = full_name(&args.name, &args.zone)?;
    // An SRV name has no addresses; a plain one is asked for all that clients look for.
    let kinds: &[RecordType] = match args.name.starts_with('_') {
        true => &[RecordType::SRV],
        false => &[RecordType::A, RecordType::AAAA, RecordType::SRV],
    };
    let mut answers = Vec::new();
    let mut additional = Vec::new();
    for kind in kinds {
        let reply = ask::ask(args.dns, &name, *kind)
            .await
            .with_context(|| format!("cannot ask the DNS server at {}", args.dns))
            .hint("`portolan up` answers DNS at 127.0.0.1:10053; --dns names another server")?;
        match reply.metadata.response_code {
            ResponseCode::NoError => {}
            ResponseCode::NXDomain => {
                return Err(anyhow::anyhow!("there is no name {name}"))
                    .hint("`portolan list` shows the names of instances, and -o wide of their services");
            }
            code => bail!("the DNS server at {} refuses {name} {kind}: {code}", args.dns),
        }
        answers.extend(reply.answers);
        additional.extend(reply.additionals);
    }
    if answers.is_empty() {
        return Err(anyhow::anyhow!("{name} exists, but nothing of it is served now"))
            .hint("`portolan list -o wide` shows the state of each instance; only passing and warning ones are served");
    }
    let resolved = Resolved {
        name: name.to_ascii(),
        server: args.dns.to_string(),
        endpoints: endpoints(&answers, &additional),
        records: answers.iter().map(line).collect(),
    };
    match args.output {
        Format::Json => structured::json(&resolved)?,
        Format::Yaml => structured::yaml(&resolved)?,
        Format::Table => print(&resolved, false)?,
        Format::Wide => print(&resolved, true)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// With the zone behind it, unless it is there already or the name ends with a dot.
fn full_name(name: &str, zone: &str) -> anyhow::Result<Name> {
    let bare = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let complete = name.ends_with('.') || bare == zone || bare.ends_with(&format!(".{zone}"));
    let text = if complete { format!("{bare}.") } else { format!("{bare}.{zone}.") };
    Name::from_ascii(&text).with_context(|| format!("{name:?} is no DNS name"))
}

/// Each SRV record with the addresses of its target, where the server gave them along.
fn endpoints(answers: &[Record], additional: &[Record]) -> Vec<Endpoint> {
    let mut addresses: BTreeMap<&Name, Vec<IpAddr>> = BTreeMap::new();
    for record in answers.iter().chain(additional) {
        let address = match &record.data {
            RData::A(a) => IpAddr::V4(a.0),
            RData::AAAA(a) => IpAddr::V6(a.0),
            _ => continue,
        };
        let known = addresses.entry(&record.name).or_default();
        if !known.contains(&address) {
            known.push(address);
        }
    }
    let endpoint = |record: &Record| {
        let RData::SRV(srv) = &record.data else { return None };
        Some(Endpoint {
            target: srv.target.to_ascii(),
            port: srv.port,
            addresses: addresses.get(&srv.target).cloned().unwrap_or_default(),
            weight: srv.weight,
        })
    };
    let mut endpoints: Vec<_> = answers.iter().filter_map(endpoint).collect();
    // The server shuffles, for the sake of clients that take the first; people look for the one they know.
    endpoints.sort_by(|a, b| (&a.target, a.port).cmp(&(&b.target, b.port)));
    endpoints
}

fn line(record: &Record) -> Line {
    Line {
        name: record.name.to_ascii(),
        ttl: record.ttl,
        kind: record.record_type().to_string(),
        data: record.data.to_string(),
    }
}

/// Where to connect; with `wide`, or when there is no SRV record, every record as it is.
fn print(resolved: &Resolved, wide: bool) -> anyhow::Result<()> {
    if !resolved.endpoints.is_empty() {
        let mut table = Table::new(&["TARGET", "PORT", "ADDRESSES", "WEIGHT"]);
        for endpoint in &resolved.endpoints {
            let addresses: Vec<_> = endpoint.addresses.iter().map(ToString::to_string).collect();
            table.row([
                plain(&*endpoint.target),
                plain(endpoint.port.to_string()),
                plain(addresses.join(",")),
                plain(endpoint.weight.to_string()),
            ]);
        }
        table.print()?;
        if !wide {
            return Ok(());
        }
        anstream::println!();
    }
    let mut table = Table::new(&["NAME", "TTL", "TYPE", "DATA"]);
    for record in &resolved.records {
        table.row([
            plain(&*record.name),
            plain(record.ttl.to_string()),
            plain(&*record.kind),
            plain(&*record.data),
        ]);
    }
    Ok(table.print()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::rdata::{A, SRV};

    #[test]
    fn the_zone_is_added_where_it_is_missing() {
        let full = |name| full_name(name, "portolan.internal").unwrap().to_ascii();
        assert_eq!(full("web-0"), "web-0.portolan.internal.");
        assert_eq!(full("_http._tcp.web"), "_http._tcp.web.portolan.internal.");
        assert_eq!(full("Web.Portolan.Internal"), "web.portolan.internal.");
        assert_eq!(full("example.com."), "example.com.");
        assert!(full_name(&"a".repeat(70), "z").is_err());
    }

    #[test]
    fn an_endpoint_has_the_addresses_of_its_target_once() {
        let name = |text| Name::from_ascii(text).unwrap();
        let srv = |port, target| {
            Record::from_rdata(name("_http._tcp.web."), 5, RData::SRV(SRV::new(0, 100, port, name(target))))
        };
        let a = Record::from_rdata(name("web-0."), 5, RData::A(A::new(192, 0, 2, 1)));
        let found = endpoints(&[srv(2, "web-1."), srv(1, "web-0.")], &[a.clone(), a]);
        assert_eq!((found[0].port, found[0].addresses.len()), (1, 1));
        assert_eq!((found[1].port, found[1].addresses.len()), (2, 0));
    }
}
