//! Portolan on the cluster: its image on the nodes, its chart by Helm.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use portolan_cluster::{Cluster, Tools, images};
use portolan_testkit::programs;
use rustix::fs::{FlockOperation, flock};

/// How long all of it may take to start.
const START: Duration = Duration::from_secs(120);

/// The chart, and the Helm that is used on it.
#[derive(Clone, Debug)]
pub struct Chart {
    helm: String,
    kubeconfig: Option<PathBuf>,
    folder: PathBuf,
}

impl Chart {
    /// Helm for this cluster; `None` when it is not built.
    pub fn new(cluster: Option<&Cluster>) -> Option<Self> {
        let helm = Tools::new().ok()?.program("helm").ok()?;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/portolan");
        Some(Self { helm, kubeconfig: cluster.map(Cluster::kubeconfig), folder })
    }

    /// A call of Helm; `CHART` stands for the folder of the chart.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.helm);
        let folder = self.folder.to_string_lossy().into_owned();
        command.args(words.iter().map(|word| if *word == "CHART" { folder.as_str() } else { word }));
        // Nothing of the user's own settings, and no kubeconfig but the one meant.
        let home = std::env::temp_dir().join("portolan-helm");
        command.env("HELM_CONFIG_HOME", &home).env("HELM_CACHE_HOME", &home).env("HELM_DATA_HOME", &home);
        match &self.kubeconfig {
            Some(file) => command.env("KUBECONFIG", file),
            None => command.env_remove("KUBECONFIG"),
        };
        command
    }

    /// A call that must succeed.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        programs::run(&mut self.command(words))
    }
}

/// The archive of Portolan's image: `PORTOLAN_TEST_IMAGE`, else what `cargo xtask image` writes.
pub fn image() -> PathBuf {
    match std::env::var_os("PORTOLAN_TEST_IMAGE") {
        Some(file) => file.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image/portolan.tar"),
    }
}

/// Loads the image into every node, unless the nodes have this very one. Says whether they got a new one.
#[track_caller]
pub fn load_image(cluster: &Cluster) -> bool {
    let _lock = lock(cluster);
    load(cluster)
}

#[track_caller]
fn load(cluster: &Cluster) -> bool {
    let mark = cluster.folder().join("tests-image");
    let archive = image();
    let known = match archive.metadata().and_then(|found| Ok((found.len(), found.modified()?))) {
        Ok(found) => format!("{found:?} on {}", cluster.node_count()),
        Err(error) => panic!("{}: {error}: `cargo xtask image` makes it", archive.display()),
    };
    if std::fs::read_to_string(&mark).is_ok_and(|last| last == known) {
        return false;
    }
    let tools = Tools::new().and_then(|tools| images::debian_tools(&tools, &|_: &str| {}));
    let loaded = tools.and_then(|tools| cluster.load(&tools)).and_then(|()| cluster.load(&archive));
    if let Err(error) = loaded {
        panic!("{error:#}");
    }
    if let Err(error) = std::fs::write(&mark, known) {
        panic!("{}: {error}", mark.display());
    }
    true
}

/// Waits until Portolan runs on every node, after installing it if it is not there or is another than ours.
#[track_caller]
pub fn installed(cluster: &'static Cluster) -> Chart {
    let Some(chart) = Chart::new(Some(cluster)) else {
        panic!("helm is not built: `cargo xtask cluster build helm` does it")
    };
    // Nobody else may find it installed before it is the one that was loaded.
    let _lock = lock(cluster);
    let fresh = load(cluster);
    let release =
        ["upgrade", "--install", "portolan", "CHART", "--namespace", "portolan", "--create-namespace"];
    chart.run(&release);
    if fresh {
        for what in ["daemonset/portolan-agent", "deployment/portolan-webhook"] {
            let restarted = cluster.run_kubectl(&["-n", "portolan", "rollout", "restart", what]);
            assert!(restarted.is_ok(), "{restarted:?}");
        }
    }
    // An agent is ready when it has its holder.
    for what in ["daemonset/portolan-agent", "deployment/portolan-webhook"] {
        if let Err(error) = cluster.wait_for_rollout("portolan", what, START) {
            let told = ["-n", "portolan", "describe", "pods"];
            let told = cluster.run_kubectl(&told).unwrap_or_default();
            let logs = ["-n", "portolan", "logs", what, "--all-pods", "--tail=30"];
            let logs = cluster.run_kubectl(&logs).unwrap_or_default();
            panic!("{error:#}\n{told}\n{logs}");
        }
    }
    chart
}

/// One process at a time: test binaries may run beside each other.
fn lock(cluster: &Cluster) -> File {
    let path = cluster.folder().join("tests-lock");
    let file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if let Err(error) = flock(&file, FlockOperation::LockExclusive) {
        panic!("{}: {error}", path.display());
    }
    file
}
