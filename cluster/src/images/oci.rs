//! The OCI image layout in a tar file (opencontainers/image-spec v1.1, image-layout.md), with nothing that varies from
//! one build to the next.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// An image in the making.
#[derive(Debug, Default)]
pub struct Image {
    names: Vec<String>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    layers: Vec<Vec<u8>>,
}

impl Image {
    /// An image with these full names: with registry and tag.
    pub fn new<S: AsRef<str>>(names: &[S]) -> Self {
        Self { names: names.iter().map(|name| name.as_ref().to_owned()).collect(), ..Self::default() }
    }

    /// What runs, whatever arguments are given.
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The arguments, when none are given.
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Puts a layer on top.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer.finish());
        self
    }

    /// Writes the archive; the file is there whole or not at all.
    pub fn write(self, file: &Path) -> Result<()> {
        let temporary = file.with_extension(format!("tar.{}", std::process::id()));
        let written = fs::File::create(&temporary).and_then(|out| self.write_to(io::BufWriter::new(out)));
        written.with_context(|| format!("cannot write {}", temporary.display()))?;
        fs::rename(&temporary, file).with_context(|| format!("cannot make {}", file.display()))
    }

    fn write_to(self, out: impl io::Write) -> io::Result<()> {
        const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
        const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
        const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let digests: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.command,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/"],
            },
            "rootfs": { "type": "layers", "diff_ids": digests },
        })
        .to_string();
        let layers: Vec<_> = self
            .layers
            .iter()
            .zip(&digests)
            .map(|(layer, digest)| json!({ "mediaType": LAYER, "digest": digest, "size": layer.len() }))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": digest(config.as_bytes()), "size": config.len() },
            "layers": layers,
        })
        .to_string();
        let entries: Vec<_> = self
            .names
            .iter()
            .map(|name| {
                let tag = name.rsplit(':').next().unwrap_or("latest");
                json!({
                    "mediaType": MANIFEST,
                    "digest": digest(manifest.as_bytes()),
                    "size": manifest.len(),
                    "platform": { "architecture": architecture, "os": "linux" },
                    "annotations": { "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag },
                })
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string();

        let mut archive = tar::Builder::new(out);
        append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        append(&mut archive, "index.json", index.as_bytes(), 0o644)?;
        let blobs = self.layers.iter().map(Vec::as_slice).chain([config.as_bytes(), manifest.as_bytes()]);
        for blob in blobs {
            let name = digest(blob).replace(':', "/");
            append(&mut archive, &format!("blobs/{name}"), blob, 0o644)?;
        }
        io::Write::flush(&mut archive.into_inner()?)
    }
}

/// The files of a layer.
pub struct Layer(tar::Builder<Vec<u8>>);

impl std::fmt::Debug for Layer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Layer").field("bytes", &self.0.get_ref().len()).finish()
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// A layer with the folders that a container's mounts need, and a `/tmp`.
    pub fn new() -> Self {
        let mut layer = Self(tar::Builder::new(Vec::new()));
        for (path, mode) in
            [("dev", 0o755), ("etc", 0o755), ("proc", 0o755), ("run", 0o755), ("sys", 0o755), ("tmp", 0o1777)]
        {
            let mut header = header(0, mode);
            header.set_entry_type(tar::EntryType::Directory);
            layer.0.append_data(&mut header, path, io::empty()).expect("memory takes it");
        }
        layer
    }

    /// A program or library, from a file of this machine; links are followed.
    pub fn file(mut self, path: &str, source: &Path) -> Result<Self> {
        let bytes = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        append(&mut self.0, path, &bytes, 0o755).with_context(|| format!("cannot add {path}"))?;
        Ok(self)
    }

    /// A file with this text.
    pub fn text(mut self, path: &str, text: &str) -> Result<Self> {
        append(&mut self.0, path, text.as_bytes(), 0o644).with_context(|| format!("cannot add {path}"))?;
        Ok(self)
    }

    /// A symbolic link.
    pub fn link(mut self, path: &str, target: &str) -> Result<Self> {
        let mut header = header(0, 0o777);
        header.set_entry_type(tar::EntryType::Symlink);
        self.0.append_link(&mut header, path, target).with_context(|| format!("cannot add {path}"))?;
        Ok(self)
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("memory takes it")
    }
}

fn header(size: usize, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append<W: io::Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    bytes: &[u8],
    mode: u32,
) -> io::Result<()> {
    archive.append_data(&mut header(bytes.len(), mode), path, bytes)
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use serde_json::Value;

    use super::*;

    fn image() -> Image {
        let layer = Layer::new().text("etc/hello", "hello").unwrap().link("bin", "usr/bin").unwrap();
        Image::new(&["docker.io/library/a:1", "docker.io/library/b:2"]).entrypoint(&["/a"]).layer(layer)
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        });
        entries.collect()
    }

    #[test]
    fn every_digest_is_that_of_the_blob_of_its_name() {
        let mut out = Vec::new();
        image().write_to(&mut out).unwrap();
        let files = files(&out);
        let blob = |digest: &Value| &files[&format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"))];
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let names: Vec<_> = index["manifests"].as_array().unwrap().iter().collect();
        assert_eq!(names.len(), 2);
        assert_eq!(names[1]["annotations"]["io.containerd.image.name"], "docker.io/library/b:2");
        let manifest: Value = serde_json::from_slice(blob(&names[0]["digest"])).unwrap();
        let config: Value = serde_json::from_slice(blob(&manifest["config"]["digest"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"][0], "/a");
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = blob(&manifest["layers"][0]["digest"]);
        assert_eq!(manifest["layers"][0]["size"], layer.len());
        assert_eq!(digest(layer), manifest["layers"][0]["digest"].as_str().unwrap());
    }

    #[test]
    fn the_same_files_make_the_same_archive() {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        image().write_to(&mut first).unwrap();
        image().write_to(&mut second).unwrap();
        assert_eq!(first, second);
    }
}
