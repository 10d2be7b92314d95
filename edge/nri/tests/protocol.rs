//! A plugin keeps its promises to a runtime: here the runtime is [`portolan_nri::fake`], in `containerd.rs` a real one.
#![allow(clippy::unwrap_used)]

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use portolan_nri::{
    Container, ContainerAdjustment, ContainerState, Event, Events, Handler, Mount, Plugin, PodSandbox, State,
    fake::{FakeError, Runtime},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Long enough for a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does as the Pod's name says, and writes down what it hears.
#[derive(Default)]
struct Recorder {
    heard: Mutex<Vec<String>>,
    synchronized: Mutex<Vec<(usize, usize)>>,
    together: AtomicUsize,
    most_together: AtomicUsize,
    events: Option<Events>,
}

impl Recorder {
    fn note(&self, what: &str, pod: &PodSandbox) {
        self.heard.lock().unwrap().push(format!("{what} {}", pod.name));
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    async fn obey(&self, pod: &PodSandbox) -> Result<(), String> {
        match pod.name.as_str() {
            "panics" => panic!("as it was told to"),
            "hangs" => std::future::pending().await,
            "refuses" => Err("no ports are left in pool default".to_owned()),
            "meets" => {
                let together = self.together.fetch_add(1, Ordering::SeqCst) + 1;
                self.most_together.fetch_max(together, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
                self.together.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Handler for Recorder {
    fn events(&self) -> Events {
        self.events.unwrap_or_else(Events::all)
    }

    fn concerns(&self, pod: &PodSandbox) -> bool {
        assert_ne!(pod.name, "panics-at-once", "as it was told to");
        pod.annotations.contains_key("portolan.dev/ports")
    }

    async fn synchronize(&self, pods: Vec<PodSandbox>, containers: Vec<Container>) {
        self.synchronized.lock().unwrap().push((pods.len(), containers.len()));
    }

    async fn run_pod_sandbox(&self, pod: PodSandbox) -> Result<(), String> {
        self.note("run", &pod);
        self.obey(&pod).await
    }

    async fn stop_pod_sandbox(&self, pod: PodSandbox) {
        self.note("stop", &pod);
        let _ = self.obey(&pod).await;
    }

    async fn remove_pod_sandbox(&self, pod: PodSandbox) {
        self.note("remove", &pod);
        let _ = self.obey(&pod).await;
    }

    async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<ContainerAdjustment, String> {
        self.note("create", &pod);
        self.obey(&pod).await?;
        let length = pod.labels.get("length").map_or(5, |length| length.parse().unwrap());
        Ok(ContainerAdjustment {
            env: vec![("PORT".to_owned(), "2".repeat(length)), ("NAME".to_owned(), container.name)],
            mounts: vec![Mount::read_only("/run/portolan/pods/1", "/run/portolan")],
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

/// A plugin that serves, and the folder of its socket.
struct Served {
    folder: tempfile::TempDir,
    handler: Arc<Recorder>,
    state: watch::Receiver<State>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    fn begin(handler: Recorder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugin = Plugin::new(folder.path().join("nri.sock"), "portolan", "10").unwrap();
        let (state, shutdown, handler) = (plugin.state(), CancellationToken::new(), Arc::new(handler));
        let task = tokio::spawn(plugin.serve(Arc::clone(&handler), shutdown.clone()));
        Self { folder, handler, state, shutdown, task }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("nri.sock")
    }

    fn runtime(&self) -> Runtime {
        Runtime::listen(&self.socket()).unwrap()
    }

    async fn until(&mut self, wanted: impl FnMut(&State) -> bool) -> State {
        tokio::time::timeout(PATIENCE, self.state.wait_for(wanted)).await.unwrap().unwrap().clone()
    }

    async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

fn pod(name: &str) -> PodSandbox {
    PodSandbox {
        id: format!("sandbox-of-{name}"),
        name: name.to_owned(),
        namespace: "default".to_owned(),
        annotations: [("portolan.dev/ports".to_owned(), "http".to_owned())].into(),
        network_namespace: Some("/run/netns/cni-1".into()),
        pid: Some(7),
        ips: vec![IpAddr::from([10, 244, 0, 7])],
        ..PodSandbox::default()
    }
}

fn container(name: &str) -> Container {
    Container { id: format!("container-{name}"), name: name.to_owned(), ..Container::default() }
}

#[tokio::test]
async fn a_plugin_registers_hears_what_exists_and_is_ready() {
    let mut served = Served::begin(Recorder::default());
    let runtime = served.runtime();
    let running = Container { state: ContainerState::Running, ..container("web") };
    let connected = runtime.accept(vec![pod("a"), pod("b")], vec![running]).await.unwrap();
    assert_eq!(connected.name, ("portolan".to_owned(), "10".to_owned()));
    assert_eq!(connected.events, Events::all());
    let ready = served.until(|state| matches!(state, State::Ready { .. })).await;
    assert_eq!(ready, State::Ready { runtime: "fake".to_owned(), version: "v0".to_owned() });
    assert_eq!(*served.handler.synchronized.lock().unwrap(), [(2, 1)]);
    served.end().await;
}

#[tokio::test]
async fn what_exists_arrives_whole_when_it_is_sent_in_parts() {
    let served = Served::begin(Recorder::default());
    let mut runtime = served.runtime();
    runtime.part = 3;
    let pods = (0..10).map(|i| pod(&i.to_string())).collect();
    let containers = (0..25).map(|i| container(&i.to_string())).collect();
    let _connected = runtime.accept(pods, containers).await.unwrap();
    assert_eq!(*served.handler.synchronized.lock().unwrap(), [(10, 25)]);
    served.end().await;
}

#[tokio::test]
async fn a_pod_lives_and_its_container_is_adjusted() {
    let served = Served::begin(Recorder::default());
    let connected = served.runtime().accept(vec![], vec![]).await.unwrap();
    connected.pod(Event::RunPodSandbox, pod("a")).await.unwrap();
    let adjustment = connected.create_container(pod("a"), container("web")).await.unwrap();
    assert_eq!(
        adjustment.env,
        [("PORT".to_owned(), "22222".to_owned()), ("NAME".to_owned(), "web".to_owned())]
    );
    assert_eq!(adjustment.mounts, [Mount::read_only("/run/portolan/pods/1", "/run/portolan")]);
    for event in [Event::PostCreateContainer, Event::StartContainer, Event::PostStartContainer] {
        connected.container(event, pod("a"), container("web")).await.unwrap();
    }
    connected.pod(Event::StopPodSandbox, pod("a")).await.unwrap();
    connected.pod(Event::RemovePodSandbox, pod("a")).await.unwrap();
    let expected = ["run a", "create a", "post-create a", "start a", "post-start a", "stop a", "remove a"];
    assert_eq!(served.handler.heard(), expected);
    served.end().await;
}

#[tokio::test]
async fn older_runtimes_that_tell_of_events_in_the_old_way_are_understood() {
    let served = Served::begin(Recorder::default());
    let mut runtime = served.runtime();
    runtime.old = true;
    let connected = runtime.accept(vec![], vec![]).await.unwrap();
    connected.pod(Event::RunPodSandbox, pod("a")).await.unwrap();
    connected.container(Event::StartContainer, pod("a"), container("web")).await.unwrap();
    connected.pod(Event::RemovePodSandbox, pod("a")).await.unwrap();
    assert_eq!(served.handler.heard(), ["run a", "start a", "remove a"]);
    served.end().await;
}

#[tokio::test]
async fn a_refusal_fails_the_pod_with_its_reason_and_nothing_else() {
    let served = Served::begin(Recorder::default());
    let connected = served.runtime().accept(vec![], vec![]).await.unwrap();
    let reason = "no ports are left in pool default";
    let refused = connected.pod(Event::RunPodSandbox, pod("refuses")).await;
    assert!(matches!(refused, Err(FakeError::Refused(said)) if said == reason));
    let refused = connected.create_container(pod("refuses"), container("web")).await;
    assert!(matches!(refused, Err(FakeError::Refused(said)) if said == reason));
    connected.pod(Event::StopPodSandbox, pod("refuses")).await.unwrap();
    connected.pod(Event::RunPodSandbox, pod("another")).await.unwrap();
    served.end().await;
}

#[tokio::test]
async fn a_panic_fails_only_what_it_must_and_the_connection_stays() {
    let served = Served::begin(Recorder::default());
    let connected = served.runtime().accept(vec![], vec![]).await.unwrap();
    let panicked = connected.create_container(pod("panics"), container("web")).await;
    assert!(matches!(panicked, Err(FakeError::Refused(said)) if said.contains("panicked")));
    connected.pod(Event::RemovePodSandbox, pod("panics")).await.unwrap();
    // A question whether a Pod is our concern that has no answer must not fail the Pod.
    connected.pod(Event::RunPodSandbox, pod("panics-at-once")).await.unwrap();
    connected.pod(Event::RunPodSandbox, pod("another")).await.unwrap();
    served.end().await;
}

#[tokio::test]
async fn a_handler_that_hangs_is_answered_for_before_the_runtime_gives_up() {
    let served = Served::begin(Recorder::default());
    let mut runtime = served.runtime();
    runtime.request_limit = Duration::from_millis(500);
    let connected = runtime.accept(vec![], vec![]).await.unwrap();
    let begun = Instant::now();
    let late = connected.create_container(pod("hangs"), container("web")).await;
    assert!(matches!(late, Err(FakeError::Refused(said)) if said == "no answer within 450 ms"));
    assert!(begun.elapsed() < Duration::from_millis(500));
    connected.pod(Event::StopPodSandbox, pod("hangs")).await.unwrap();
    connected.pod(Event::RunPodSandbox, pod("another")).await.unwrap();
    served.end().await;
}

#[tokio::test]
async fn a_pod_that_is_no_concern_cannot_fail_whatever_the_handler_does() {
    let served = Served::begin(Recorder::default());
    let connected = served.runtime().accept(vec![], vec![]).await.unwrap();
    for name in ["refuses", "panics", "hangs"] {
        let pod = PodSandbox { annotations: [].into(), ..pod(name) };
        connected.pod(Event::RunPodSandbox, pod.clone()).await.unwrap();
        let adjustment = connected.create_container(pod, container("web")).await.unwrap();
        assert!(adjustment.is_empty());
    }
    assert!(served.handler.heard().is_empty());
    served.end().await;
}

#[tokio::test]
async fn what_cannot_be_understood_harms_nobody() {
    let served = Served::begin(Recorder::default());
    let connected = served.runtime().accept(vec![], vec![]).await.unwrap();
    // No protobuf; an event from the future; a method from the future; the runtime's farewell.
    connected.call("CreateContainer", &[0xff; 40]).await.unwrap();
    connected.call("StateChange", &[0x08, 0x63]).await.unwrap();
    let unknown = connected.call("RehearsePodSandbox", &[]).await;
    assert!(matches!(unknown, Err(FakeError::Refused(said)) if said.contains("RehearsePodSandbox")));
    connected.call("Shutdown", &[]).await.unwrap();
    connected.pod(Event::RunPodSandbox, pod("another")).await.unwrap();
    served.end().await;
}

#[tokio::test]
async fn calls_are_answered_side_by_side_and_long_answers_arrive() {
    let served = Served::begin(Recorder::default());
    let connected = served.runtime().accept(vec![], vec![]).await.unwrap();
    let meetings = (0..20).map(|_| connected.pod(Event::RunPodSandbox, pod("meets")));
    futures_util::future::try_join_all(meetings).await.unwrap();
    assert!(served.handler.most_together.load(Ordering::SeqCst) > 1);
    for length in [4000, 5000, 100_000, 3_000_000] {
        let long = PodSandbox { labels: [("length".to_owned(), length.to_string())].into(), ..pod("a") };
        let adjustment = connected.create_container(long, container("web")).await.unwrap();
        assert_eq!(adjustment.env[0].1.len(), length);
    }
    let too_long = PodSandbox { labels: [("length".to_owned(), "5000000".to_owned())].into(), ..pod("a") };
    let refused = connected.create_container(too_long, container("web")).await;
    assert!(matches!(refused, Err(FakeError::Refused(said)) if said.contains("too long")));
    served.end().await;
}

#[tokio::test]
async fn a_plugin_comes_back_to_a_runtime_that_restarts() {
    let mut served = Served::begin(Recorder::default());
    let waiting = served.until(|state| matches!(state, State::Waiting { reason } if reason != "not begun"));
    let State::Waiting { reason } = waiting.await else { panic!("it waits") };
    assert!(reason.contains("nri.sock"), "{reason}");
    for round in 1..=3 {
        let runtime = served.runtime();
        let connected = runtime.accept(vec![pod("a")], vec![]).await.unwrap();
        served.until(|state| matches!(state, State::Ready { .. })).await;
        assert_eq!(served.handler.synchronized.lock().unwrap().len(), round);
        drop((connected, runtime));
        std::fs::remove_file(served.socket()).unwrap();
        served.until(|state| matches!(state, State::Waiting { .. })).await;
    }
    served.end().await;
}

#[tokio::test]
async fn only_the_events_that_are_wanted_are_asked_for() {
    let wanted = Events::none().with(Event::CreateContainer);
    let served = Served::begin(Recorder { events: Some(wanted), ..Recorder::default() });
    let connected = served.runtime().accept(vec![], vec![]).await.unwrap();
    assert_eq!(connected.events, wanted);
    connected.pod(Event::RunPodSandbox, pod("a")).await.unwrap();
    connected.create_container(pod("a"), container("web")).await.unwrap();
    assert_eq!(served.handler.heard(), ["create a"]);
    served.end().await;
}

#[tokio::test]
async fn a_shutdown_answers_what_was_asked_and_then_closes() {
    let served = Served::begin(Recorder::default());
    let mut connected = served.runtime().accept(vec![], vec![]).await.unwrap();
    let asked = connected.pod(Event::RunPodSandbox, pod("meets"));
    let shutdown = async {
        // The handler has to have been asked; what arrives after the shutdown is not answered.
        while served.handler.heard().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        served.shutdown.cancel();
    };
    let (answered, ()) = tokio::join!(asked, shutdown);
    answered.unwrap();
    tokio::time::timeout(PATIENCE, connected.closed()).await.unwrap();
    let state = served.state.clone();
    served.end().await;
    assert_eq!(*state.borrow(), State::Ended);
}

/// What the wire and the dispatch cost, without a container runtime's own work. Prints it:
/// `cargo test --release -p portolan-nri --test protocol -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn what_a_call_costs() {
    let served = Served::begin(Recorder::default());
    let connected = served.runtime().accept(vec![], vec![]).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..5000 {
        let begun = Instant::now();
        connected.create_container(pod("a"), container("web")).await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    println!("a call: p50 {:?}, p99 {:?}", times[2500], times[4950]);
    served.end().await;
}
