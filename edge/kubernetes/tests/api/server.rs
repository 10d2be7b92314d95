//! An etcd and a kube-apiserver, as processes that die with this one.

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use portolan_kubernetes::{Connection, ConnectionConfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// A control plane without controllers.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    port: u16,
    etcd_port: u16,
    _etcd: Daemon,
    apiserver: Mutex<Option<Daemon>>,
    _broom: Broom,
}

/// The API server that most tests share, or the test ends here with a printed reason.
#[macro_export]
macro_rules! need_server {
    () => {
        match $crate::server::shared() {
            Some(server) => server,
            None => return,
        }
    };
}

pub(crate) fn shared() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(Server::start).as_ref()
}

impl Server {
    /// Starts both. `None` when the programs are not there and tests may be skipped.
    pub(crate) fn start() -> Option<Self> {
        let programs = (program("etcd"), program("kube-apiserver"));
        let (Some(etcd), Some(apiserver)) = programs else {
            let reason =
                "etcd or kube-apiserver is missing: scripts/prerequisites, and cargo xtask cluster build";
            assert!(
                std::env::var_os("PORTOLAN_NO_SKIP").is_none(),
                "PORTOLAN_NO_SKIP forbids to skip: {reason}"
            );
            let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("portolan-kubernetes-").tempdir().unwrap();
        write_secrets(folder.path());
        let broom = Broom::for_folder(folder.path());
        // Another process may take a free port before etcd does: then with other ports.
        let mut broom = Some(broom);
        for _ in 0..5 {
            let [etcd_port, peer_port, port] = free_ports();
            let daemon = start_etcd(&etcd, folder.path(), etcd_port, peer_port);
            if !wait_for_port(etcd_port, &daemon) {
                continue;
            }
            let server = Self {
                folder,
                port,
                etcd_port,
                _etcd: daemon,
                apiserver: Mutex::new(None),
                _broom: broom.take().unwrap(),
            };
            server.start_apiserver_with(&apiserver);
            return Some(server);
        }
        panic!("etcd does not start");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub(crate) fn stop_apiserver(&self) {
        drop(self.apiserver.lock().unwrap().take());
    }

    pub(crate) fn start_apiserver(&self) {
        self.start_apiserver_with(&program("kube-apiserver").unwrap());
    }

    fn start_apiserver_with(&self, program: &Path) {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let arguments = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={}", self.port),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            // No controller makes service accounts here.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            // Asks etcd for what Debian's etcd 3.4 does not know, and complains of it every second.
            "--feature-gates=SizeBasedListCostEstimate=false".to_owned(),
            "--shutdown-delay-duration=0s".to_owned(),
        ];
        let log = self.folder.path().join("apiserver.log");
        let daemon = Daemon::start(program, arguments.map(OsString::from).to_vec(), &log);
        let deadline = Instant::now() + Duration::from_secs(180);
        while !self.is_ready() {
            if daemon.ended() || Instant::now() > deadline {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let tail: Vec<_> = text.lines().rev().take(15).collect();
                panic!(
                    "kube-apiserver does not start: {}",
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        *self.apiserver.lock().unwrap() = Some(daemon);
    }

    fn is_ready(&self) -> bool {
        let (server, folder) = (self.address(), self.folder.path().to_owned());
        let ask = async move {
            let connection = connect(&folder, server).await;
            connection.raw("/readyz").await.is_ok_and(|answer| answer == "ok")
        };
        // On a thread of its own: the caller may be in a runtime already.
        let asking = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(ask)
        });
        asking.join().unwrap()
    }

    /// A connection to the API server.
    pub(crate) async fn connection(&self) -> Connection {
        self.connection_by(self.address()).await
    }

    /// A connection to the API server through something else.
    pub(crate) async fn connection_by(&self, address: SocketAddr) -> Connection {
        let config = ConnectionConfig {
            kubeconfig: Some(kubeconfig(self.folder.path(), address)),
            component: "test".to_owned(),
            ..ConnectionConfig::default()
        };
        Connection::open(&config).await.unwrap()
    }

    /// Somebody else's client: kube without what is ours.
    pub(crate) async fn client(&self) -> kube::Client {
        client(self.folder.path(), self.address()).await
    }
}

struct Raw(kube::Client);

impl Raw {
    async fn raw(&self, path: &str) -> kube::Result<String> {
        let request = hyper::Request::get(path).body(Vec::new()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), self.0.request_text(request))
            .await
            .unwrap_or_else(|_| Err(kube::Error::LinesCodecMaxLineLengthExceeded))
    }
}

async fn connect(folder: &Path, address: SocketAddr) -> Raw {
    Raw(client(folder, address).await)
}

async fn client(folder: &Path, address: SocketAddr) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig(folder, address)).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    config.root_cert_file = None;
    kube::Client::try_from(config).unwrap()
}

fn kubeconfig(folder: &Path, address: SocketAddr) -> PathBuf {
    let path = folder.join(format!("{}.kubeconfig", address.port()));
    let authority = folder.join("ca.crt").display().to_string();
    let text = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("https://{address}"), "certificate-authority": authority}}],
        "users": [{"name": "test", "user": {"token": "secret"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]
    });
    fs::write(&path, text.to_string()).unwrap();
    path
}

fn write_secrets(folder: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&authority_key).unwrap();
    fs::write(folder.join("ca.crt"), certificate.pem()).unwrap();
    let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned).to_vec();
    let mut server = CertificateParams::new(names).unwrap();
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let certificate = server.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    fs::write(folder.join("server.crt"), certificate.pem()).unwrap();
    fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
    let accounts = KeyPair::generate().unwrap();
    fs::write(folder.join("accounts.key"), accounts.serialize_pem()).unwrap();
    fs::write(folder.join("accounts.pub"), accounts.public_key_pem()).unwrap();
    fs::write(folder.join("tokens.csv"), "secret,admin,admin,system:masters\n").unwrap();
}

fn start_etcd(program: &Path, folder: &Path, port: u16, peer_port: u16) -> Daemon {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let data = folder.join(format!("etcd-{port}"));
    let arguments = [
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--unsafe-no-fsync".to_owned(),
    ];
    Daemon::start(program, arguments.map(OsString::from).to_vec(), &folder.join("etcd.log"))
}

fn wait_for_port(port: u16, daemon: &Daemon) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline && !daemon.ended() {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Where a program is: in the folder that `PORTOLAN_CLUSTER_BIN` names, in the cache of `cargo xtask cluster build`, or
/// on the machine.
fn program(name: &str) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let given = variable("PORTOLAN_CLUSTER_BIN").map(|folder| folder.join(name));
    let cache = variable("PORTOLAN_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("portolan")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/portolan")));
    let built = cache.and_then(|cache| fs::read_dir(cache.join("tools")).ok()).into_iter().flatten();
    let built = built.flatten().map(|folder| folder.path().join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let machine: Vec<_> = std::env::split_paths(&path).map(|folder| folder.join(name)).collect();
    given.into_iter().chain(built).chain(machine).find(|file| file.is_file())
}

/// A process that ends with us, also when we are killed: the kernel sees to it. It asks for that by the thread that
/// started it, so each has a thread that lives as long as it does.
struct Daemon {
    process: u32,
    ended: std::sync::Arc<std::sync::atomic::AtomicBool>,
    waiting: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    fn start(program: &Path, arguments: Vec<OsString>, log: &Path) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig").arg("KILL").arg("--").arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (tell, told) = std::sync::mpsc::channel();
        let ending = ended.clone();
        let waiting = std::thread::spawn(move || {
            let mut child: Child = command.spawn().unwrap();
            tell.send(child.id()).unwrap();
            let _ = child.wait();
            ending.store(true, std::sync::atomic::Ordering::Release);
        });
        Self { process: told.recv().unwrap(), ended, waiting: Some(waiting) }
    }

    fn ended(&self) -> bool {
        self.ended.load(std::sync::atomic::Ordering::Acquire)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.ended() {
            let _ = Command::new("kill").arg("-KILL").arg(self.process.to_string()).status();
        }
        if let Some(waiting) = self.waiting.take() {
            let _ = waiting.join();
        }
    }
}

/// Removes a folder when this process is no more: nothing is dropped at the end of a process that tests share.
struct Broom(Child);

impl Broom {
    fn for_folder(folder: &Path) -> Self {
        let mut command = Command::new("sh");
        // Its input ends with us, however we end; the servers end in the same moment, and may still write.
        command.args(["-c", "read -r _; sleep 1; rm -rf -- \"$1\"", "broom"]).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Broom {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
