//! The control plane: etcd, the API server, controllers and the scheduler, in a namespace of their own.
//!
//! Settings are small: this shares a machine with tests. The API is on a port of the machine's loopback as well, by a
//! forwarder that listens there and connects in the namespace: a plain `kubectl`, Helm or a test needs no `nsenter`.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cgroup::Cgroup,
    cluster::Cluster,
    layout::{CONTROL_V4, POD_NETWORKS, SERVICE_NETWORKS},
    secrets,
    spawn::{Daemon, tail},
};

/// The API's port in the namespace.
const PORT: u16 = 6443;

impl Cluster {
    /// Where programs in the cluster's namespaces reach the API.
    pub fn inside_server(&self) -> String {
        format!("https://{CONTROL_V4}:{PORT}")
    }

    /// Starts etcd and the API server, and what is beside them for these options.
    pub(crate) fn start_control(&self, listener: TcpListener) -> Result<()> {
        let authority = self.layout.secrets().join("ca.crt");
        let outside = format!("https://127.0.0.1:{}", self.port);
        secrets::write(
            &self.layout.kubeconfig(),
            &secrets::kubeconfig(&self.layout, "admin", &outside, &authority)?,
        )?;
        let inside = secrets::kubeconfig(&self.layout, "admin", &self.inside_server(), &authority)?;
        secrets::write(&self.layout.inside_kubeconfig(), &inside)?;

        // Each connection is a process that has been put into the namespace with the socket of the machine's.
        let namespace = self.layout.network_namespace_file("control");
        let listen = format!("TCP-LISTEN:{},bind=127.0.0.1,fork,reuseaddr,backlog=128", self.port);
        let into =
            format!("EXEC:nsenter --net={} socat - TCP\\:{CONTROL_V4}\\:{PORT},nofork", namespace.display());
        drop(listener);
        let mut daemon = self.control_daemon("forwarder", words(&["socat", &listen, &into]));
        daemon.enter = Vec::new();
        daemon.start()?;

        let data = self.layout.folder.join("etcd");
        let data = data.to_string_lossy();
        // Nothing here survives the machine, so nothing has to be on disk.
        let etcd = self.control_daemon(
            "etcd",
            words(&[
                "etcd",
                "--data-dir",
                &data,
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--unsafe-no-fsync",
                "--snapshot-count=5000",
                "--auto-compaction-mode=revision",
                "--auto-compaction-retention=2000",
                "--log-level=warn",
            ]),
        );
        etcd.start()?;
        self.start_apiserver()
    }

    /// Starts what needs the API server: controllers and the scheduler.
    pub(crate) fn start_controllers(&self) -> Result<()> {
        let secrets = self.layout.secrets();
        if self.options.nodes > 0 || self.options.controllers {
            let kubeconfig = self.user_kubeconfig("system:kube-controller-manager")?;
            self.control_daemon(
                "kube-controller-manager",
                vec![
                    self.tools.program("kube-controller-manager")?,
                    format!("--kubeconfig={kubeconfig}"),
                    "--use-service-account-credentials".to_owned(),
                    format!("--service-account-private-key-file={}/service-accounts.key", secrets.display()),
                    format!("--root-ca-file={}/ca.crt", secrets.display()),
                    "--allocate-node-cidrs".to_owned(),
                    format!("--cluster-cidr={}", POD_NETWORKS.join(",")),
                    format!("--service-cluster-ip-range={}", SERVICE_NETWORKS.join(",")),
                    "--leader-elect=false".to_owned(),
                    "--kube-api-qps=100".to_owned(),
                    "--kube-api-burst=200".to_owned(),
                ],
            )
            .start()?;
        }
        if self.options.nodes > 0 {
            let kubeconfig = self.user_kubeconfig("system:kube-scheduler")?;
            self.control_daemon(
                "kube-scheduler",
                vec![
                    self.tools.program("kube-scheduler")?,
                    format!("--kubeconfig={kubeconfig}"),
                    "--leader-elect=false".to_owned(),
                ],
            )
            .start()?;
        }
        Ok(())
    }

    /// Starts the API server and waits until it is ready.
    pub fn start_apiserver(&self) -> Result<()> {
        let secrets = self.layout.secrets();
        let secret = |name: &str| secrets.join(name).display().to_string();
        self.control_daemon(
            "kube-apiserver",
            vec![
                self.tools.program("kube-apiserver")?,
                "--etcd-servers=http://127.0.0.1:2379".to_owned(),
                format!("--service-cluster-ip-range={}", SERVICE_NETWORKS.join(",")),
                format!("--advertise-address={CONTROL_V4}"),
                format!("--secure-port={PORT}"),
                format!("--tls-cert-file={}", secret("apiserver.crt")),
                format!("--tls-private-key-file={}", secret("apiserver.key")),
                format!("--client-ca-file={}", secret("ca.crt")),
                format!("--kubelet-client-certificate={}", secret("apiserver-kubelet.crt")),
                format!("--kubelet-client-key={}", secret("apiserver-kubelet.key")),
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
                format!("--token-auth-file={}", secret("tokens.csv")),
                "--authorization-mode=Node,RBAC".to_owned(),
                format!("--service-account-key-file={}", secret("service-accounts.pub")),
                format!("--service-account-signing-key-file={}", secret("service-accounts.key")),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
                "--allow-privileged=true".to_owned(),
                // There is no kube-proxy beside the API server: it calls webhooks by the addresses of their Pods.
                "--enable-aggregator-routing=true".to_owned(),
                // Asks etcd for what Debian's etcd 3.4 does not know, and complains of it every second.
                "--feature-gates=SizeBasedListCostEstimate=false".to_owned(),
                // Tests stop it and do not wait for its manners.
                "--shutdown-delay-duration=0s".to_owned(),
            ],
        )
        .start()?;
        self.wait_for_api(Duration::from_secs(120))
    }

    /// Kills the API server; watches break and every request is refused.
    pub fn stop_apiserver(&self) -> Result<()> {
        self.control_cgroup("kube-apiserver").kill()
    }

    fn wait_for_api(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let ready = self.kubectl_command(&["get", "--raw", "/readyz", "--request-timeout=2s"])?.output();
            if ready.context("cannot start kubectl")?.status.success() {
                return Ok(());
            }
            for program in ["etcd", "kube-apiserver"] {
                let log = self.layout.log(program);
                if self.control_cgroup(program).processes()?.is_empty() {
                    bail!("{program} has ended:\n{}\nall of it is in {}", tail(&log, 8), log.display());
                }
            }
            if Instant::now() > deadline {
                bail!(
                    "the API server is not ready after {patience:?}: see {}",
                    self.layout.log("kube-apiserver").display()
                );
            }
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    pub(crate) fn control_cgroup(&self, program: &str) -> Cgroup {
        self.cgroup().below("control").below(program)
    }

    fn control_daemon(&self, program: &str, words: Vec<String>) -> Daemon {
        let namespace = self.layout.network_namespace_file("control");
        Daemon {
            cgroup: self.control_cgroup(program),
            enter: vec!["nsenter".to_owned(), format!("--net={}", namespace.display())],
            words,
            environment: vec![("GOGC", "75".to_owned())],
            log: self.layout.log(program),
        }
    }

    fn user_kubeconfig(&self, user: &str) -> Result<String> {
        let file = self.layout.secrets().join(format!("{user}.kubeconfig"));
        let authority = self.layout.secrets().join("ca.crt");
        secrets::write(&file, &secrets::kubeconfig(&self.layout, user, &self.inside_server(), &authority)?)?;
        Ok(file.display().to_string())
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
