//! What containerd 2.4.2 really says is read as meant. `tests/containerd` writes the file.

use bytes::BytesMut;
use prost::Message as _;

use super::*;
use crate::{
    Container, ContainerState, PodSandbox, frame,
    ttrpc::{self, Message, Request},
};

/// From registering a plugin while a Pod exists to the removal of another.
const SAID: &[u8] = include_bytes!("../../tests/captured/containerd.bin");

/// The requests in it.
fn requests() -> Vec<Request> {
    let mut wire = BytesMut::from(SAID);
    let mut parts = [BytesMut::new(), BytesMut::new()];
    while let Some(frame) = frame::decode(&mut wire).unwrap() {
        let part = if frame.connection == frame::PLUGIN { 0 } else { 1 };
        parts[part].extend_from_slice(&frame.payload);
    }
    assert!(wire.is_empty());
    let [mut plugin, mut runtime] = parts;
    // The answer to the registration, which is all that comes on the other connection.
    let registered = Message::decode(&mut runtime).unwrap().unwrap();
    assert_eq!((registered.stream, registered.kind), (1, ttrpc::RESPONSE));
    assert!(runtime.is_empty());
    let mut requests = Vec::new();
    while let Some(message) = Message::decode(&mut plugin).unwrap() {
        assert_eq!(message.kind, ttrpc::REQUEST);
        assert_eq!(message.stream as usize, 2 * requests.len() + 1);
        requests.push(Request::decode(message.payload).unwrap());
    }
    assert!(plugin.is_empty());
    requests
}

fn request<M: prost::Message + Default>(method: &str) -> M {
    let request = requests().into_iter().find(|request| request.method == method).unwrap();
    M::decode(request.payload).unwrap()
}

fn told(method: &str) -> (PodSandbox, Container) {
    let request: ContainerRequest = request(method);
    (request.pod.unwrap().into(), request.container.unwrap_or_default().into())
}

#[test]
fn every_call_is_for_the_plugin_and_has_a_limit() {
    let methods = [
        "Configure",
        "Synchronize",
        "RunPodSandbox",
        "CreateContainer",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
    ];
    let requests = requests();
    assert_eq!(requests.iter().map(|request| request.method.as_str()).collect::<Vec<_>>(), methods);
    for request in requests {
        assert_eq!(request.service, PLUGIN_SERVICE);
        assert!((1_000_000_000..=2_000_000_000).contains(&request.timeout_nano), "{request:?}");
    }
}

#[test]
fn the_runtime_says_who_it_is_and_how_long_it_waits() {
    let configure: ConfigureRequest = request("Configure");
    assert_eq!(configure.runtime_name, "containerd");
    assert!(configure.runtime_version.starts_with("2.4.2"), "{configure:?}");
    assert_eq!((configure.request_timeout, configure.nri_version.as_str()), (2000, "v0.12.3"));
}

#[test]
fn what_exists_is_read() {
    let synchronize: SynchronizeRequest = request("Synchronize");
    assert!(!synchronize.more);
    let [pod] = &synchronize.pods[..] else { panic!("{synchronize:?}") };
    let [container] = &synchronize.containers[..] else { panic!("{synchronize:?}") };
    let (pod, container) = (PodSandbox::from(pod.clone()), Container::from(container.clone()));
    assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("games", "existing"));
    assert!(pod.host_network && pod.network_namespace.is_none() && pod.ips.is_empty(), "{pod:?}");
    assert_eq!((container.name.as_str(), container.state), ("old", ContainerState::Created));
    assert_eq!(container.pod, pod.id);
}

#[test]
fn a_pod_is_read() {
    for method in ["RunPodSandbox", "CreateContainer", "StopPodSandbox"] {
        let (pod, _) = told(method);
        assert_eq!(
            (pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str()),
            ("games", "web", "uid-of-web")
        );
        assert_eq!(pod.id.len(), 64);
        assert_eq!(pod.annotations["portolan.dev/ports"], "http");
        assert_eq!(pod.labels["app"], "web");
        assert_eq!(pod.ips.len(), 2, "{:?}", pod.ips);
        assert!(!pod.host_network);
        assert!(pod.network_namespace.unwrap().starts_with("/var/run/netns"));
    }
    assert!(told("RunPodSandbox").0.pid.is_some());
    let (pod, _) = told("RemovePodSandbox");
    assert!(pod.network_namespace.is_none() && !pod.host_network, "{pod:?}");
}

#[test]
fn a_container_is_read() {
    let (pod, container) = told("CreateContainer");
    assert_eq!((container.name.as_str(), &container.pod), ("server", &pod.id));
    assert_eq!(container.variable("OWN"), Some("1"));
    assert_eq!(container.variable("PATH"), Some("/bin"));
    assert_eq!(container.variable("PORT"), None);
    let proc = container.mounts.iter().find(|mount| mount.destination.ends_with("proc")).unwrap();
    assert_eq!((proc.kind.as_str(), proc.source.to_str()), ("proc", Some("proc")));
    assert!(proc.options.contains(&"nosuid".to_owned()));
    // What the plugin changed is there from then on.
    let (_, container) = told("PostCreateContainer");
    assert_eq!(container.variable("PORT"), Some("8080"));
    assert!(container.mounts.iter().any(|mount| mount.destination.ends_with("portolan")));
    assert_eq!(told("PostStartContainer").1.state, ContainerState::Running);
    assert!(told("PostStartContainer").1.pid.is_some());
}
