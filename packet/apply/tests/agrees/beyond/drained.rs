//! Connections to endpoints that went: they go on, and end when their Service says so.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use portolan_apply::{
    ServiceEvent::{RemoveService, SetSlice},
    ServicePlane,
};
use portolan_model::{PortRange, PortSpan, Protocol, ServiceOptions};
use portolan_testkit::need_root;

use super::{CLUSTER, ENDPOINTS, EXTERNAL, NODE, NODE_PORT, apply, serve, service, slices};
use crate::{
    reference::cases::{Ip, VERSIONS},
    site::Site,
};

const DRAIN: Duration = Duration::from_millis(700);
const LONG: Duration = Duration::from_secs(15);

fn connect(site: &Site, ip: Ip, interface: Option<&str>, source: &str, to: SocketAddr) -> TcpStream {
    let namespace = interface.map_or(&site.node, |interface| &site.behind(interface).namespace);
    let mut stream = namespace.run(|| {
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(ip.address(source), 0).into()).unwrap();
        socket.connect_timeout(&to.into(), Duration::from_secs(3)).unwrap();
        TcpStream::from(socket)
    });
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut greeting = [0; 200];
    assert!(stream.read(&mut greeting).unwrap() > 0);
    stream
}

fn speak(stream: &mut TcpStream) -> Result<(), ErrorKind> {
    let mut byte = [0];
    stream.write_all(b"x").map_err(|error| error.kind())?;
    stream.read_exact(&mut byte).map_err(|error| error.kind())
}

#[test]
fn connections_live_on_for_the_time_of_their_service_and_are_reset_then() {
    need_root!();
    let (_site, plane, mut streams) = connected();
    let begun = Instant::now();
    plane.change(slices(&ENDPOINTS[1..2]).into_iter().map(SetSlice).collect()).unwrap();
    for (name, stream) in &mut streams {
        let spoken = speak(stream);
        if begun.elapsed() < DRAIN {
            assert_eq!(spoken, Ok(()), "{name} after {:?}", begun.elapsed());
        }
    }
    for (name, stream) in &mut streams {
        let error = loop {
            match speak(stream) {
                Ok(()) => assert!(begun.elapsed() < LONG, "{name} is never reset"),
                Err(error) => break error,
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(begun.elapsed() >= DRAIN, "{name} is reset too soon");
        assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error), "{name}: {error:?}");
    }
}

#[test]
fn connections_outlive_their_service() {
    need_root!();
    let (_site, plane, mut streams) = connected();
    let begun = Instant::now();
    plane.change(vec![RemoveService(service(options()).name)]).unwrap();
    while begun.elapsed() < DRAIN * 2 {
        for (name, stream) in &mut streams {
            assert_eq!(speak(stream), Ok(()), "{name}");
        }
    }
}

/// The Service with one endpoint, and connections to it.
fn connected() -> (Site, ServicePlane, Vec<(String, TcpStream)>) {
    let site = Site::new();
    serve(&site, &[8080, 20_000]);
    let plane = apply(&site, service(options()), &ENDPOINTS[..1]);
    let streams = everywhere(&site);
    (site, plane, streams)
}

/// A connection from everybody by every kind of frontend.
fn everywhere(site: &Site) -> Vec<(String, TcpStream)> {
    let mut streams = Vec::new();
    for ip in VERSIONS {
        for (source, interface) in super::SOURCES {
            for (address, port) in [(CLUSTER, 80), (EXTERNAL, 80), (NODE, NODE_PORT), (CLUSTER, 20_000)] {
                let to = SocketAddr::new(ip.address(address), port);
                streams.push((format!("{source} to {to}"), connect(site, ip, interface, source, to)));
            }
        }
    }
    streams
}

fn options() -> ServiceOptions {
    let spans = vec![PortSpan { protocol: Protocol::Tcp, ports: PortRange::new(20_000, 20_100).unwrap() }];
    ServiceOptions { drain: Some(DRAIN), spans, ..ServiceOptions::default() }
}
