//! What the tests of this crate share: the holder's program, a folder, and looking at ports from outside.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    ffi::OsString,
    io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use portolan_ports::{hold::Hold, holder::HolderClient};
use socket2::{Domain, Socket, Type};

/// The holder of the tests.
pub(crate) fn holder_program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| example("holder")).clone()
}

/// An example of this crate, as fresh as its sources.
pub(crate) fn example(name: &str) -> PathBuf {
    portolan_testkit::built(&["--package", "portolan-ports", "--example", name]).join("examples").join(name)
}

/// A client of a holder in `folder`, which ends with the folder's [`Holders`].
pub(crate) fn connect(folder: &Path, args: &[&str]) -> HolderClient {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    HolderClient::connect_or_spawn(&holder_program(), &args, &folder.join("holder.sock")).unwrap()
}

/// A folder whose holders are ended with it.
pub(crate) struct Holders(pub(crate) tempfile::TempDir);

impl Holders {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        if self.path().join("holder.sock").exists() {
            let socket = self.path().join("holder.sock");
            if let Ok(client) = HolderClient::connect_or_spawn(&holder_program(), &[], &socket) {
                let _ = client.shutdown();
            }
        }
    }
}

pub(crate) fn hold(text: &str) -> Hold {
    let (ports, protocol) = text.split_once('/').unwrap();
    let (address, ports) = match ports.rsplit_once(':') {
        Some((address, ports)) => (Some(address.trim_matches(['[', ']']).parse().unwrap()), ports),
        None => (None, ports),
    };
    Hold { protocol: protocol.parse().unwrap(), address, ports: ports.parse().unwrap() }
}

/// Binds as another process would.
pub(crate) fn bind(kind: Type, address: &str, reuse: bool) -> io::Result<Socket> {
    let address: SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_reuse_address(reuse)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Connects as a client would.
pub(crate) fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(2))
}
