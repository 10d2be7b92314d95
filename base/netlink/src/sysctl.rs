//! Kernel settings below `/proc/sys`.
//!
//! Those below `net` are the calling thread's network namespace's. Paths are written with slashes
//! (`net/ipv4/conf/eth0.5/rp_filter`), because a name of an interface may have a dot in it (sysctl.d(5)).

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// The path leads out of `/proc/sys`.
    #[error("{0:?} is no kernel setting: write it like net/ipv4/ip_forward")]
    BadPath(String),
    /// It could not be read.
    #[error("cannot read the kernel setting {path}: {source}")]
    Read {
        /// Which one, as it was asked for.
        path: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// It could not be written.
    #[error("cannot set the kernel setting {path} to {value:?}: {source}{}", hint(source))]
    Write {
        /// Which one, as it was asked for.
        path: String,
        /// What it was to be.
        value: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (needs root in the namespace's owner)",
        io::ErrorKind::ReadOnlyFilesystem => {
            " (/proc/sys is mounted read-only, as in most containers: set it on the host, or run privileged)"
        }
        io::ErrorKind::NotFound => " (this kernel has no such setting, or the interface is gone)",
        _ => "",
    }
}

impl SysctlError {
    /// Whether there is no such setting.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::BadPath(_) => false,
            Self::Read { source, .. } | Self::Write { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
            }
        }
    }
}

/// More than any setting is long: `ip_local_reserved_ports` with every other port is 200 kB.
const LONGEST: usize = 1 << 18;

/// The value of a setting, without white space around it.
pub fn read(path: &str) -> Result<String, SysctlError> {
    // By one read call: the kernel answers a second one on a bitmap such as `ip_local_reserved_ports` with nothing
    // (kernel/sysctl.c, v6.12, proc_do_large_bitmap), and the standard library begins with a small one.
    let whole = |file: PathBuf| {
        let mut bytes = vec![0; LONGEST];
        let length = fs::File::open(file)?.read(&mut bytes)?;
        bytes.truncate(length);
        String::from_utf8(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    };
    whole(file(path)?)
        .map(|text| text.trim().to_owned())
        .map_err(|source| SysctlError::Read { path: path.to_owned(), source })
}

/// Sets a setting.
pub fn write(path: &str, value: &str) -> Result<(), SysctlError> {
    // One write call with the whole value: the kernel takes each call for a value of its own.
    fs::write(file(path)?, value).map_err(|source| SysctlError::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// The names below a folder of settings, sorted: `list("net/ipv6/conf")` are the interfaces with `all` and `default`.
pub fn list(path: &str) -> Result<Vec<String>, SysctlError> {
    let fail = |source| SysctlError::Read { path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(file(path)?).map_err(fail)? {
        names.extend(entry.map_err(fail)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

fn file(path: &str) -> Result<PathBuf, SysctlError> {
    let plain = !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if plain { Ok(Path::new("/proc/sys").join(path)) } else { Err(SysctlError::BadPath(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use portolan_testkit::{need_root, net::private_namespace};

    use super::*;

    #[test]
    fn a_setting_belongs_to_the_namespace_and_is_read_back() {
        need_root!();
        private_namespace(|| {
            let (path, before) = ("net/ipv4/ip_forward", read("net/ipv4/ip_forward").unwrap());
            let other = if before == "1" { "0" } else { "1" };
            write(path, other).unwrap();
            assert_eq!(read(path).unwrap(), other);
            let fresh = crate::namespace::Namespace::create().unwrap();
            let there = fresh.run(|| write("net/ipv4/conf/lo/forwarding", before.as_str())).unwrap();
            there.unwrap();
            assert_eq!(read(path).unwrap(), other, "another namespace has settings of its own");
            assert!(list("net/ipv6/conf").unwrap().contains(&"lo".to_owned()));
        });
    }

    #[test]
    fn a_long_list_of_ports_is_read_whole() {
        need_root!();
        private_namespace(|| {
            let ports: Vec<String> = (20_000..29_000).step_by(2).map(|port| port.to_string()).collect();
            let list = ports.join(",");
            write("net/ipv4/ip_local_reserved_ports", &list).unwrap();
            assert_eq!(read("net/ipv4/ip_local_reserved_ports").unwrap(), list);
        });
    }

    #[test]
    fn errors_name_the_setting_the_value_and_the_reason() {
        let error = write("net/ipv4/no_such_setting", "1").unwrap_err();
        assert!(error.to_string().contains("net/ipv4/no_such_setting to \"1\""), "{error}");
        assert!(read("net/ipv4/no_such_setting").unwrap_err().is_absent());
        for path in ["", "/etc/passwd", "net/../../etc/passwd", "net//ipv4"] {
            assert!(matches!(read(path), Err(SysctlError::BadPath(_))), "{path}");
        }
    }
}
