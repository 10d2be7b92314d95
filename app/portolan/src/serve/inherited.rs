//! Sockets that the starter bound and passed on: descriptors from 3 on, as `sd_listen_fds(3)` describes.

use std::{env, io, os::fd::OwnedFd};

use anyhow::{Context, bail};
use rustix::{
    net::{SocketType, sockopt},
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
};

/// The first descriptor that is passed on (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

/// What was passed on, by kind.
#[derive(Default)]
pub(crate) struct Inherited {
    pub(crate) tcp: Vec<OwnedFd>,
    pub(crate) udp: Vec<OwnedFd>,
}

/// The sockets meant for this process; none when `LISTEN_PID` is another.
pub(crate) fn sockets() -> anyhow::Result<Inherited> {
    let mut inherited = Inherited::default();
    let pid = env::var("LISTEN_PID").ok().and_then(|pid| pid.parse().ok());
    if pid != Some(getpid().as_raw_nonzero().get()) {
        return Ok(inherited);
    }
    let count = env::var("LISTEN_FDS").unwrap_or_default();
    let count: i32 = count
        .parse()
        .ok()
        .filter(|count| (0..=1024).contains(count))
        .with_context(|| format!("LISTEN_FDS is {count:?}: it must be a number of sockets"))?;
    // Own copies of the descriptors, the one way to take them over without a claim that the compiler cannot check.
    let this =
        pidfd_open(getpid(), PidfdFlags::empty()).context("cannot open a descriptor of this process")?;
    for number in FIRST..FIRST + count {
        let socket = pidfd_getfd(&this, number, PidfdGetfdFlags::empty())
            .map_err(io::Error::from)
            .with_context(|| format!("LISTEN_FDS promises a socket as descriptor {number}"))?;
        match sockopt::socket_type(&socket) {
            Ok(SocketType::STREAM) => {
                // A socket that only held its port does not listen yet; on one that does this changes nothing.
                rustix::net::listen(&socket, 1024)
                    .map_err(io::Error::from)
                    .with_context(|| format!("cannot listen on the inherited descriptor {number}"))?;
                inherited.tcp.push(socket);
            }
            Ok(SocketType::DGRAM) => inherited.udp.push(socket),
            Ok(kind) => {
                bail!("the inherited descriptor {number} is of kind {kind:?}: only TCP and UDP are served")
            }
            Err(error) => {
                return Err(io::Error::from(error))
                    .with_context(|| format!("the inherited descriptor {number} is no socket"));
            }
        }
    }
    Ok(inherited)
}
