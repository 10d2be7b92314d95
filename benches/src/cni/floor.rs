//! What the kernel needs for a block of ports, whoever holds it: a program that binds the same sockets and closes them.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use portolan_model::PortRange;
use portolan_testkit::net::Namespace;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use super::Times;

/// From so many ports on the sockets are most of what a call takes.
pub(super) const MANY: u16 = 1_000;

pub(super) const NAME: &str = "a program that binds these sockets (ADD) and closes them (DEL)";

/// Some times, on a node where nobody else has these ports.
pub(super) fn round(times: &mut Times, samples: usize, node: &Namespace, ports: PortRange) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("raising the limit of open files")?;
    times.add.begin_round();
    times.del.begin_round();
    node.run(|| {
        for _ in 0..samples {
            let sockets = times.add.time(|| ports.iter().map(bound).collect::<Result<Vec<_>>>())?;
            std::thread::sleep(super::PAUSE);
            times.del.time(|| drop(sockets));
            std::thread::sleep(super::PAUSE);
        }
        Ok(())
    })
}

/// As the holder does it: both versions of IP by one socket, which does not listen.
fn bound(port: u16) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()).context("binding a port")?;
    Ok(socket)
}
