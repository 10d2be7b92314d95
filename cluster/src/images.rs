//! The images of a cluster, made on this machine without a registry and without a build tool for containers.
//!
//! An image is an OCI layout in a tar file, as `ctr images import` takes it: static programs from the cache, and Debian's
//! own programs with the libraries they need. Archives are in the cache's `images/`, named by what they are made of.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::tools::{COREDNS, Say, Tools};

mod debian;
mod oci;

pub use oci::{Image, Layer};

/// The sandbox image of containerd, and the one of the e2e tests.
const PAUSE: [&str; 2] = ["registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10.2"];
/// The versions that the e2e tests of Kubernetes 1.36.3 ask for (test/utils/image/manifest.go).
const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
const REGRESSION: &str = "registry.k8s.io/e2e-test-images/regression-issue-74839:1.4";
/// Debian's tools under a name of ours, and those under which the e2e tests ask for a `dig`, a shell or a `conntrack`.
const TOOLS: [&str; 5] = [
    "docker.io/library/debian-tools:1",
    "registry.k8s.io/e2e-test-images/jessie-dnsutils:1.7",
    "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0",
    "registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
    "registry.k8s.io/build-image/distroless-iptables:v0.9.6",
];

/// The name of the CoreDNS image.
pub(crate) fn coredns_name() -> String {
    format!("registry.k8s.io/coredns/coredns:v{COREDNS}")
}

/// The sandbox image.
pub fn pause(tools: &Tools) -> Result<PathBuf> {
    let program = PathBuf::from(tools.program("pause")?);
    archive(tools, "pause", std::slice::from_ref(&program), || {
        let layer = Layer::new().file("pause", &program)?;
        Ok(Image::new(&PAUSE).entrypoint(&["/pause"]).layer(layer))
    })
}

/// The cluster's DNS.
pub fn coredns(tools: &Tools, say: Say<'_>) -> Result<PathBuf> {
    tools.build(&["dns"], say)?;
    let program = PathBuf::from(tools.program("coredns")?);
    archive(tools, "coredns", std::slice::from_ref(&program), || {
        let layer = Layer::new().file("coredns", &program)?;
        Ok(Image::new(&[&coredns_name()]).entrypoint(&["/coredns"]).layer(layer))
    })
}

/// A shell, curl, dig, nc, coturn and more, from the Debian packages of this machine.
pub fn debian_tools(tools: &Tools, say: Say<'_>) -> Result<PathBuf> {
    let files = debian::files(say)?;
    let sources: Vec<PathBuf> = files.iter().map(|file| file.source.clone()).collect();
    archive(tools, "debian-tools", &sources, || {
        Ok(Image::new(&TOOLS).command(&["/bin/sh"]).layer(debian::layer(&files)?))
    })
}

/// The server and client of the e2e tests, with Debian's tools beside it: the tests call `sh`, `nc` and `curl` in it.
pub fn agnhost(tools: &Tools, say: Say<'_>) -> Result<PathBuf> {
    tools.build(&["agnhost"], say)?;
    let program = PathBuf::from(tools.program("agnhost")?);
    let files = debian::files(say)?;
    let mut sources: Vec<PathBuf> = files.iter().map(|file| file.source.clone()).collect();
    sources.push(program.clone());
    archive(tools, "agnhost", &sources, || {
        let image = Image::new(&[AGNHOST]).entrypoint(&["/agnhost"]).command(&["pause"]);
        Ok(image.layer(debian::layer(&files)?).layer(Layer::new().file("agnhost", &program)?))
    })
}

/// The server of one of the e2e tests.
pub fn regression(tools: &Tools, say: Say<'_>) -> Result<PathBuf> {
    tools.build(&["regression"], say)?;
    let program = PathBuf::from(tools.program("regression-issue-74839")?);
    archive(tools, "regression", std::slice::from_ref(&program), || {
        let layer = Layer::new().file("regression-issue-74839", &program)?;
        Ok(Image::new(&[REGRESSION]).entrypoint(&["/regression-issue-74839"]).layer(layer))
    })
}

/// Portolan itself, from scratch: a static program, and the CNI plugin if it is beside it.
pub fn portolan(program: &Path, version: &str) -> Result<Image> {
    let mut layer = Layer::new().file("portolan", program)?;
    let plugin = program.with_file_name("portolan-cni");
    if plugin.is_file() {
        layer = layer.file("portolan-cni", &plugin)?;
    }
    let name = format!("docker.io/library/portolan:{version}");
    Ok(Image::new(&[&name]).entrypoint(&["/portolan"]).layer(layer))
}

/// The archive in the cache that is made of these files, made now unless it is there.
fn archive(
    tools: &Tools,
    name: &str,
    sources: &[PathBuf],
    make: impl FnOnce() -> Result<Image>,
) -> Result<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let mut hasher = Sha256::new();
    // This crate decides too: names, entry points, what is put where.
    hasher.update(concat!(
        include_str!("images.rs"),
        include_str!("images/oci.rs"),
        include_str!("images/debian.rs")
    ));
    for source in sources {
        let found = fs::metadata(source).with_context(|| format!("cannot read {}", source.display()))?;
        hasher.update(format!("{} {} {}\n", source.display(), found.len(), found.mtime()));
    }
    let hash: String = hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let folder = tools.cache().join("images");
    let file = folder.join(format!("{name}-{hash}.tar"));
    if !file.is_file() {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        make()?.write(&file)?;
        forget_older(&folder, name, &file);
    }
    Ok(file)
}

/// Removes the archives that this one takes the place of.
fn forget_older(folder: &Path, name: &str, kept: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let hash =
            file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('-')?.strip_suffix(".tar"));
        let ours = hash.is_some_and(|hash| hash.len() == 12 && hash.chars().all(|c| c.is_ascii_hexdigit()));
        if ours && entry.path() != kept {
            let _ = fs::remove_file(entry.path());
        }
    }
}
