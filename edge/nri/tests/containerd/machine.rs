//! A machine of the test's own with containerd on it: namespaces for processes, mounts and network.
//!
//! Everything on it ends with its first process, however the test ends.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use portolan_testkit::{Background, eventually_ok, programs, skip};
use tempfile::TempDir;

use crate::{cri::Cri, image};

/// containerd loads its plugins and opens a database that it syncs to the disk.
const START: Duration = Duration::from_secs(60);

/// A CNI plugin that makes no network, but gives addresses as one that did.
const NETWORK: &str = r#"#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' ;;
ADD) n=$((0x$(printf %.4s "${CNI_CONTAINERID}")))
	echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'"$CNI_NETNS"'"}],"ips":[{"address":"10.88.'$((n / 256)).$((n % 256))'/16","interface":0},{"address":"fd00:88::'$(printf %x $n)'/64","interface":0}]}' ;;
esac
"#;

pub(crate) struct Machine {
    folder: TempDir,
    programs: PathBuf,
    containerd: Option<Background>,
    init: Background,
    pub(crate) cri: Cri,
}

impl Machine {
    /// A machine with containerd running and the image loaded. `None` when there is no containerd, which skips the test.
    pub(crate) async fn start() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let Some(programs) = programs_folder() else {
            skip("containerd is not built: `cargo xtask cluster build node` does it");
            return None;
        };
        let folder = TempDir::with_prefix("portolan-nri-").unwrap();
        let at = |name: &str| folder.path().join(name);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cri = Cri {
            socket: at("containerd.sock"),
            logs: at("logs"),
            cgroup: format!("/portolan-nri-{}-{number}", std::process::id()),
        };
        for name in ["bin", "cni", "logs", "run"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("bin/network"), NETWORK).unwrap();
        programs::run(&mut programs::command("chmod", ["755", at("bin/network").to_str().unwrap()]));
        fs::write(
            at("cni/10-network.conflist"),
            r#"{"cniVersion":"1.0.0","name":"network","plugins":[{"type":"network"}]}"#,
        )
        .unwrap();
        fs::write(at("containerd.toml"), configuration(folder.path())).unwrap();
        image::write(&at("image.tar"));
        // /run of its own: shims and network namespaces are there under fixed names.
        let script = "mount -t tmpfs -o mode=755 run /run && ip link set lo up && exec sleep infinity";
        let init = Background::start(&mut programs::command(
            "unshare",
            [
                "--mount",
                "--propagation",
                "private",
                "--net",
                "--uts",
                "--ipc",
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child",
                "sh",
                "-c",
                script,
            ],
        ));
        let mut machine = Self { folder, programs, containerd: None, init, cri };
        machine.start_containerd().await;
        let image = machine.path("image.tar").to_string_lossy().into_owned();
        let socket = machine.cri.socket.to_string_lossy().into_owned();
        let ctr = machine.programs.join("ctr");
        programs::run(
            &mut machine.command(&ctr, &["-a", &socket, "-n", "k8s.io", "images", "import", &image]),
        );
        machine.until("the image is there", async |cri| cri.has_image().await == Ok(true)).await;
        Some(machine)
    }

    /// A file in the machine's folder, which it shares with the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where containerd listens for plugins.
    pub(crate) fn nri(&self) -> PathBuf {
        self.path("nri.sock")
    }

    /// Starts containerd and waits until it answers.
    pub(crate) async fn start_containerd(&mut self) {
        let containerd = self.programs.join("containerd");
        let configuration = self.path("containerd.toml").to_string_lossy().into_owned();
        let mut command = self.command(&containerd, &["-c", &configuration]);
        self.containerd = Some(Background::start(&mut command));
        self.until("containerd answers", async |cri| cri.pods().await.is_ok()).await;
    }

    /// Kills containerd. Its containers live on.
    pub(crate) fn kill_containerd(&mut self) {
        self.containerd = None;
    }

    /// What containerd counts and measures.
    pub(crate) fn metrics(&self) -> String {
        let curl = programs::need("curl");
        programs::run(&mut self.command(&curl, &["--silent", "--fail", "http://127.0.0.1:1338/v1/metrics"]))
    }

    /// What containerd has logged, for messages.
    pub(crate) fn log(&self) -> String {
        self.containerd.as_ref().map(Background::stderr).unwrap_or_default()
    }

    async fn until(&self, what: &str, mut condition: impl AsyncFnMut(&Cri) -> bool) {
        let begun = std::time::Instant::now();
        while !condition(&self.cri).await {
            assert!(begun.elapsed() < START, "not within {START:?}: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A command on the machine.
    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let children = format!("/proc/{0}/task/{0}/children", self.init.pid());
        let first = eventually_ok(START, || {
            let children = fs::read_to_string(&children).unwrap_or_default();
            let first = children.split_whitespace().next().map(str::to_owned).ok_or("no process yet")?;
            // Before that it is still the shell, whose mounts are not all there.
            let name = fs::read_to_string(format!("/proc/{first}/comm")).unwrap_or_default();
            if name == "sleep\n" { Ok(first) } else { Err("not ready") }
        });
        let first = first
            .unwrap_or_else(|why| panic!("the machine does not start: {why}\n{}", self.init.transcript()));
        let mut command = programs::command("nsenter", ["--target", &first]);
        command.args(["--mount", "--net", "--uts", "--ipc", "--pid"]);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", self.programs.display()));
        command.arg(program).args(arguments);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "containerd said:\n{}", self.log());
        }
        self.containerd = None;
        self.init.signal_group(rustix::process::Signal::KILL);
        let _ = eventually_ok(Duration::from_secs(20), || {
            remove_cgroups(self.cri.cgroup.trim_start_matches('/'))
        });
    }
}

/// Removes the cgroups below `name` in every hierarchy; their last processes may still be ending.
fn remove_cgroups(name: &str) -> Result<(), ()> {
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let places =
        std::iter::once(PathBuf::from("/sys/fs/cgroup")).chain(hierarchies).map(|folder| folder.join(name));
    let mut left = false;
    for place in places.filter(|place| place.is_dir()) {
        for child in
            fs::read_dir(&place).into_iter().flatten().flatten().filter(|child| child.path().is_dir())
        {
            let _ = fs::remove_dir(child.path());
        }
        left |= fs::remove_dir(place).is_err();
    }
    if left { Err(()) } else { Ok(()) }
}

/// The folder with containerd, its shim and ctr: what the test cluster uses.
fn programs_folder() -> Option<PathBuf> {
    let whole = |folder: &PathBuf| {
        ["containerd", "containerd-shim-runc-v2", "ctr"].iter().all(|one| folder.join(one).is_file())
    };
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(given) = variable("PORTOLAN_CLUSTER_BIN") {
        return Some(given).filter(whole);
    }
    let cache = variable("PORTOLAN_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("portolan")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/portolan")))?;
    let built = fs::read_dir(cache.join("tools")).ok()?.flatten().map(|entry| entry.path());
    built.filter(whole).max()
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 3
root = "{folder}/root"
state = "{folder}/run"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/containerd.sock"
[metrics]
  address = "127.0.0.1:1338"
[plugins."io.containerd.nri.v1.nri"]
  disable = false
  socket_path = "{folder}/nri.sock"
  plugin_path = "{folder}/none"
  plugin_config_path = "{folder}/none"
  [plugins."io.containerd.nri.v1.nri".default_validator]
    enable = true
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{image}"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{folder}/bin"]
    conf_dir = "{folder}/cni"
    use_internal_loopback = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#,
        image = crate::cri::IMAGE
    )
}
