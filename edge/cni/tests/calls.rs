//! What a runtime may send, and what is made of it.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use portolan_cni::{Call, CniError, Command, Environment, SpecVersion, Task, code, version_reply};
use portolan_model::{AddRequest, Attachment, PodRef, Protocol, StaticPort};
use serde_json::{Value, json};

const CONTAINER: &str = "icee6giejonei6so";

fn environment(command: &str, more: &[(&str, &str)]) -> Environment {
    let mut variables = HashMap::from([
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", CONTAINER),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ]);
    variables.extend(more.iter().copied());
    Environment::read(|name| variables.get(name).map(|value| (*value).to_owned()))
}

fn read_with(command: &str, more: &[(&str, &str)], config: &Value) -> Result<Call, CniError> {
    let environment = environment(command, more);
    Call::read(environment.command()?, &environment, config.to_string().as_bytes())
}

fn read(command: &str, config: &Value) -> Result<Call, CniError> {
    read_with(command, &[], config)
}

fn config(version: &str) -> Value {
    json!({
        "cniVersion": version,
        "name": "test",
        "type": "portolan",
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
        "prevResult": {
            "cniVersion": version,
            "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
            "ips": [{"version": "4", "address": "10.0.0.2/24", "interface": 1}],
            "later": {"keys": [1.0, 18446744073709551616.0, null]}
        }
    })
}

fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

fn without(mut config: Value, key: &str) -> Value {
    config.as_object_mut().unwrap().remove(key);
    config
}

fn add(call: Call) -> AddRequest {
    match call.task {
        Task::Add { request, .. } | Task::Check(request) => request,
        other => panic!("{other:?}"),
    }
}

fn attachment() -> Attachment {
    Attachment { container: CONTAINER.into(), interface: "eth0".into(), network: "test".into() }
}

#[test]
fn an_add_is_read_in_every_version() {
    for version in SpecVersion::ALL {
        let call = read("ADD", &config(version.as_str())).unwrap();
        assert_eq!(call.version, version);
        let expected = AddRequest {
            attachment: attachment(),
            netns: Some("/run/netns/x".into()),
            pod: None,
            addresses: vec!["10.0.0.2/24".parse().unwrap()],
            ports: vec![StaticPort {
                host_port: 8080,
                container_port: 80,
                protocol: Protocol::Tcp,
                host_address: None,
            }],
            annotations: None,
        };
        assert_eq!(add(call), expected);
    }
}

#[test]
fn a_configuration_without_a_version_is_of_the_first() {
    let call = read("ADD", &without(config("0.1.0"), "cniVersion")).unwrap();
    assert_eq!(call.version, SpecVersion::V0_1_0);
}

#[test]
fn the_result_is_kept_to_the_byte() {
    let previous = r#"{ "b":1, "a" : [ 1.0, 1e2,18446744073709551617 ],"ips":[],"ä":"\u00e4" , "b":2}"#;
    let stdin = format!(r#"{{"cniVersion":"1.1.0","name":"test","prevResult":{previous},"x":1}}"#);
    let environment = environment("ADD", &[]);
    let call = Call::read(Command::Add, &environment, stdin.as_bytes()).unwrap();
    let Task::Add { result, .. } = call.task else { panic!("no ADD") };
    assert_eq!(result.get(), previous);
}

#[test]
fn a_del_needs_neither_namespace_nor_result_nor_sense_in_options() {
    let mut config = without(without(config("1.0.0"), "prevResult"), "runtimeConfig");
    config["masqAll"] = json!(true);
    config["conditionsV4"] = json!(["-s", "1.2.3.4"]);
    config["snat"] = json!(7);
    let call = read_with("DEL", &[("CNI_NETNS", "")], &config).unwrap();
    assert!(matches!(call.task, Task::Del { attachment: a, pod: None } if a == attachment()));
    for result in [json!(null), json!({}), json!("nonsense")] {
        let runtime = json!({"portMappings": "nonsense"});
        read("DEL", &with(with(config.clone(), "prevResult", result), "runtimeConfig", runtime)).unwrap();
    }
}

#[test]
fn the_pod_and_its_annotations_are_told() {
    let arguments =
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=games;K8S_POD_NAME=lobby-0;K8S_POD_INFRA_CONTAINER_ID=x";
    let mut config = config("1.1.0");
    config["runtimeConfig"]["io.kubernetes.cri.pod-annotations"] = json!({"portolan.dev/ports": "http"});
    let request = add(read_with("ADD", &[("CNI_ARGS", arguments)], &config).unwrap());
    let pod = PodRef { namespace: "games".into(), name: "lobby-0".into(), uid: None };
    assert_eq!(request.pod.as_ref(), Some(&pod));
    assert_eq!(request.annotations.unwrap()["portolan.dev/ports"], "http");

    config["runtimeConfig"]["io.kubernetes.cri.pod-annotations"] = json!(null);
    config["runtimeConfig"]["portMappings"] = json!(null);
    let request = add(read("ADD", &config).unwrap());
    assert_eq!(request.annotations, Some(Default::default()), "told, and there are none");
    assert_eq!(request.ports, []);

    let call = read_with("DEL", &[("CNI_ARGS", arguments)], &config).unwrap();
    assert!(matches!(call.task, Task::Del { pod: Some(p), .. } if p == pod));
}

#[test]
fn only_others_than_kubernetes_get_random_ports_by_host_port_0() {
    let mut config = config("1.1.0");
    config["runtimeConfig"]["portMappings"] =
        json!([{"hostPort": 0, "containerPort": 80}, {"hostPort": 81, "containerPort": 81}]);
    let numbers = |request: AddRequest| request.ports.iter().map(|port| port.host_port).collect::<Vec<_>>();
    assert_eq!(numbers(add(read("ADD", &config).unwrap())), [0, 81]);
    let pod = [("CNI_ARGS", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b")];
    assert_eq!(numbers(add(read_with("ADD", &pod, &config).unwrap())), [81]);
}

#[test]
fn gc_knows_what_is_valid_or_that_nobody_says() {
    let mut config = json!({"cniVersion": "1.1.0", "name": "test", "type": "portolan"});
    // GC has no parameters of an attachment.
    let unset = [("CNI_CONTAINERID", ""), ("CNI_IFNAME", ""), ("CNI_NETNS", "")];
    let valid = |config: &Value| match read_with("GC", &unset, config).map(|call| call.task) {
        Ok(Task::Gc { network, valid }) => {
            assert_eq!(network, "test");
            Ok(valid)
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.code),
    };
    assert_eq!(valid(&config), Ok(None));
    config["cni.dev/attachments"] = json!([]);
    assert_eq!(valid(&config), Ok(Some(vec![])));
    config["cni.dev/valid-attachments"] = json!([{"containerID": CONTAINER, "ifname": "eth0"}]);
    assert_eq!(valid(&config), Ok(Some(vec![attachment()])));
    config["cni.dev/valid-attachments"] = json!([{"container": 1}]);
    assert_eq!(valid(&config), Err(code::DECODE));
}

#[test]
fn commands_exist_from_their_version_on() {
    let gc = |version| with(config(version), "cni.dev/valid-attachments", json!([]));
    for (command, first, before) in
        [("CHECK", "0.4.0", "0.3.1"), ("GC", "1.1.0", "1.0.0"), ("STATUS", "1.1.0", "1.0.0")]
    {
        read(command, &gc(first)).unwrap();
        assert_eq!(read(command, &gc(before)).unwrap_err().code, code::VERSION, "{command}");
    }
    let error = read("ADD", &config("9.0.0")).unwrap_err();
    assert_eq!(error.code, code::VERSION);
    assert!(error.details.contains("9.0.0") && error.details.contains("1.1.0"), "{error}");
}

#[test]
fn what_is_wrong_with_the_environment_has_its_name_and_code_4() {
    let good = config("1.1.0");
    for (command, variable, value) in [
        ("ADD", "CNI_CONTAINERID", ""),
        ("ADD", "CNI_CONTAINERID", "../x"),
        ("ADD", "CNI_CONTAINERID", "-x"),
        ("ADD", "CNI_IFNAME", ""),
        ("ADD", "CNI_IFNAME", "an-interface-too-long"),
        ("ADD", "CNI_IFNAME", "a/b"),
        ("ADD", "CNI_IFNAME", ".."),
        ("ADD", "CNI_NETNS", ""),
        ("CHECK", "CNI_NETNS", ""),
        ("DEL", "CNI_CONTAINERID", ""),
        ("DEL", "CNI_IFNAME", ""),
        ("ADD", "CNI_COMMAND", ""),
        ("ADD", "CNI_COMMAND", "PATCH"),
    ] {
        let error = read_with(command, &[(variable, value)], &good).unwrap_err();
        assert_eq!(error.code, code::ENVIRONMENT, "{variable}={value}");
        assert!(error.message.contains(variable), "{error}");
    }
}

#[test]
fn what_is_wrong_with_the_configuration_has_the_specifications_code() {
    let good = config("1.1.0");
    for (config, expected) in [
        (without(good.clone(), "prevResult"), code::CONFIG),
        (without(good.clone(), "name"), code::CONFIG),
        (with(good.clone(), "name", json!("a/b")), code::CONFIG),
        (with(good.clone(), "name", json!(7)), code::DECODE),
        (with(good.clone(), "prevResult", json!([])), code::DECODE),
        (with(good.clone(), "runtimeConfig", json!([])), code::DECODE),
        (with(good.clone(), "masqAll", json!(true)), code::UNSUPPORTED_FIELD),
        (with(good.clone(), "pool", json!("all")), code::DECODE),
        (with(good.clone(), "runtimeConfig", json!(null)), 0),
        (without(good.clone(), "runtimeConfig"), 0),
    ] {
        assert_eq!(read("ADD", &config).map_or_else(|error| error.code, |_| 0), expected, "{config}");
    }
    let environment = environment("ADD", &[]);
    let mut config = good;
    config["runtimeConfig"]["portMappings"] = json!({"hostPort": 80});
    let error = read("ADD", &config).unwrap_err();
    assert_eq!(error.code, code::DECODE);
    assert!(error.details.starts_with("runtimeConfig.portMappings: invalid type: map"), "{error}");
    for stdin in ["", "{", "[]", "nonsense"] {
        let error = Call::read(Command::Add, &environment, stdin.as_bytes()).unwrap_err();
        assert_eq!(error.code, code::DECODE, "{stdin}");
    }
}

#[test]
fn an_error_is_the_object_of_the_specification() {
    let error = CniError::new(code::CONFIG, "no \"name\"").with_details("more");
    let json: Value = serde_json::from_str(&error.json(SpecVersion::V1_0_0)).unwrap();
    assert_eq!(json, json!({"cniVersion": "1.0.0", "code": 7, "msg": "no \"name\"", "details": "more"}));
}

#[test]
fn version_answers_with_the_version_it_is_asked_in() {
    let reply: Value = serde_json::from_str(&version_reply(br#"{"cniVersion":"0.4.0"}"#)).unwrap();
    assert_eq!(reply["cniVersion"], "0.4.0");
    let supported = json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    assert_eq!(reply["supportedVersions"], supported);
    let reply: Value = serde_json::from_str(&version_reply(b"")).unwrap();
    assert_eq!(reply["cniVersion"], "1.1.0");
}

#[test]
fn the_plugin_is_alone_when_nobody_speaks_of_an_agent_or_a_pod() {
    let pod = PodRef { namespace: "a".into(), name: "b".into(), uid: None };
    let agent = |more: Value, pod: Option<&PodRef>| {
        let mut config = config("1.1.0");
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let settings = read("ADD", &config).unwrap().settings;
        settings.agent(pod).map(|path| path.display().to_string())
    };
    assert_eq!(agent(json!({}), None), None);
    assert_eq!(agent(json!({}), Some(&pod)).as_deref(), Some("/run/portolan/agent.sock"));
    assert_eq!(agent(json!({"agentSocket": "/a"}), None).as_deref(), Some("/a"));
    assert_eq!(agent(json!({"standalone": true, "agentSocket": "/a"}), Some(&pod)), None);
    assert_eq!(agent(json!({"standalone": false}), None).as_deref(), Some("/run/portolan/agent.sock"));
}
