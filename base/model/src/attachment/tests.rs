use super::*;

fn port(host_port: u16, container_port: u16, protocol: Protocol) -> StaticPort {
    StaticPort { host_port, container_port, protocol, host_address: None }
}

#[test]
fn each_mapping_has_a_name_of_its_own() {
    let ports = [
        port(80, 8080, Protocol::Tcp),
        port(81, 8080, Protocol::Tcp),
        port(80, 8080, Protocol::Udp),
        port(0, 9000, Protocol::Tcp),
        port(0, 9000, Protocol::Tcp),
        port(0, 9000, Protocol::Tcp),
    ];
    let beside = ["udp-8080".parse().unwrap()];
    let requests = StaticPort::requests(&ports, &beside);
    let texts: Vec<String> = requests.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "tcp-8080=80:8080",
            "tcp-8080-81=81:8080",
            "udp-8080-80/udp=80:8080",
            "tcp-9000=:9000",
            "tcp-9000-0=:9000",
            "tcp-9000-0-2=:9000",
        ]
    );
    assert_eq!(requests, StaticPort::requests(&ports, &beside));
}

#[test]
fn lines_are_as_documented() {
    let add = AgentRequest::Add(AddRequest {
        attachment: Attachment { container: "abc".into(), interface: "eth0".into(), network: "net".into() },
        netns: Some("/run/netns/x".into()),
        pod: Some(PodRef { namespace: "default".into(), name: "web-0".into(), uid: None }),
        addresses: vec!["10.1.2.3/24".parse().unwrap()],
        ports: vec![port(80, 8080, Protocol::Tcp)],
        annotations: None,
    });
    let line = serde_json::to_string(&add).unwrap();
    assert_eq!(
        line,
        r#"{"add":{"attachment":{"container":"abc","interface":"eth0","network":"net"},"netns":"/run/netns/x","pod":{"namespace":"default","name":"web-0"},"addresses":["10.1.2.3/24"],"ports":[{"host_port":80,"container_port":8080,"protocol":"tcp"}]}}"#
    );
    assert_eq!(serde_json::from_str::<AgentRequest>(&line).unwrap(), add);
    assert_eq!(serde_json::to_string(&AgentRequest::Status).unwrap(), r#""status""#);
    let done: AgentReply = serde_json::from_str(r#"{"done":{}}"#).unwrap();
    assert_eq!(done, AgentReply::Done { ports: Vec::new() });
}

#[test]
fn an_older_plugin_is_understood() {
    let line = r#"{"add":{"attachment":{"container":"a","interface":"eth0","network":"n"},"later":1}}"#;
    let AgentRequest::Add(add) = serde_json::from_str(line).unwrap() else { panic!("not an ADD") };
    assert!(add.addresses.is_empty() && add.ports.is_empty() && add.annotations.is_none());
}
