//! `/etc/resolv.conf`: which resolvers this machine uses (resolv.conf(5)).

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// glibc uses three name servers (MAXNS); so do we.
const MOST: usize = 3;

/// How old the last look at the file may be. A laptop that changes networks waits no longer than this.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The name servers in the text of a resolv.conf, in order.
pub(crate) fn name_servers(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") { None } else { words.next().and_then(parse) }
    });
    servers.take(MOST).collect()
}

/// An address, where one of IPv6 may have a scope behind `%`: the interface's number (a name needs the kernel).
fn parse(text: &str) -> Option<SocketAddr> {
    match text.split_once('%') {
        None => Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53)),
        Some((address, scope)) => {
            let index = scope.parse().ok().or_else(|| interface_index(scope))?;
            Some(SocketAddrV6::new(address.parse::<Ipv6Addr>().ok()?, 53, 0, index).into())
        }
    }
}

/// The number of an interface by sysfs; read only when a scope is given by name.
fn interface_index(name: &str) -> Option<u32> {
    if name.contains('/') || name.starts_with('.') {
        return None;
    }
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

/// The resolvers to forward to: fixed, or those of a file that is read again when it changes.
#[derive(Debug)]
pub(crate) enum Upstreams {
    Fixed(Arc<[SocketAddr]>),
    File { path: PathBuf, own: Vec<SocketAddr>, last: Mutex<Look> },
}

#[derive(Debug)]
pub(crate) struct Look {
    at: Option<Instant>,
    modified: Option<SystemTime>,
    servers: Arc<[SocketAddr]>,
}

impl Upstreams {
    /// Those of the file, without `own`: a resolver that forwards to itself forwards for ever.
    pub(crate) fn file(path: &Path, own: Vec<SocketAddr>) -> Self {
        let none = Look { at: None, modified: None, servers: Arc::new([]) };
        Self::File { path: path.to_owned(), own, last: Mutex::new(none) }
    }

    /// Who to ask now, in order.
    pub(crate) fn now(&self) -> Arc<[SocketAddr]> {
        let (path, own, last) = match self {
            Self::Fixed(servers) => return servers.clone(),
            Self::File { path, own, last } => (path, own, last),
        };
        let mut look = last.lock().unwrap_or_else(PoisonError::into_inner);
        if look.at.is_none_or(|at| at.elapsed() > LOOK_AGAIN) {
            look.at = Some(Instant::now());
            // A small local file, once in two seconds at most: shorter than handing it to another thread.
            match read_if_changed(path, look.modified) {
                Ok(None) => {}
                Ok(Some((modified, text))) => {
                    look.modified = modified;
                    let mut servers = name_servers(&text);
                    servers.retain(|server| !own.contains(server));
                    tracing::info!(file = %path.display(), ?servers, "upstream resolvers");
                    look.servers = servers.into();
                }
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "cannot read the upstream resolvers, keeping the last ones");
                }
            }
        }
        look.servers.clone()
    }
}

type Changed = Option<(Option<SystemTime>, String)>;

fn read_if_changed(path: &Path, before: Option<SystemTime>) -> io::Result<Changed> {
    let modified = std::fs::metadata(path)?.modified().ok();
    if modified.is_some() && modified == before {
        return Ok(None);
    }
    Ok(Some((modified, std::fs::read_to_string(path)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_name_servers_count() {
        let text = "# by hand\nsearch example.org\nnameserver 192.0.2.1\n  nameserver\t2001:db8::1\nnameserver nonsense\nnameserver fe80::1%7\nnameserver 192.0.2.4\noptions ndots:5\n";
        let servers: Vec<_> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%7]:53"]);
        assert!(name_servers("").is_empty());
        assert!(name_servers("nameserver fe80::1%../../x\nnameservers 192.0.2.1").is_empty());
    }

    #[test]
    fn a_changed_file_is_read_again_and_we_are_not_our_own_upstream() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nameserver 10.213.0.1\nnameserver 192.0.2.1\n").unwrap();
        let upstreams = Upstreams::file(file.path(), vec!["10.213.0.1:53".parse().unwrap()]);
        assert_eq!(*upstreams.now(), ["192.0.2.1:53".parse().unwrap()]);

        std::fs::write(file.path(), "nameserver 192.0.2.2\n").unwrap();
        let Upstreams::File { last, .. } = &upstreams else { unreachable!() };
        let mut look = last.lock().unwrap();
        look.at = None;
        look.modified = None; // Two writes within one tick of the file system's clock.
        drop(look);
        assert_eq!(*upstreams.now(), ["192.0.2.2:53".parse().unwrap()]);

        std::fs::remove_file(file.path()).unwrap();
        let Upstreams::File { last, .. } = &upstreams else { unreachable!() };
        last.lock().unwrap().at = None;
        assert_eq!(*upstreams.now(), ["192.0.2.2:53".parse().unwrap()], "the last ones are kept");
    }
}
