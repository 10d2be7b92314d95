//! Programs of this machine with the libraries they need, for an image.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::Layer;
use crate::{
    command,
    tools::{Say, on_path_of_debian},
};

/// Programs that must be there, with their Debian packages.
const NEEDED: &[(&str, &str)] = &[
    ("dash", "dash"),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("host", "bind9-host"),
    ("nslookup", "bind9-dnsutils"),
    ("nc.openbsd", "netcat-openbsd"),
    ("turnserver", "coturn"),
    ("turnutils_uclient", "coturn"),
    ("turnutils_peer", "coturn"),
    ("turnutils_stunclient", "coturn"),
    ("wget", "wget"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("socat", "socat"),
    ("grep", "grep"),
    ("sed", "sed"),
    ("hostname", "hostname"),
    ("getent", "libc-bin"),
];
/// Of coreutils, which are always there.
const COREUTILS: &str = "basename cat chmod cp cut date dd df dirname echo env expr false head id ln ls mkdir mktemp mv \
    nproc printenv printf pwd readlink rm rmdir seq sha256sum sleep sort stat sync tail tee test timeout touch tr true \
    uname uniq wc whoami yes";
/// More names for what is there.
const ALSO: &[(&str, &str)] = &[("usr/bin/sh", "dash"), ("usr/bin/nc", "nc.openbsd")];

/// A file of this machine and its path in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) source: PathBuf,
    path: String,
}

/// The programs and their libraries.
pub(super) fn files(say: Say<'_>) -> Result<Vec<File>> {
    let mut missing = BTreeSet::new();
    let mut programs = Vec::new();
    let coreutils = COREUTILS.split_whitespace().map(|name| (name, "coreutils"));
    for (program, package) in NEEDED.iter().copied().chain(coreutils) {
        match on_path_of_debian(program) {
            Some(found) => programs.push(found),
            None => drop(missing.insert(package)),
        }
    }
    // coturn is for a few tests, and everything else of the image can do without it.
    if missing.remove("coturn") {
        say("coturn is not installed: the image debian-tools is without it");
    }
    if !missing.is_empty() {
        let missing: Vec<_> = missing.into_iter().collect();
        bail!(
            "missing for the image debian-tools: {}; scripts/prerequisites installs them",
            missing.join(", ")
        );
    }
    let mut all: BTreeMap<String, PathBuf> = BTreeMap::new();
    for library in libraries(&programs)?.into_iter().chain(programs) {
        let source = library.canonicalize().with_context(|| format!("cannot read {}", library.display()))?;
        all.insert(merged(&library), source);
    }
    Ok(all.into_iter().map(|(path, source)| File { source, path }).collect())
}

/// The layer of these files.
pub(super) fn layer(files: &[File]) -> Result<Layer> {
    let mut layer = Layer::new();
    for folder in ["bin", "sbin", "lib", "lib64"] {
        layer = layer.link(folder, &format!("usr/{folder}"))?;
    }
    for file in files {
        layer = layer.file(&file.path, &file.source)?;
    }
    for (path, target) in ALSO {
        layer = layer.link(path, target)?;
    }
    layer
        .text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")?
        .text("etc/group", "root:x:0:\nnogroup:x:65534:\n")?
        .text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
}

/// Where a file is in the image: everything is below `/usr`, whether or not this machine has merged them.
fn merged(path: &Path) -> String {
    let path = path.to_string_lossy();
    let path = path.trim_start_matches('/');
    if path.starts_with("usr/") { path.to_owned() } else { format!("usr/{path}") }
}

/// The libraries of all of these programs, and their loader.
fn libraries(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let said = command::run(Command::new("ldd").args(programs))?;
    Ok(said.lines().filter_map(library).map(PathBuf::from).collect())
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, or `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn library(line: &str) -> Option<&str> {
    let line = line.strip_prefix('\t')?;
    let place = line.split_once(" => ").map_or(line, |(_, place)| place);
    place.split_once(" (").map(|(path, _)| path).filter(|path| path.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_understood() {
        assert_eq!(
            library("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)"),
            Some("/lib/x86_64-linux-gnu/libc.so.6")
        );
        assert_eq!(library("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)"), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007ff)"), None);
        assert_eq!(library("/usr/bin/curl:"), None);
    }

    #[test]
    fn everything_is_below_usr() {
        assert_eq!(merged(Path::new("/lib64/ld.so")), "usr/lib64/ld.so");
        assert_eq!(merged(Path::new("/usr/bin/dig")), "usr/bin/dig");
    }
}
