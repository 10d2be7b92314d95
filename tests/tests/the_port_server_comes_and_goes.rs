//! The dynamic-port server: it takes a port that is free, tells the registry where it is, and takes leave.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::mpsc,
    time::Duration,
};

use portolan_testkit::{Background, Portolan, ask, eventually, need_root};
use portolan_tests::world::{PATIENCE, instances, wait_passing};
use rustix::process::Signal;

/// The port that the server says it listens on.
#[track_caller]
fn port(serve: &Background) -> u16 {
    let line = |said: &str| said.lines().any(|line| line.starts_with("Listening on 0.0.0.0:"));
    let said = serve.wait_stdout_shared(line);
    let port = said.lines().find_map(|line| line.strip_prefix("Listening on 0.0.0.0:")?.trim().parse().ok());
    port.unwrap_or_else(|| panic!("no port in {said}"))
}

/// `wait_stdout` for a server that the test goes on to use.
trait Shared {
    fn wait_stdout_shared(&self, condition: impl Fn(&str) -> bool) -> String;
}

impl Shared for Background {
    #[track_caller]
    fn wait_stdout_shared(&self, condition: impl Fn(&str) -> bool) -> String {
        eventually(PATIENCE, || condition(&self.stdout()));
        self.stdout()
    }
}

#[test]
fn it_registers_is_checked_and_takes_leave() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    let mut serve =
        machine.start(&["serve", "--name", "web-0", "--service", "web", "-l", "zone=b", "--udp-echo"]);
    let port = port(&serve);
    let all = wait_passing(&machine, 1);
    assert_eq!(all[0]["name"], "web-0");
    assert_eq!(all[0]["service"], "web");
    assert_eq!(all[0]["labels"]["zone"], "b");
    assert_eq!(all[0]["ports"][0]["port"], port.to_string());
    serve.signal(Signal::TERM);
    assert!(serve.wait(PATIENCE).success(), "{}", serve.transcript());
    assert!(instances(&machine).is_empty(), "it did not take leave: {}", serve.transcript());
}

#[test]
fn it_answers_both_families_and_echoes() {
    need_root!();
    let machine = Portolan::new();
    let serve = machine.start(&["serve", "--name", "web-0", "--udp-echo", "-advertised-ip", "127.0.0.1"]);
    let port = port(&serve);
    serve.wait_stdout_shared(|said| said.contains(&format!("Registering endpoint [127.0.0.1:{port}]")));
    machine.namespace().run(|| {
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()] {
            assert_eq!(ask::http(address, "GET", "/healthz", "").expect("an answer"), (200, String::new()));
            let page = ask::http_get(address, "/any/path").expect("a page");
            assert!(page.contains("<title>Dynamic Port Server</title>"), "{page}");
            assert!(page.contains(&format!("<h1>web-0</h1><p>127.0.0.1:{port}</p>")), "{page}");
        }
        let echoed = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            socket.send_to(b"hello", ("127.0.0.1", port))?;
            let mut buffer = [0; 16];
            let length = socket.recv(&mut buffer)?;
            Ok(buffer[..length].to_vec())
        });
        assert_eq!(echoed.expect("an echo"), b"hello");
    });
    serve.wait_stdout_shared(|said| said.contains("\"GET /healthz HTTP/1.1\""));
}

#[test]
fn it_can_be_told_to_turn_unhealthy_and_back() {
    need_root!();
    let machine = Portolan::new();
    let mut serve = machine.start(&["serve", "--name", "web-0"]);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&serve)));
    let status =
        |method, path| machine.namespace().run(|| ask::http(address, method, path, "")).expect("an answer").0;
    serve.signal(Signal::USR1);
    eventually(PATIENCE, || status("GET", "/healthz") == 503);
    serve.signal(Signal::USR1);
    eventually(PATIENCE, || status("GET", "/healthz") == 200);
    assert_eq!(status("POST", "/unhealthy"), 200);
    assert_eq!(status("GET", "/healthz"), 503);
    assert_eq!(status("POST", "/healthy"), 200);
    assert_eq!(status("GET", "/healthz"), 200);
}

#[test]
fn another_machine_cannot_turn_it_unhealthy() {
    need_root!();
    let machine = Portolan::new();
    let world = portolan_tests::world::connected(&machine);
    let serve = machine.start(&["serve", "--name", "web-0"]);
    let address = SocketAddr::from((portolan_tests::world::MACHINE, port(&serve)));
    let status = |path| world.run(|| ask::http(address, "POST", path, "")).expect("an answer").0;
    assert_eq!(status("/unhealthy"), 403);
    assert_eq!(status("/healthz"), 200);
    serve.wait_stdout_shared(|said| said.contains("Registering endpoint [192.0.2.1:"));
}

#[test]
fn it_registers_with_the_tutorials_registry_byte_for_byte() {
    need_root!();
    let machine = Portolan::new();
    let registry = machine.namespace().run(|| TcpListener::bind("127.0.0.1:0")).expect("a listener");
    let authority = registry.local_addr().expect("its address").to_string();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        // As the original: /register answers 200 and nothing, all else 404.
        for stream in registry.incoming().take(20) {
            let Ok(mut stream) = stream else { return };
            let mut request = vec![0; 4096];
            let mut length = 0;
            while !request[..length].windows(4).any(|w| w == b"\r\n\r\n")
                || (request.starts_with(b"POST") && !request[..length].ends_with(b"\n"))
                || (request.starts_with(b"POST") && request[..length].ends_with(b"\r\n\r\n"))
            {
                match stream.read(&mut request[length..]) {
                    Ok(0) | Err(_) => break,
                    Ok(more) => length += more,
                }
            }
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            let status = if text.starts_with("POST /register ") { "200 OK" } else { "404 Not Found" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            if tell.send(text).is_err() {
                return;
            }
        }
    });
    let flags =
        ["-service-instance-name", "Pod.1", "-advertised-ip", "192.0.2.7", "-service-registry", &authority];
    let serve = machine.start(&[&["serve"], &flags[..]].concat());
    let port = port(&serve);
    loop {
        let request = told.recv_timeout(PATIENCE).expect("a registration");
        if let Some((_, body)) =
            request.split_once("\r\n\r\n").filter(|_| request.starts_with("POST /register "))
        {
            let expected = format!("{{\"Name\":\"Pod.1\",\"Address\":\"192.0.2.7:{port}\",\"Tags\":null}}\n");
            assert_eq!(body, expected);
            return;
        }
    }
}

#[test]
fn it_finds_out_that_a_registry_is_portolans() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    let _renewing = machine.start(&["serve", "--name", "a", "-service-registry", "127.0.0.1:10080"]);
    let _tutorial = machine.start(&["serve", "--name", "b", "-service-registry", "127.0.0.1:10081"]);
    let all = wait_passing(&machine, 2);
    // Only Portolan's own API takes a service's name.
    assert_eq!(all[0]["service"], "dynamic-port-server", "{all:#?}");
}

#[test]
fn no_metadata_service_is_a_clear_error() {
    need_root!();
    let machine = Portolan::new();
    let said = machine.portolan(&["serve", "-register-instance-external-ip"]).failure(1);
    assert!(
        said.contains("external address") && said.contains("hint: leave -register-instance-external-ip out"),
        "{said}"
    );
}

#[test]
fn a_registry_that_comes_late_is_found() {
    need_root!();
    let machine = Portolan::new();
    let _serve = machine.start(&["serve", "--name", "early"]);
    let _up = machine.up(&[]);
    wait_passing(&machine, 1);
}
