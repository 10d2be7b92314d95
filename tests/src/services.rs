//! Services of one machine: what tests of `up -f` and `expose` have in common.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use portolan_testkit::{Background, Portolan, ask, eventually_ok, net::Namespace};
use serde_json::Value;

use crate::world::{PATIENCE, json};

/// Copies of the dynamic-port server, with a TCP and a UDP port each.
#[track_caller]
pub fn copies(machine: &Portolan, name: &str, replicas: usize) -> Background {
    let program = portolan_testkit::binary().to_str().expect("a path").to_owned();
    let count = replicas.to_string();
    let label = format!("app={name}");
    let words = ["run", "--network", "own", "--name", name, "--replicas", &count, "-l", &label];
    let ports = ["-p", "http", "-p", "echo/udp", "--health", "http:/healthz,interval=1s"];
    let command = ["--", &program, "serve", "--udp-echo"];
    machine.start(&[&words[..], &ports, &command].concat())
}

/// Writes a file of the machine's folder as editors do: another one takes its place.
#[track_caller]
pub fn write(machine: &Portolan, name: &str, text: &str) -> PathBuf {
    let path = machine.folder().join(name);
    let new = machine.folder().join("new");
    std::fs::write(&new, text).expect("a file");
    std::fs::rename(&new, &path).expect("another name");
    path
}

/// `up` with this file.
#[track_caller]
pub fn up(machine: &Portolan, file: &Path, more: &[&str]) -> Background {
    let file = file.to_str().expect("a path");
    machine.up(&[&["-f", file], more].concat())
}

/// A Service that selects the copies of `web`, with more lines in its spec.
pub fn web(more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  selector: {{app: web}}\n{more}  ports:\n  - {{name: http, port: 80, targetPort: http}}\n"
    )
}

/// A Service as `get` shows it.
#[track_caller]
pub fn service(machine: &Portolan, name: &str) -> Value {
    json(&machine.portolan(&["get", "service", name, "-o", "json"]).success())
}

/// Its first cluster address.
#[track_caller]
pub fn cluster_address(machine: &Portolan, name: &str) -> IpAddr {
    let object = service(machine, name);
    let text = object["spec"]["clusterIP"].as_str().unwrap_or_default();
    text.parse().unwrap_or_else(|_| panic!("no cluster address in {object:#}"))
}

/// The copy that answered: the page has its name as heading.
#[track_caller]
pub fn who(client: &Namespace, to: SocketAddr) -> io::Result<String> {
    let page = client.run(|| ask::http_get(to, "/"))?;
    let name = page.split("<h1>").nth(1).and_then(|rest| rest.split("</h1>").next());
    name.map(str::to_owned).ok_or_else(|| io::Error::other(page.clone()))
}

/// Asks until these have answered, and no others.
#[track_caller]
pub fn wait_answers(client: &Namespace, to: SocketAddr, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    let mut last = String::new();
    let result = eventually_ok(PATIENCE, || {
        let mut seen = BTreeSet::new();
        for _ in 0..8 * expected.len() + 8 {
            match who(client, to) {
                Ok(name) => _ = seen.insert(name),
                Err(error) => {
                    last = error.to_string();
                    return Err(seen);
                }
            }
        }
        if seen == expected { Ok(()) } else { Err(seen) }
    });
    result.unwrap_or_else(|seen| panic!("{to}: {seen:?} answered instead of {expected:?}; {last}"));
}
