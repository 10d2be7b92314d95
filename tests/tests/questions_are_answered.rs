//! `list`, `get`, `watch`, `resolve` and `ports` tell what is there, to people and to programs.

use portolan_testkit::{Portolan, need_root};
use portolan_tests::world::{PATIENCE, json, wait_passing};
use rustix::process::Signal;

#[test]
fn without_a_server_each_says_what_to_do() {
    need_root!();
    let machine = Portolan::new();
    for words in [&["list"][..], &["get", "web-0"], &["watch"]] {
        let said = machine.portolan(words).failure(1);
        assert!(said.starts_with("error: no portolan at http://127.0.0.1:10080"), "{said}");
        assert!(said.contains("portolan up") && said.contains("hint: --server"), "{said}");
    }
    let said = machine.portolan(&["ports"]).failure(1);
    assert!(said.contains("portolan up") && said.contains("--data"), "{said}");
    let said = machine.portolan(&["resolve", "web"]).failure(1);
    assert!(said.contains("127.0.0.1:10053") && said.contains("--dns"), "{said}");
}

#[test]
fn an_instance_is_found_by_each_of_them() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    let mut watch = machine.start(&["watch", "-o", "json"]);
    let mut serve = machine.start(&["serve", "--name", "web-0", "--service", "web", "-l", "zone=b"]);
    let all = wait_passing(&machine, 1);
    let port = all[0]["ports"][0]["port"].as_str().expect("a port").to_owned();

    let table = machine.portolan(&["list"]).success();
    let mut lines = table.lines();
    assert!(lines.next().expect("headers").starts_with("NAME   STATE    ADDRESS"), "{table}");
    let row = lines.next().expect("a row");
    assert!(row.starts_with("web-0  passing  ") && row.contains(&format!("http={port}")), "{table}");
    assert!(!table.contains('\x1b'), "colours in a pipe");
    let colours = machine.portolan(&["list", "--color", "always"]).success();
    assert!(colours.contains("\x1b["), "{colours:?}");

    let wide = machine.portolan(&["list", "-o", "wide"]).success();
    assert!(
        wide.contains("SERVICE") && wide.contains("zone=b") && wide.contains("http:/healthz@http"),
        "{wide}"
    );
    let yaml = machine.portolan(&["list", "-o", "yaml"]).success();
    assert!(yaml.contains("name: web-0"), "{yaml}");

    for (filter, found) in [
        (&["--name", "web-0"][..], true),
        (&["--service", "web", "--state", "passing,warning"], true),
        (&["-l", "zone=b", "--port", "http"], true),
        (&["--port", &port], true),
        (&["--service", "web", "-l", "zone=a"], false),
        (&["--state", "critical"], false),
        (&["--port", "1"], false),
    ] {
        let listing = json(&machine.portolan(&[&["list", "-o", "json"], filter].concat()).success());
        assert_eq!(listing["instances"].as_array().expect("a list").len(), usize::from(found), "{filter:?}");
    }

    let told = machine.portolan(&["get", "web-0"]).success();
    for part in
        ["Name:        web-0", "Service:     web", "State:       passing, for ", "Check:       http:/healthz"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(json(&machine.portolan(&["get", "web-0", "-o", "json"]).success())["name"], "web-0");
    let said = machine.portolan(&["get", "web-9"]).failure(1);
    assert!(said.contains("there is no instance web-9") && said.contains("portolan list"), "{said}");

    let srv = machine.portolan(&["resolve", "_http._tcp.web"]).success();
    assert!(srv.contains("TARGET") && srv.contains(&port), "{srv}");
    let plain = json(&machine.portolan(&["resolve", "web-0", "-o", "json"]).success());
    assert_eq!(plain["endpoints"][0]["port"].to_string(), port);
    let said = machine.portolan(&["resolve", "nobody"]).failure(1);
    assert!(said.contains("there is no name nobody.portolan.internal"), "{said}");

    serve.signal(Signal::TERM);
    serve.wait(PATIENCE);
    let stream = watch.wait_stdout(PATIENCE, |said| said.contains("\"type\":\"removed\""));
    let kinds: Vec<_> =
        stream.lines().map(|line| json(line)["type"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(kinds.first().map(String::as_str), Some("added"), "{stream}");
    assert_eq!(kinds.last().map(String::as_str), Some("removed"), "{stream}");
    watch.signal(Signal::INT);
}

#[test]
fn pools_and_leases_are_shown() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&["--pool", "20000-20099", "--pool", "media=30000-30099"]);
    let _run =
        machine.start(&["run", "--name", "relay", "-p", "media/udp:10,pool=media", "--", "sleep", "1000"]);
    portolan_tests::world::host_port(&machine, "relay", "media");
    let table = machine.portolan(&["ports"]).success();
    let line = |start: &str| {
        let line = table.lines().find(|line| line.starts_with(start));
        let words = line.unwrap_or_else(|| panic!("no {start} in {table}")).split_whitespace();
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("default")[..4], ["default", "20000-20099", "0", "0"]);
    assert_eq!(line("media")[..3], ["media", "30000-30099", "10"]);
    let relay = line("relay");
    assert!(relay[1] == "media" && relay[2].starts_with("300") && relay[3] == "udp", "{table}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    need_root!();
    let machine = Portolan::new();
    let shell = format!("{} doctor 2>&1 | head -1", portolan_testkit::binary().display());
    let output = machine.program("sh").args(["-c", &shell]).output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains("error") && !said.contains("panicked"), "{said}");
}
