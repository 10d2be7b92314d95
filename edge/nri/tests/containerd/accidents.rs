//! Either side goes away, or hangs.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use portolan_nri::{ContainerState, Plugin, State};
use portolan_testkit::{eventually, need_root};
use tokio_util::sync::CancellationToken;

use crate::{ASKS, Injector, PATIENCE, Served, TELL, machine::Machine, told};

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
async fn a_pod_that_requires_the_plugin_does_not_start_without_it() {
    need_root!();
    let Some(machine) = Machine::start().await else { return };
    let cri = &machine.cri;
    let requires = ("required-plugins.noderesource.dev", r#"["portolan"]"#);
    let pod = cri.run_pod("web", &[ASKS, requires], false).await.unwrap();
    let refused = cri.create(&pod, "early", TELL, &[]).await.unwrap_err();
    assert!(refused.contains("portolan") && refused.contains("not present"), "{refused}");
    let served = Served::begin(&machine).await;
    let container = cri.create(&pod, "server", TELL, &[]).await.unwrap();
    cri.start(&container).await.unwrap();
    assert!(told(&machine, "web", "server").starts_with("port=8080 name=20344"));
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
