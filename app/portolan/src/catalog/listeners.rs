//! Binds the listeners of `up` before anything is changed, and says who is in the way.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use portolan_model::Protocol;
use portolan_netlink::{process, sockdiag};
use socket2::{Domain, Socket, Type};

use crate::output::problem::Mendable;

/// A listener that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}: {}{}", reason(source), holder.as_ref().map(|h| format!(", by {h}")).unwrap_or_default())]
pub(crate) struct ListenError {
    /// Where.
    pub(crate) address: String,
    /// What was to be served there.
    pub(crate) what: &'static str,
    /// The flag that names another address.
    pub(crate) flag: &'static str,
    /// The process that has it.
    pub(crate) holder: Option<String>,
    source: io::Error,
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned(),
        _ => error.to_string(),
    }
}

impl Mendable for ListenError {
    fn hint(&self) -> String {
        match self.holder.as_deref() {
            Some(holder) if holder.starts_with("portolan") => {
                format!(
                    "is `portolan up` or `portolan demo` running already? Stop it, or choose another address: {} ADDRESS:PORT",
                    self.flag
                )
            }
            _ => format!("choose another address: {} ADDRESS:PORT", self.flag),
        }
    }
}

/// A TCP listener for an async runtime.
pub(crate) fn tcp(
    address: SocketAddr,
    what: &'static str,
    flag: &'static str,
) -> Result<TcpListener, ListenError> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        // For a server only: connections of the last run in TIME_WAIT are not in the way of this one.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        Ok(socket.into())
    };
    bind().map_err(|source| refused(source, address, Protocol::Tcp, what, flag))
}

/// Whether UDP and TCP can be had there, for a server that binds by itself: it cannot name the process in its way.
pub(crate) fn probe(address: SocketAddr, what: &'static str, flag: &'static str) -> Result<(), ListenError> {
    tcp(address, what, flag)?;
    match UdpSocket::bind(address) {
        Ok(_) => Ok(()),
        Err(source) => Err(refused(source, address, Protocol::Udp, what, flag)),
    }
}

fn refused(
    source: io::Error,
    address: SocketAddr,
    protocol: Protocol,
    what: &'static str,
    flag: &'static str,
) -> ListenError {
    let in_use = source.kind() == io::ErrorKind::AddrInUse;
    let holder = in_use.then(|| holder(address, protocol)).flatten();
    ListenError { address: address.to_string(), what, flag, holder, source }
}

/// The process that keeps the address from us, as far as this user may see it.
fn holder(address: SocketAddr, protocol: Protocol) -> Option<String> {
    let sockets = sockdiag::bound(protocol, address.port()).ok()?;
    sockets
        .iter()
        .filter(|socket| address.ip().is_unspecified() || socket.serves(address.ip()))
        .find_map(|socket| process::owner_of(socket.inode))
        .map(|process| process.to_string())
}

/// The unix socket of the data folder, mode 0600. One left by an `up` that was killed is replaced: the folder's lock
/// says that nobody serves it.
pub(crate) fn unix(path: &Path) -> Result<(UnixListener, UnixPath), ListenError> {
    let bind = || {
        if UnixStream::connect(path).is_err() {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map(|listener| (listener, UnixPath(path.to_owned()))).map_err(|source| ListenError {
        address: path.display().to_string(),
        what: "`portolan run`",
        flag: "--data",
        holder: None,
        source,
    })
}

/// Takes the socket's file away when dropped.
#[derive(Debug)]
pub(crate) struct UnixPath(PathBuf);

impl Drop for UnixPath {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %self.0.display(), %error, "cannot remove");
        }
    }
}
