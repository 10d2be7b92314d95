//! A plugin keeps its promises to a real containerd, with real containers.
//!
//! Without Kubernetes: [`cri`] asks what kubelet would ask, [`machine`] is where it happens.
#![allow(clippy::unwrap_used)]

mod capture;
mod cri;
mod image;
mod machine;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use machine::Machine;
use portolan_nri::{
    Container, ContainerAdjustment, ContainerState, Handler, Mount, Plugin, PodSandbox, State,
};
use portolan_testkit::{eventually, eventually_ok, need_root};
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

#[tokio::test(flavor = "multi_thread")]
async fn a_program_finds_its_environment_and_a_folder_it_cannot_write_when_it_starts() {
    need_root!();
    let Some(machine) = Machine::start().await else { return };
    let mut served = Served::begin(&machine).await;
    assert!(
        matches!(&*served.state.borrow_and_update(), State::Ready { runtime, .. } if runtime == "containerd")
    );
    let cri = &machine.cri;
    let pod = cri.run_pod("web", &[ASKS], false).await.unwrap();
    let container = cri.create(&pod, "server", TELL, &[("OWN", "1"), ("PORT", "80")]).await.unwrap();
    cri.start(&container).await.unwrap();
    let log = told(&machine, "web", "server");
    let mut lines = log.lines();
    assert_eq!(lines.next(), Some("port=8080 name=20344 own=1"));
    assert_eq!(lines.next(), Some("[20344]"));
    assert!(lines.next().unwrap().contains("Read-only file system"), "{log}");

    // A file that is replaced in the folder is seen.
    std::fs::write(machine.path("pod/new"), "[20345]\n").unwrap();
    std::fs::rename(machine.path("pod/new"), machine.path("pod/ports.json")).unwrap();
    assert_eq!(cri.exec(&container, "cat /run/portolan/ports.json").await.unwrap(), "[20345]\n");

    let seen = served.injector.pod("run", "web");
    assert_eq!((seen.namespace.as_str(), seen.uid.as_str()), ("games", "uid-of-web"));
    assert_eq!(seen.id, pod.id);
    assert_eq!(seen.annotations[ASKS.0], ASKS.1);
    assert_eq!(seen.labels["app"], "web");
    assert!(!seen.host_network && seen.pid.is_some(), "{seen:?}");
    assert!(seen.network_namespace.unwrap().starts_with("/var/run/netns"));
    assert_eq!(seen.ips.len(), 2, "{:?}", seen.ips);
    cri.remove_pod(&pod).await.unwrap();
    let life = ["run", "create", "post-create", "start", "post-start", "stop", "remove"];
    assert_eq!(served.injector.heard("web"), life);
    // When the network is gone it is not taken for a Pod on the node's.
    assert!(!served.injector.pod("remove", "web").host_network);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_do_not_ask_are_not_touched() {
    need_root!();
    let Some(machine) = Machine::start().await else { return };
    let served = Served::begin(&machine).await;
    let cri = &machine.cri;
    let pod = cri.run_pod("plain", &[], false).await.unwrap();
    let script = "exec 2>&1; echo port=$PORT; cat /run/portolan/ports.json; echo; exec sleep infinity";
    let container = cri.create(&pod, "refused", script, &[("PORT", "80")]).await.unwrap();
    cri.start(&container).await.unwrap();
    let log = told(&machine, "plain", "refused");
    assert!(log.starts_with("port=80\n") && log.contains("No such file"), "{log}");
    assert!(served.injector.heard("plain").is_empty());
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_on_the_nodes_network_are_recognised() {
    need_root!();
    let Some(machine) = Machine::start().await else { return };
    let served = Served::begin(&machine).await;
    let cri = &machine.cri;
    let pod = cri.run_pod("host", &[ASKS], true).await.unwrap();
    let container = cri.create(&pod, "server", TELL, &[]).await.unwrap();
    cri.start(&container).await.unwrap();
    assert!(told(&machine, "host", "server").starts_with("port=8080 name=20344"));
    for moment in ["run", "create", "start"] {
        let seen = served.injector.pod(moment, "host");
        assert!(seen.host_network, "{moment}: {seen:?}");
        assert_eq!(seen.network_namespace, None);
    }
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_what_the_runtime_fails_with() {
    need_root!();
    let Some(machine) = Machine::start().await else { return };
    let served = Served::begin(&machine).await;
    let cri = &machine.cri;
    let refused = cri.run_pod("refused", &[ASKS], true).await.unwrap_err();
    assert!(refused.contains("no ports are left in pool default (20 of 20 are taken)"), "{refused}");
    assert_eq!(served.injector.heard("refused"), ["run", "stop", "remove"]);
    assert_eq!(cri.pods().await, Ok(0));
    let pod = cri.run_pod("web", &[ASKS], false).await.unwrap();
    let refused = cri.create(&pod, "refused", TELL, &[]).await.unwrap_err();
    assert!(refused.contains("its ports are not known"), "{refused}");
    cri.create(&pod, "server", TELL, &[]).await.unwrap();
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_starts_again_hears_what_exists_and_what_it_missed() {
    need_root!();
    let Some(machine) = Machine::start().await else { return };
    let served = Served::begin(&machine).await;
    let cri = &machine.cri;
    let (web, host) =
        (cri.run_pod("web", &[ASKS], false).await.unwrap(), cri.run_pod("host", &[ASKS], true).await);
    let container = cri.create(&web, "server", TELL, &[]).await.unwrap();
    cri.start(&container).await.unwrap();
    served.end().await;
    // While no plugin is there Pods start, and know nothing.
    let missed = cri.create(&host.unwrap(), "missed", TELL, &[]).await.unwrap();
    cri.start(&missed).await.unwrap();
    assert!(told(&machine, "host", "missed").starts_with("port= name= own="));

    let served = Served::begin(&machine).await;
    let existing = served.injector.existing.lock().unwrap().clone();
    let [(pods, containers)] = &existing[..] else { panic!("told {} times", existing.len()) };
    let pod = |name: &str| pods.iter().find(|pod| pod.name == name).unwrap();
    assert_eq!(pods.len(), 2);
    assert!(pod("host").host_network && !pod("web").host_network, "{pods:?}");
    assert!(pod("web").network_namespace.is_some());
    let container = |name: &str| containers.iter().find(|container| container.name == name).unwrap();
    assert_eq!(containers.len(), 2);
    assert_eq!(container("server").state, ContainerState::Running);
    assert_eq!(container("server").pod, pod("web").id);
    assert_eq!(container("server").variable("PORTOLAN_PORT_HTTP"), Some("20344"));
    assert!(container("server").mounts.iter().any(|mount| mount.destination.ends_with("portolan")));
    assert_eq!(container("missed").variable("PORTOLAN_PORT_HTTP"), None);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_is_killed_and_starts_again_is_found_again() {
    need_root!();
    let Some(mut machine) = Machine::start().await else { return };
    let mut served = Served::begin(&machine).await;
    let pod = machine.cri.run_pod("web", &[ASKS], false).await.unwrap();
    let container = machine.cri.create(&pod, "before", TELL, &[]).await.unwrap();
    machine.cri.start(&container).await.unwrap();
    machine.kill_containerd();
    served.until(|state| matches!(state, State::Waiting { .. })).await;
    machine.start_containerd().await;
    served.ready().await;
    {
        let existing = served.injector.existing.lock().unwrap();
        let (pods, containers) = existing.last().unwrap();
        assert_eq!((existing.len(), pods.len(), containers.len()), (2, 1, 1));
        assert_eq!(containers[0].state, ContainerState::Running);
    }
    let container = machine.cri.create(&pod, "after", TELL, &[]).await.unwrap();
    machine.cri.start(&container).await.unwrap();
    assert!(told(&machine, "web", "after").starts_with("port=8080 name=20344"));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_or_dies_holds_up_no_pod_for_long() {
    need_root!();
    let Some(machine) = Machine::start().await else { return };
    // On a runtime of its own, with one thread: when that hangs, so does everything of the plugin.
    let hanging = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let plugin = Plugin::new(machine.nri(), "hanging", "10").unwrap();
    let (mut state, injector) = (plugin.state(), Arc::new(Injector::default()));
    let (open, gate) = mpsc::channel();
    *injector.gate.lock().unwrap() = Some(gate);
    hanging.spawn(plugin.serve(Arc::clone(&injector), CancellationToken::new()));
    let ready = |state: &State| matches!(state, State::Ready { .. });
    let _ = tokio::time::timeout(PATIENCE, state.wait_for(ready)).await.unwrap().unwrap();

    let cri = &machine.cri;
    let pod = cri.run_pod("web", &[ASKS], false).await.unwrap();
    let begun = Instant::now();
    let container = cri.create(&pod, "first", TELL, &[]).await.unwrap();
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1900), "the plugin was not asked, or did not hang: {took:?}");
    assert!(took < PATIENCE, "{took:?}");
    cri.start(&container).await.unwrap();
    assert!(told(&machine, "web", "first").starts_with("port= name= own="));
    // The runtime has let it go, so nobody waits any more, and it comes back when it can.
    let begun = Instant::now();
    cri.create(&pod, "second", TELL, &[]).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(1900), "{:?}", begun.elapsed());
    drop(open);
    eventually(PATIENCE, || injector.existing.lock().unwrap().len() == 2);
    // Killed: its connection is closed by the kernel.
    hanging.shutdown_background();
    let begun = Instant::now();
    cri.create(&pod, "third", TELL, &[]).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(1900), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_any_length_pass_both_ways() {
    need_root!();
    let Some(machine) = Machine::start().await else { return };
    let cri = &machine.cri;
    // Together more than ttrpc takes in one message, so that the runtime has to cut.
    let long = "x".repeat(400 << 10);
    let mut pods = Vec::new();
    for i in 0..12 {
        pods.push(cri.run_pod(&format!("long-{i}"), &[ASKS, ("long", &long)], true).await.unwrap());
    }
    let served = Served::begin(&machine).await;
    {
        let existing = served.injector.existing.lock().unwrap();
        let [(told, _)] = &existing[..] else { panic!("told {} times", existing.len()) };
        assert_eq!(told.len(), 12);
        assert!(told.iter().all(|pod| pod.annotations["long"] == long));
    }
    // The other way more than the runtime's reader takes in one frame.
    let script = "echo ${#LONG0} ${#LONG9} $PORT; echo; echo; exec sleep infinity";
    let container = cri.create(&pods[0], "long", script, &[]).await.unwrap();
    cri.start(&container).await.unwrap();
    assert!(told(&machine, "long-0", "long").starts_with("60000 60000 8080\n"));
    served.end().await;
}

/// Makes `tests/captured/containerd.bin` anew, which the codec is tested with:
/// `cargo test -p portolan-nri --test containerd -- --ignored what_a_runtime_says`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes a file of the tree"]
async fn what_a_runtime_says_is_written_down() {
    need_root!();
    let Some(machine) = Machine::start().await else { return };
    let cri = &machine.cri;
    let existing = cri.run_pod("existing", &[ASKS], true).await.unwrap();
    cri.create(&existing, "old", TELL, &[]).await.unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captured/containerd.bin");
    let between = capture::between(&machine.path("between.sock"), machine.nri(), file);
    let served = Served::begin_at(&machine, machine.path("between.sock")).await;
    let pod = cri.run_pod("web", &[ASKS], false).await.unwrap();
    let container = cri.create(&pod, "server", TELL, &[("OWN", "1")]).await.unwrap();
    cri.start(&container).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    served.end().await;
    tokio::time::timeout(PATIENCE, between).await.unwrap().unwrap();
}

/// How much later a container is created because a plugin is asked. Prints what it measures:
/// `cargo test --release -p portolan-nri --test containerd -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn what_being_asked_costs() {
    need_root!();
    let Some(machine) = Machine::start().await else { return };
    let cri = &machine.cri;
    for (round, with) in [false, true, false, true].into_iter().enumerate() {
        let served = if with { Some(Served::begin(&machine).await) } else { None };
        let (mut run, mut create, mut start) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..40 {
            let begun = Instant::now();
            let pod = cri.run_pod(&format!("pod-{round}-{i}"), &[ASKS], false).await.unwrap();
            run.push(begun.elapsed());
            let begun = Instant::now();
            let container = cri.create(&pod, "server", "exec sleep infinity", &[]).await.unwrap();
            create.push(begun.elapsed());
            let begun = Instant::now();
            cri.start(&container).await.unwrap();
            start.push(begun.elapsed());
            cri.remove_pod(&pod).await.unwrap();
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort();
            format!("{:.2}/{:.2} ms", times[20].as_secs_f64() * 1e3, times[38].as_secs_f64() * 1e3)
        };
        println!(
            "plugin {with}: sandbox {} create {} start {} (p50/p95)",
            median(&mut run),
            median(&mut create),
            median(&mut start)
        );
        if let Some(served) = served {
            served.end().await;
        }
    }
}
