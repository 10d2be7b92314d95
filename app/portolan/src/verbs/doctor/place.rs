//! Where `portolan up` lives: its data folder and the addresses it listens on.

use std::{
    fs::File,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use portolan_model::Protocol;
use portolan_netlink::{process, sockdiag};
use rustix::fs::{Access, FlockOperation, access, flock};

use super::finding::Finding;

/// The process that has locked the data folder, if one has. 0 when it did not say its number.
pub(super) fn running_up(folder: &Path) -> Option<u32> {
    let mut lock = File::open(folder.join("lock")).ok()?;
    if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    let mut pid = String::new();
    let _ = lock.read_to_string(&mut pid);
    Some(pid.trim().parse().unwrap_or(0))
}

/// Whether the data folder can be used.
pub(super) fn folder(folder: &Path, up: Option<u32>) -> Finding {
    let shown = folder.display();
    if let Some(pid) = up {
        return Finding::ok(format!("data folder {shown}: in use by `portolan up` (pid {pid})"));
    }
    // The folder itself, or the nearest one above it that exists, in which it would be made.
    let nearest =
        folder.ancestors().find(|path| path.exists()).map_or_else(|| PathBuf::from("/"), Path::to_owned);
    if !nearest.is_dir() {
        return Finding::fail(
            format!("data folder {shown}: {} is no folder", nearest.display()),
            "give another by --data DIR",
        );
    }
    match access(&nearest, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if nearest == folder => Finding::ok(format!("data folder {shown}: can be written")),
        Ok(()) => Finding::ok(format!("data folder {shown}: can be made")),
        Err(error) => Finding::fail(
            format!("data folder {shown}: {} cannot be written: {error}", nearest.display()),
            "give another by --data DIR",
        ),
    }
}

/// Whether the addresses are free, or who has them.
pub(super) fn listeners(listen: &[SocketAddr], dns: SocketAddr, up: Option<u32>) -> Vec<Finding> {
    let tcp = listen
        .iter()
        .map(|address| (Protocol::Tcp, *address, "--listen, --register-listen or --page-listen"));
    let both = [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, dns, "--dns-listen"));
    tcp.chain(both).map(|(protocol, address, flag)| listener(protocol, address, flag, up)).collect()
}

fn listener(protocol: Protocol, address: SocketAddr, flag: &str, up: Option<u32>) -> Finding {
    let error = match protocol {
        Protocol::Udp => std::net::UdpSocket::bind(address).err(),
        // With SO_REUSEADDR, as servers have it: connections that are ending do not count.
        _ => std::net::TcpListener::bind(address).err(),
    };
    let Some(error) = error else { return Finding::ok(format!("{address}/{protocol}: free")) };
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return Finding::fail(
            format!("{address}/{protocol}: cannot listen there: {error}"),
            format!("give an address of this machine by {flag}"),
        );
    }
    let sockets = sockdiag::bound(protocol, address.port()).unwrap_or_default();
    let owner = sockets
        .iter()
        .filter(|socket| {
            socket.remote.is_none() && (address.ip().is_unspecified() || socket.serves(address.ip()))
        })
        .find_map(|socket| process::owner_of(socket.inode));
    match owner {
        Some(owner) if Some(owner.pid) == up => {
            Finding::ok(format!("{address}/{protocol}: `portolan up` (pid {}) listens", owner.pid))
        }
        Some(owner) => Finding::fail(
            format!("{address}/{protocol}: taken by {} (pid {})", owner.command, owner.pid),
            format!("stop it, or give `portolan up` another address by {flag}"),
        ),
        None => Finding::fail(
            format!("{address}/{protocol}: taken by a process that this user cannot see"),
            format!("`ss -lntup` as root says which; or give another address by {flag}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::doctor::finding::Level;

    #[test]
    fn a_taken_address_is_told_with_its_owner() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let finding = listener(Protocol::Tcp, taken.local_addr().unwrap(), "--listen", None);
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.what.contains(&format!("pid {}", std::process::id())), "{}", finding.what);
        let mine = listener(Protocol::Tcp, taken.local_addr().unwrap(), "--listen", Some(std::process::id()));
        assert_eq!(mine.level, Level::Ok);
    }

    #[test]
    fn a_locked_folder_names_who_has_it() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(running_up(home.path()), None);
        std::fs::write(home.path().join("lock"), "42\n").unwrap();
        assert_eq!(running_up(home.path()), None, "a lock file that nobody has locked is of a dead process");
        let lock = File::open(home.path().join("lock")).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(running_up(home.path()), Some(42));
        assert!(folder(home.path(), Some(42)).what.contains("pid 42"));
    }

    #[test]
    fn a_folder_that_does_not_exist_yet_can_be_made() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(folder(&home.path().join("a/b"), None).level, Level::Ok);
        assert_eq!(folder(Path::new("/dev/null/here"), None).level, Level::Fail);
    }
}
