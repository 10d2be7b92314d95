//! The files of a node: its folders, the settings of its programs, its CNI configuration.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Node;
use crate::{
    cgroup::Cgroup,
    layout::{DNS_V4, POD_NETWORKS},
    secrets,
};

/// CNI plugins that are copied into `/opt/cni/bin` of each node.
const PLUGINS: [&str; 5] = ["bridge", "ptp", "loopback", "host-local", "portmap"];

/// kubelet sets these for the whole machine unless they are as it wants them: it is shown them so.
/// (`setupKernelTunables` in pkg/kubelet/cm/container_manager_linux.go of Kubernetes v1.36)
const TUNABLES: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

impl Node<'_> {
    /// Gives the node the CNI configuration for its Pods' networks, unless it has one.
    pub(crate) fn configure_network(&self, pods: &[String]) -> Result<()> {
        let options = &self.cluster.options;
        let ranges: Vec<_> = pods.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
        let mut plugin = json!({
            "type": options.network,
            "ipam": {
                "type": "host-local",
                // As on a real node, addresses are forgotten with the sandboxes that had them.
                "dataDir": "/run/cni-ipam-state",
                "ranges": ranges,
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        });
        if options.network == "bridge" {
            plugin["bridge"] = "cni0".into();
            plugin["isGateway"] = true.into();
            plugin["hairpinMode"] = true.into();
        }
        let mut plugins = vec![plugin];
        if options.portmap {
            plugins.push(json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
        }
        let list = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": plugins });
        let script = "[ -e /etc/cni/net.d/10-pods.conflist ] || { printf %s \"$1\" >/etc/cni/net.d/.new && mv /etc/cni/net.d/.new /etc/cni/net.d/10-pods.conflist; }";
        self.run(["sh", "-c", script, "sh", &serde_json::to_string_pretty(&list)?])?;
        Ok(())
    }

    /// Writes what is on a node's disk before it is switched on. What the node wrote there stays, but for our settings.
    pub(super) fn write_files(&self) -> Result<()> {
        let cluster = self.cluster;
        let (folder, root) = (self.folder(), self.root());
        for name in ["bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "srv", "sys", "tmp", "usr"] {
            // Those that are links on the machine are made by node.sh.
            if !fs::symlink_metadata(Path::new("/").join(name)).is_ok_and(|found| found.is_symlink()) {
                make(&root.join(name))?;
            }
        }
        for name in [
            "opt/bin",
            "opt/cni/bin",
            "opt/nri/plugins",
            "var/lib/kubelet",
            "var/lib/containerd",
            "var/log/pods",
            "var/tmp",
            "var/cache",
        ] {
            make(&root.join(name))?;
        }
        for name in ["tmp", "var/tmp"] {
            let _ = fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o1777));
        }
        if !root.join("var/run").is_symlink() {
            symlink("/run", root.join("var/run")).context("cannot make the node's /var/run")?;
        }
        let etc = folder.join("etc");
        make(&folder.join("etc-work"))?;
        for name in ["cni/net.d", "containerd", "kubernetes/pki", "nri/conf.d"] {
            make(&etc.join(name))?;
        }
        for plugin in PLUGINS.iter().filter(|plugin| **plugin != "portmap" || cluster.options.portmap) {
            let target = root.join("opt/cni/bin").join(plugin);
            if !target.exists() {
                let source = cluster.tools.program(plugin)?;
                fs::copy(&source, &target).with_context(|| format!("cannot copy {source}"))?;
            }
        }
        let authority = fs::read_to_string(cluster.layout.secrets().join("ca.crt"))?;
        secrets::write(&etc.join("kubernetes/pki/ca.crt"), &authority)?;
        for (file, user) in [("kubelet", self.name()), ("kube-proxy", "system:kube-proxy".to_owned())] {
            let authority = Path::new("/etc/kubernetes/pki/ca.crt");
            let text = secrets::kubeconfig(&cluster.layout, &user, &cluster.inside_server(), authority)?;
            secrets::write(&etc.join(format!("kubernetes/{file}.kubeconfig")), &text)?;
        }
        let mode = cluster.options.proxy.as_deref().unwrap_or("nftables");
        let settings = [
            ("hostname", format!("{}\n", self.name())),
            ("hosts", format!("127.0.0.1 localhost\n::1 localhost\n{} {}\n", self.address(), self.name())),
            // There is nothing outside to ask; without a name server here CoreDNS has nobody to forward to.
            ("resolv.conf", "# The names of this cluster are known to its Pods only.\n".to_owned()),
            ("containerd/config.toml", include_str!("containerd.toml").to_owned()),
            ("kubernetes/kubelet.yaml", kubelet_configuration(&self.cgroup())),
            ("kubernetes/kube-proxy.yaml", proxy_configuration(mode)),
        ];
        for (file, text) in settings {
            write(&etc.join(file), &text)?;
        }
        for (setting, value) in TUNABLES {
            let file = etc.join("kubernetes/tunables").join(setting);
            if Path::new("/proc/sys").join(setting).exists() {
                make(file.parent().unwrap_or(&etc))?;
                write(&file, &format!("{value}\n"))?;
            }
        }
        Ok(())
    }
}

fn kubelet_configuration(cgroup: &Cgroup) -> String {
    let text = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": "/etc/kubernetes/pki/ca.crt" },
        },
        "authorization": { "mode": "Webhook" },
        "cgroupDriver": "cgroupfs",
        // Each kubelet kills Pods below its root that it does not know: two of them must not share one.
        "cgroupRoot": cgroup.path(),
        "failCgroupV1": false,
        "failSwapOn": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [DNS_V4.to_string()],
        "clusterDomain": "cluster.local",
        // The disk is shared with everything else on the machine; how full it is says nothing about the node.
        "evictionHard": { "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%", "memory.available": "10Mi" },
        "imageGCHighThresholdPercent": 100,
        "resolvConf": "/etc/resolv.conf",
        "maxPods": 300,
        "oomScoreAdj": 0,
        "registerNode": true,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        // What is cached is asked for again when it is used: a change of a ConfigMap is seen in seconds.
        "syncFrequency": "20s",
        "nodeStatusUpdateFrequency": "5s",
    });
    text.to_string()
}

fn proxy_configuration(mode: &str) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": "/etc/kubernetes/kube-proxy.kubeconfig" },
        "mode": mode,
        "clusterCIDR": POD_NETWORKS.join(","),
        // nf_conntrack_max is the machine's, not the namespace's.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpBeLiberal": true },
        "oomScoreAdj": 0,
    })
    .to_string()
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
