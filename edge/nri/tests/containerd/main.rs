//! A plugin keeps its promises to a real containerd, with real containers.
//!
//! Without Kubernetes: [`cri`] asks what kubelet would ask, [`machine`] is where it happens. The promises are in [`life`]
//! and [`accidents`].
#![allow(clippy::unwrap_used)]

mod accidents;
mod capture;
mod cri;
mod image;
mod life;
mod machine;
mod tools;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use machine::Machine;
use portolan_nri::{Container, ContainerAdjustment, Handler, Mount, Plugin, PodSandbox, State};
use portolan_testkit::eventually_ok;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// For everything that containerd does on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a Pod that wants ports carries.
const ASKS: (&str, &str) = ("portolan.dev/ports", "http");

/// A container's script that says what it knows, and stays.
const TELL: &str = "exec 2>&1; echo port=$PORT name=$PORTOLAN_PORT_HTTP own=$OWN; cat /run/portolan/ports.json; \
                    (echo x > /run/portolan/ports.json); exec sleep infinity";

/// Gives containers of Pods that ask for it a variable and a folder, and writes down what it hears.
#[derive(Default)]
struct Injector {
    folder: PathBuf,
    heard: Mutex<Vec<(String, PodSandbox)>>,
    existing: Mutex<Vec<(Vec<PodSandbox>, Vec<Container>)>>,
    /// When there is one, `create_container` blocks its thread until it gets something: a process that hangs.
    gate: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Injector {
    fn note(&self, what: &str, pod: &PodSandbox) {
        self.heard.lock().unwrap().push((what.to_owned(), pod.clone()));
    }

    fn heard(&self, name: &str) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|(_, pod)| pod.name == name).map(|(what, _)| what.clone()).collect()
    }

    fn pod(&self, what: &str, name: &str) -> PodSandbox {
        let heard = self.heard.lock().unwrap();
        heard.iter().find(|(said, pod)| said == what && pod.name == name).unwrap().1.clone()
    }
}

impl Handler for Injector {
    fn concerns(&self, pod: &PodSandbox) -> bool {
        pod.annotations.contains_key(ASKS.0)
    }

    async fn synchronize(&self, pods: Vec<PodSandbox>, containers: Vec<Container>) {
        self.existing.lock().unwrap().push((pods, containers));
    }

    async fn run_pod_sandbox(&self, pod: PodSandbox) -> Result<(), String> {
        self.note("run", &pod);
        match pod.name.as_str() {
            "refused" => Err("no ports are left in pool default (20 of 20 are taken)".to_owned()),
            _ => Ok(()),
        }
    }

    async fn stop_pod_sandbox(&self, pod: PodSandbox) {
        self.note("stop", &pod);
    }

    async fn remove_pod_sandbox(&self, pod: PodSandbox) {
        self.note("remove", &pod);
    }

    async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<ContainerAdjustment, String> {
        self.note("create", &pod);
        if let Some(gate) = &*self.gate.lock().unwrap() {
            let _ = gate.recv();
        }
        if container.name == "refused" {
            return Err("its ports are not known".to_owned());
        }
        let mut env = [("PORT", "8080"), ("PORTOLAN_PORT_HTTP", "20344")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .to_vec();
        if container.name == "long" {
            env.extend((0..10).map(|i| (format!("LONG{i}"), "x".repeat(60_000))));
        }
        Ok(ContainerAdjustment {
            env,
            mounts: vec![Mount::read_only(&self.folder, "/run/portolan")],
            ..ContainerAdjustment::default()
        })
    }

    async fn post_create_container(&self, pod: PodSandbox, _container: Container) {
        self.note("post-create", &pod);
    }

    async fn start_container(&self, pod: PodSandbox, _container: Container) {
        self.note("start", &pod);
    }

    async fn post_start_container(&self, pod: PodSandbox, _container: Container) {
        self.note("post-start", &pod);
    }
}

/// The plugin, as the agent runs it.
struct Served {
    injector: Arc<Injector>,
    state: watch::Receiver<State>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    async fn begin(machine: &Machine) -> Self {
        Self::begin_at(machine, machine.nri()).await
    }

    async fn begin_at(machine: &Machine, socket: PathBuf) -> Self {
        let folder = machine.path("pod");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ports.json"), "[20344]\n").unwrap();
        let plugin = Plugin::new(socket, "portolan", "10").unwrap();
        let (state, shutdown) = (plugin.state(), CancellationToken::new());
        let injector = Arc::new(Injector { folder, ..Injector::default() });
        let task = tokio::spawn(plugin.serve(Arc::clone(&injector), shutdown.clone()));
        let mut served = Self { injector, state, shutdown, task };
        served.ready().await;
        served
    }

    async fn until(&mut self, wanted: impl FnMut(&State) -> bool) {
        let _ = tokio::time::timeout(PATIENCE, self.state.wait_for(wanted)).await.unwrap().unwrap();
    }

    async fn ready(&mut self) {
        self.until(|state| matches!(state, State::Ready { .. })).await;
    }

    async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

/// Waits for the lines that [`TELL`] writes at its start.
fn told(machine: &Machine, pod: &str, container: &str) -> String {
    let log = || machine.cri.log(pod, container);
    let said = eventually_ok(PATIENCE, || if log().lines().count() >= 3 { Ok(log()) } else { Err(log()) });
    said.unwrap_or_else(|log| panic!("the container {container} of {pod} says no more than {log:?}"))
}
