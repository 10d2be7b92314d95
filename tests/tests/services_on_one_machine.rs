//! Services without Kubernetes: `up -f services.yaml`, `expose`, and what clients see of it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use portolan_testkit::{Portolan, ask, eventually, eventually_ok, need_root, programs};
use portolan_tests::{
    machine::Picture,
    services::{cluster_address, copies, service, up, wait_answers, web, who, write},
    world::{MACHINE, PATIENCE, connected, json, wait_passing},
};

#[test]
fn every_one_of_seven_copies_answers_at_one_address_and_a_dead_one_is_out() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let file = write(&machine, "services.yaml", &web("  type: NodePort\n"));
    let _up = up(&machine, &file, &[]);
    let mut copies = copies(&machine, "web", 7);
    wait_passing(&machine, 7);
    let names: Vec<String> = (0..7).map(|n| format!("web-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let address = SocketAddr::new(cluster_address(&machine, "web"), 80);
    let node_port = service(&machine, "web")["spec"]["ports"][0]["nodePort"].as_u64().expect("a node port");
    assert!((30_086..=32_767).contains(&node_port), "{node_port} is of the static band");
    // On the machine, from another machine, and from a copy itself, which may be sent to itself.
    wait_answers(machine.namespace(), address, &names);
    wait_answers(&world, SocketAddr::from((MACHINE, node_port as u16)), &names);
    let inside = format!("for i in $(seq 40); do curl -s --max-time 5 http://{address}/ || exit 1; done");
    let said = machine.portolan(&["run", "--network", "own", "--", "sh", "-c", &inside]).success();
    assert_eq!(said.matches("<h1>").count(), 40, "{said}");

    // One dies with its whole process group; nobody starts it again at once.
    let alive = machine.processes();
    let server =
        alive.iter().find(|(_, command)| command.contains("serve --udp-echo") && !command.contains(" run "));
    let (pid, _) = server.expect("a copy");
    programs::run(&mut programs::command("kill", ["-STOP", &pid.to_string()]));
    eventually(PATIENCE, || {
        let object = json(&machine.portolan(&["list", "-o", "json"]).success());
        let all = object.as_array().or(object["instances"].as_array()).cloned().unwrap_or_default();
        all.iter().filter(|one| one["state"] == "critical").count() == 1
    });
    let list = machine.portolan(&["list", "--state", "passing", "-o", "json"]).success();
    let list = json(&list);
    let left = list.as_array().or(list["instances"].as_array()).cloned().unwrap_or_default();
    let left: Vec<&str> = left.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(left.len(), 6, "{left:?}");
    wait_answers(machine.namespace(), address, &left);
    programs::run(&mut programs::command("kill", ["-CONT", &pid.to_string()]));
    wait_answers(machine.namespace(), address, &names);
    let status = machine.interrupt(&mut copies);
    assert!(status.code().is_some(), "{status}");
    // Nobody is left: a client is told so, at once.
    let refused = || ask::tcp(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    machine.namespace().run(|| eventually(PATIENCE, refused));
}

#[test]
fn an_edit_applies_and_a_broken_one_keeps_what_was_good() {
    need_root!();
    let machine = Portolan::new();
    let _world = connected(&machine);
    let file = write(&machine, "services.yaml", &web(""));
    let mut up = up(&machine, &file, &[]);
    let _copies = copies(&machine, "web", 1);
    wait_passing(&machine, 1);
    let address = cluster_address(&machine, "web");
    wait_answers(machine.namespace(), SocketAddr::new(address, 80), &["web"]);

    write(&machine, "services.yaml", &web("").replace("port: 80,", "port: 81,"));
    wait_answers(machine.namespace(), SocketAddr::new(address, 81), &["web"]);
    // F22: a cluster address refuses ports that nobody has.
    let closed =
        || ask::tcp((address, 80)).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    machine.namespace().run(|| eventually(PATIENCE, closed));

    write(&machine, "services.yaml", &web("").replace("port: 80,", "port: eighty,"));
    let said = up.wait_stderr(PATIENCE, |text| text.contains("still holds"));
    assert!(said.contains(&format!("{}:8: ", file.display())), "{said}");
    let output = machine.portolan(&["get", "services"]);
    assert!(output.stderr.contains("services.yaml:8"), "{}", output.stderr);
    wait_answers(machine.namespace(), SocketAddr::new(address, 81), &["web"]);

    write(&machine, "services.yaml", &web(""));
    wait_answers(machine.namespace(), SocketAddr::new(address, 80), &["web"]);
    write(&machine, "services.yaml", "# nothing any more\n");
    eventually(PATIENCE, || machine.portolan(&["get", "services"]).stderr.contains("No services found."));
}

#[test]
fn a_restart_keeps_addresses_and_connections_and_an_end_leaves_nothing() {
    need_root!();
    let machine = Portolan::new();
    let _world = connected(&machine);
    let file = write(&machine, "services.yaml", &web("  type: NodePort\n"));
    let before = Picture::of(&machine);
    let mut first = up(&machine, &file, &[]);
    let mut copies = copies(&machine, "web", 2);
    wait_passing(&machine, 2);
    let address = SocketAddr::new(cluster_address(&machine, "web"), 80);
    let ports = service(&machine, "web")["spec"]["ports"].clone();
    wait_answers(machine.namespace(), address, &["web-0", "web-1"]);
    let reserved = machine.namespace().read_sysctl("net/ipv4/ip_local_reserved_ports");
    assert!(reserved.contains(&ports[0]["nodePort"].to_string()), "{reserved}");

    // Killed: packets flow on, and the next one finds everything as it was.
    first.signal(rustix::process::Signal::KILL);
    first.wait(PATIENCE);
    who(machine.namespace(), address).expect("an answer without anybody who could give it");
    let mut second = up(&machine, &file, &[]);
    assert_eq!(SocketAddr::new(cluster_address(&machine, "web"), 80), address);
    assert_eq!(service(&machine, "web")["spec"]["ports"], ports);
    wait_passing(&machine, 2);
    wait_answers(machine.namespace(), address, &["web-0", "web-1"]);
    machine.interrupt(&mut copies);
    assert!(machine.interrupt(&mut second).success(), "{}", second.transcript());
    Picture::of(&machine).assert_same(&before);
}

#[test]
fn names_of_services_are_those_of_kubernetes() {
    need_root!();
    let machine = Portolan::new();
    let _world = connected(&machine);
    let more = "---\n{apiVersion: v1, kind: Service, metadata: {name: alias}, spec: {type: ExternalName, externalName: web.default.svc.portolan.internal}}\n\
                ---\n{apiVersion: v1, kind: Service, metadata: {name: each, namespace: shop}, spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}}\n";
    let file = write(&machine, "services.yaml", &format!("{}{more}", web("")));
    let _up = up(&machine, &file, &[]);
    let _copies = copies(&machine, "web", 2);
    wait_passing(&machine, 2);
    let dig = |words: &str| {
        let mut command = machine.observe("dig");
        command.args(["+short", "+time=2", "@127.0.0.1", "-p", "10053"]).args(words.split_whitespace());
        programs::run(&mut command).trim().to_owned()
    };
    let address = cluster_address(&machine, "web").to_string();
    assert_eq!(dig("web.default.svc.portolan.internal"), address);
    assert_eq!(
        dig("_http._tcp.web.default.svc.portolan.internal SRV"),
        "0 100 80 web.default.svc.portolan.internal."
    );
    assert_eq!(
        dig("alias.default.svc.portolan.internal"),
        format!("web.default.svc.portolan.internal.\n{address}")
    );
    eventually(PATIENCE, || dig("each.shop.svc.portolan.internal").lines().count() == 2);
    let ports = dig("_http._tcp.each.shop.svc.portolan.internal SRV");
    assert!(ports.contains("web-0.each.shop.svc.portolan.internal."), "{ports}");
    // From inside, by the resolver that instances have.
    let ask = "curl -s --max-time 5 http://web.default.svc.portolan.internal/";
    let said = machine.portolan(&["run", "--network", "own", "--", "sh", "-c", ask]).success();
    assert!(said.contains("<h1>web-"), "{said}");
}

#[test]
fn expose_makes_a_service_that_answers_when_it_says_so_and_lasts_until_it_is_deleted() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let mut up = machine.up(&[]);
    let _copies = copies(&machine, "web", 2);
    wait_passing(&machine, 2);
    let said =
        machine.portolan(&["expose", "web", "--port", "80", "--target-port", "http", "--type", "NodePort"]);
    assert_eq!(said.success(), "service/web exposed\n");
    let address = SocketAddr::new(cluster_address(&machine, "web"), 80);
    who(machine.namespace(), address).expect("an answer at once");
    wait_answers(machine.namespace(), address, &["web-0", "web-1"]);
    let said = machine.portolan(&[
        "expose",
        "instance/web-1",
        "--port",
        "80",
        "--target-port",
        "http",
        "--name",
        "second",
        "-o",
        "name",
    ]);
    assert_eq!(said.success(), "service/second\n");
    wait_answers(machine.namespace(), SocketAddr::new(cluster_address(&machine, "second"), 80), &["web-1"]);
    // UDP too, and another address that a neighbour routes here.
    let words = ["--port", "7", "--protocol", "UDP", "--target-port", "echo", "--external-ip", "203.0.113.9"];
    machine.portolan(&[&["expose", "web", "--name", "echo"], &words[..]].concat()).success();
    world.route("203.0.113.9 via 192.0.2.1");
    let echo = SocketAddr::from((Ipv4Addr::new(203, 0, 113, 9), 7));
    world.run(|| eventually_ok(PATIENCE, || ask::udp(echo))).expect("an echo");

    // The same as a file.
    let yaml = machine
        .portolan(&["expose", "web", "--port", "80", "--name", "x", "--dry-run=client", "-o", "yaml"])
        .success();
    assert!(yaml.contains("kind: Service") && yaml.contains("portolan.dev/service: web"), "{yaml}");
    assert!(!machine.portolan(&["get", "services"]).success().contains("\nx "));

    machine.interrupt(&mut up);
    let _up = machine.up(&[]);
    assert_eq!(cluster_address(&machine, "web"), address.ip());
    assert_eq!(machine.portolan(&["delete", "service", "web"]).success(), "service \"web\" deleted\n");
    let gone = || ask::tcp_within(address, Duration::from_secs(1)).is_err();
    machine.namespace().run(|| eventually(PATIENCE, gone));
    let table = machine.portolan(&["get", "services"]).success();
    assert!(table.starts_with("NAME ") && !table.contains("web ") && table.contains("second "), "{table}");
}

#[test]
fn what_cannot_be_is_told_with_what_to_do() {
    need_root!();
    let machine = Portolan::new();
    let _world = connected(&machine);
    let file = write(
        &machine,
        "services.yaml",
        &web("  type: NodePort\n  clusterIP: 10.250.0.9\n")
            .replace("targetPort: http", "targetPort: http, nodePort: 30080"),
    );
    let mut up = up(&machine, &file, &["--service-cidr", "10.250.0.0/24"]);
    let _copies = copies(&machine, "web", 1);
    wait_passing(&machine, 1);
    let refused = |words: &str| {
        let output = machine.portolan(&words.split_whitespace().collect::<Vec<_>>());
        assert!(!output.status.success(), "{words}: {}", output.stdout);
        output.stderr
    };
    for (words, reason) in [
        ("expose nobody --port 80", "no service or instance named \"nobody\" in the catalog"),
        ("expose web --port 80", "services \"web\" already exists"),
        (
            "expose web --port 80 --name x --cluster-ip 10.250.0.9",
            "provided IP is already allocated (by default/web)",
        ),
        ("expose web --port 80 --name x --cluster-ip 10.251.0.9", "The range of valid IPs is 10.250.0.0/24"),
        ("expose web --port 80 --name X", "use lower-case letters"),
        ("delete service web", "take it out there"),
        ("delete service none", "services \"none\" not found"),
        ("delete instance web", "write `portolan delete service NAME`"),
        ("get service none", "services \"none\" not found"),
        ("expose web --port 0", "0 is not in 1..=65535"),
        ("expose web --port 80 --type Nodeport2", "possible values: ClusterIP, NodePort, LoadBalancer"),
    ] {
        let said = refused(words);
        assert!(said.contains(reason), "{words}: {said}");
    }
    // A file that wants what somebody has.
    let taken = "---\n{apiVersion: v1, kind: Service, metadata: {name: other}, spec: {type: NodePort, ports: [{port: 1, nodePort: 30080}]}}\n";
    let text = std::fs::read_to_string(&file).expect("the file");
    write(&machine, "services.yaml", &format!("{text}{taken}"));
    let said = up.wait_stderr(PATIENCE, |text| text.contains("spec.ports[0].nodePort"));
    assert!(
        said.contains("spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"),
        "{said}"
    );

    // At the start a file that cannot be is an error.
    let mut bad = machine.command(&["up", "--no-dataplane", "-f", "/nowhere.yaml", "--data"]);
    let output = bad
        .arg(machine.folder().join("other"))
        .args([
            "--listen",
            "127.0.0.1:1",
            "--page-listen",
            "127.0.0.1:2",
            "--register-listen",
            "127.0.0.1:3",
            "--dns-listen",
            "127.0.0.1:4",
        ])
        .output()
        .expect("a start");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("/nowhere.yaml: cannot be read"), "{said}");
}
