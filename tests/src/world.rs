//! A machine as its clients see it: from another machine, and through what `list` and `ports` say.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use portolan_testkit::{
    Portolan, ask, eventually_ok,
    net::{End, Namespace, link},
};
use serde_json::Value;

/// How long anything may take that needs a process to start, on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The address of the machine on its link to the rest of the world.
pub const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The address of a client on that link.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Another machine, linked to this one; the default route of either leads to the other.
#[track_caller]
pub fn connected(machine: &Portolan) -> Namespace {
    let world = Namespace::new();
    link(
        End::new(&world, "eth0", &["192.0.2.2/24", "fd02::2/64"]),
        End::new(machine.namespace(), "eth0", &["192.0.2.1/24", "fd02::1/64"]),
    );
    machine.namespace().route("default via 192.0.2.2");
    machine.namespace().route("default via fd02::2");
    world
}

/// What `portolan list -o json` says about each instance.
#[track_caller]
pub fn instances(machine: &Portolan) -> Vec<Value> {
    let listing = json(&machine.portolan(&["list", "-o", "json"]).success());
    array(if listing.is_array() { &listing } else { &listing["instances"] })
}

/// What `portolan ports -o json` says about each lease.
#[track_caller]
pub fn leases(machine: &Portolan) -> Vec<Value> {
    array(&json(&machine.portolan(&["ports", "-o", "json"]).success())["leases"])
}

/// Waits until the catalog has so many instances and all of them are passing.
#[track_caller]
pub fn wait_passing(machine: &Portolan, count: usize) -> Vec<Value> {
    let all = eventually_ok(PATIENCE, || {
        let all = instances(machine);
        let good = all.len() == count && all.iter().all(|instance| instance["state"] == "passing");
        if good { Ok(all) } else { Err(all) }
    });
    all.unwrap_or_else(|all| panic!("not {count} passing instances but {all:#?}"))
}

/// The host port, or the first of the block, of an instance's port. Waits until the node knows it.
#[track_caller]
pub fn host_port(machine: &Portolan, instance: &str, port: &str) -> u16 {
    let found = eventually_ok(PATIENCE, || {
        let leases = leases(machine);
        let lease = leases.iter().find(|lease| lease["instance"] == instance);
        let ports = lease.map(|lease| array(&lease["ports"])).unwrap_or_default();
        let host = ports.iter().find(|published| published["name"] == port).map(|port| port["host"].clone());
        let host =
            host.as_ref().and_then(Value::as_str).and_then(|text| text.split('-').next()?.parse().ok());
        host.ok_or(leases)
    });
    found.unwrap_or_else(|leases| panic!("no port {port} of {instance} in {leases:#?}"))
}

/// The body of a page of the machine, asked for by the world at a host port; waits until somebody answers.
#[track_caller]
pub fn page(world: &Namespace, port: u16, path: &str) -> String {
    page_at(world, MACHINE.into(), port, path)
}

/// [`page`] at another address of the machine.
#[track_caller]
pub fn page_at(world: &Namespace, address: IpAddr, port: u16, path: &str) -> String {
    let target = SocketAddr::new(address, port);
    let body = world.run(|| eventually_ok(PATIENCE, || ask::http_get(target, path)));
    body.unwrap_or_else(|error| panic!("http://{target}{path}: {error}"))
}

/// Text as JSON.
#[track_caller]
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON: {error}\n{text}"))
}

/// The elements of an array; none for anything else.
pub fn array(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}
