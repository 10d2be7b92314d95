//! A machine that reaches the nodes and is none of them.

use std::{
    net::{IpAddr, SocketAddr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use portolan_cluster::Cluster;
use portolan_testkit::net::Namespace;
use tempfile::TempDir;

use crate::console::Place;

/// The cluster's client, with kubectl, as somebody who follows a document.
#[derive(Debug)]
pub struct Outside {
    namespace: Namespace,
    folder: TempDir,
    workdir: PathBuf,
}

impl Outside {
    /// In `workdir`, a folder of this repository, with the Kubernetes namespace `space` as kubectl's own.
    #[track_caller]
    pub fn new(cluster: &Cluster, space: &str, workdir: &str) -> Self {
        let namespace = super::client(cluster);
        let folder = TempDir::with_prefix("portolan-outside-").unwrap_or_else(|e| panic!("{e}"));
        let prepare = || -> std::io::Result<()> {
            let text = std::fs::read_to_string(cluster.inside_kubeconfig())?;
            std::fs::write(folder.path().join("kubeconfig"), text)?;
            std::fs::create_dir(folder.path().join("bin"))?;
            let kubectl = cluster.kubectl_command::<&str>(&[]).map_err(std::io::Error::other)?;
            symlink(kubectl.get_program(), folder.path().join("bin/kubectl"))
        };
        if let Err(error) = prepare() {
            panic!("cannot prepare {}: {error}", folder.path().display());
        }
        let workdir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(workdir);
        let outside = Self { namespace, folder, workdir };
        portolan_testkit::programs::run(
            &mut outside
                .shell(&format!("kubectl config set-context --current --namespace={space} >/dev/null")),
        );
        outside
    }

    /// Its network, in which sockets and browsers can be opened.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What `curl` gets there.
    pub fn http(&self, address: IpAddr, port: u16, path: &str) -> Result<String, String> {
        let server = SocketAddr::new(address, port);
        self.namespace
            .run(|| portolan_testkit::ask::http_get(server, path))
            .map_err(|e| format!("{server}: {e}"))
    }
}

impl Place for Outside {
    fn shell(&self, script: &str) -> Command {
        let mut shell = self.namespace.command("env");
        let path = std::env::var("PATH").unwrap_or_default();
        let folder = self.folder.path();
        shell
            .arg("--default-signal")
            .args(["sh", "-c", script])
            .current_dir(&self.workdir)
            .env("PATH", format!("{}:{path}", folder.join("bin").display()))
            .env("HOME", folder)
            .env("KUBECONFIG", folder.join("kubeconfig"));
        shell
    }
}
