//! An image with a shell: an OCI layout in a tar file, made of this machine's dash, cat and sleep.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use portolan_testkit::programs::{command, need, run};
use sha2::{Digest as _, Sha256};

use crate::cri::IMAGE;

/// Programs of the image, all of them small and linked to the C library alone.
const PROGRAMS: [&str; 3] = ["dash", "cat", "sleep"];

/// Writes the image to `file`.
pub(crate) fn write(file: &Path) {
    let layer = layer();
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"Entrypoint":["/bin/sleep","infinity"],"Env":["PATH=/bin"]}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        digest(&layer)
    );
    let described = |kind: &str, content: &[u8]| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{}","size":{}}}"#,
            digest(content),
            content.len()
        )
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        described("config.v1+json", config.as_bytes()),
        described("layer.v1.tar", &layer)
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{},"annotations":{{"io.containerd.image.name":"{IMAGE}","org.opencontainers.image.ref.name":"1"}}}}]}}"#,
        described("manifest.v1+json", manifest.as_bytes()).trim_end_matches('}')
    );
    let mut tar = tar::Builder::new(fs::File::create(file).unwrap());
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
    add(&mut tar, "index.json", index.as_bytes(), 0o644);
    for blob in [&layer[..], config.as_bytes(), manifest.as_bytes()] {
        add(&mut tar, &format!("blobs/sha256/{}", &digest(blob)[7..]), blob, 0o644);
    }
    tar.finish().unwrap();
}

fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut libraries = BTreeSet::new();
    for program in PROGRAMS {
        let file = need(program);
        libraries.extend(libraries_of(&file));
        let name = if program == "dash" { "sh" } else { program };
        add(&mut tar, &format!("bin/{name}"), &fs::read(&file).unwrap(), 0o755);
    }
    for library in libraries {
        // `tar` has no absolute names.
        let name = library.to_string_lossy().trim_start_matches('/').to_owned();
        add(&mut tar, &name, &fs::read(&library).unwrap(), 0o755);
    }
    tar.into_inner().unwrap()
}

/// The files that ldd names: "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" and "/lib64/ld-linux-x86-64.so.2 (0x…)".
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let told = run(&mut command("ldd", [program]));
    told.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .filter(|p| p.is_file())
        .collect()
}

fn add(tar: &mut tar::Builder<impl std::io::Write>, name: &str, content: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, name, content).unwrap();
}

fn digest(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}
