//! A Pod's life with a plugin at its side.

use portolan_nri::State;
use portolan_testkit::need_root;

use crate::{ASKS, Served, TELL, machine::Machine, told};

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
