//! Objects of the API as words of ours, as tables.

use std::time::{Duration, SystemTime};

use portolan_model::{
    AffinityScope, Balance, EndpointSlice, Service, ServiceNode, ServiceOptions, ServiceType, TrafficPolicy,
};
use serde_json::{Value, json};

use super::{
    ProxyNode, TargetPort, convert, services_from_yaml, slice,
    watched::{WatchedNode, WatchedService, WatchedSlice},
};

/// Puts fields over those of a plain Service.
fn object(patch: Value) -> WatchedService {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "ns", "name": "web", "uid": "u", "resourceVersion": "41", "managedFields": [{"manager": "x"}]},
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}], "selector": {"app": "web"}
        },
        "status": {"loadBalancer": {}}
    });
    merge(&mut object, patch);
    serde_json::from_value(object).unwrap()
}

/// JSON merge patch (RFC 7396).
fn merge(to: &mut Value, from: Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (key, value) in from {
                match value {
                    Value::Null => {
                        to.remove(&key);
                    }
                    value => merge(to.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (to, from) => *to = from,
    }
}

fn service(patch: Value) -> Service {
    let (service, problems) = convert::service(&object(patch)).unwrap();
    assert_eq!(problems, Vec::<String>::new());
    service
}

fn texts<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

#[test]
fn a_plain_service_has_every_default() {
    let service = service(json!({}));
    assert_eq!(service.name.to_string(), "ns/web");
    assert_eq!(service.generation, 41, "the version stands in for a generation");
    assert_eq!(
        (service.kind, texts(&service.cluster_addresses)),
        (ServiceType::ClusterIp, vec!["10.96.0.10".to_owned()])
    );
    let port = &service.ports[0];
    assert_eq!(
        (port.name.as_str(), port.protocol.as_str(), port.port, port.node_port),
        ("", "tcp", 80, None)
    );
    assert_eq!(
        (service.internal_policy, service.external_policy),
        (TrafficPolicy::Cluster, TrafficPolicy::Cluster)
    );
    assert_eq!((service.affinity, service.health_check_node_port), (None, None));
    assert_eq!(service.options, ServiceOptions::default());
    assert!(service.source_ranges.is_empty() && service.external_addresses.is_empty());
    assert_eq!(self::service(json!({"metadata": {"generation": 7}})).generation, 7);
}

/// F3: nothing of them is captured.
#[test]
fn services_without_frontends_are_ignored() {
    for patch in [
        json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
        json!({"spec": {"clusterIP": "None", "clusterIPs": null}}),
        json!({"spec": {"clusterIP": null, "clusterIPs": ["None"]}}),
        json!({"spec": {"clusterIP": "", "clusterIPs": null}}),
        json!({"spec": {"clusterIP": null, "clusterIPs": []}}),
        json!({"spec": {"type": "ExternalName", "externalName": "example.org"}}),
        json!({"spec": null}),
    ] {
        assert!(convert::service(&object(patch.clone())).is_none(), "{patch}");
    }
}

/// F11.
#[test]
fn a_service_has_one_cluster_address_of_each_family_the_primary_first() {
    for (patch, expected) in [
        (json!({"clusterIPs": null}), vec!["10.96.0.10"]),
        (json!({"clusterIPs": ["10.96.0.10", "fd00::a"]}), vec!["10.96.0.10", "fd00::a"]),
        (
            json!({"clusterIP": "fd00::a", "clusterIPs": ["fd00::a", "10.96.0.10"]}),
            vec!["fd00::a", "10.96.0.10"],
        ),
        (json!({"clusterIP": "fd00::a", "clusterIPs": ["fd00::a"]}), vec!["fd00::a"]),
        (json!({"clusterIP": "010.096.0.010", "clusterIPs": ["010.096.0.010"]}), vec!["10.96.0.10"]),
    ] {
        assert_eq!(texts(&service(json!({"spec": patch})).cluster_addresses), expected);
    }
}

/// F11, F16.
#[test]
fn ports_are_read_with_their_protocols_and_node_ports() {
    let service = service(json!({"spec": {"type": "NodePort", "ports": [
        {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "nodePort": 0},
        {"name": "diameter", "port": 3868, "protocol": "SCTP"},
        {"name": "plain", "port": 80}
    ]}}));
    let ports: Vec<_> =
        service.ports.iter().map(|p| (p.name.as_str(), p.protocol.as_str(), p.port, p.node_port)).collect();
    assert_eq!(
        ports,
        [
            ("dns", "udp", 53, Some(30053)),
            ("dns-tcp", "tcp", 53, None),
            ("diameter", "sctp", 3868, None),
            ("plain", "tcp", 80, None)
        ]
    );
}

/// F12, F13.
#[test]
fn external_addresses_and_those_of_load_balancers_are_captured_unless_they_are_proxied() {
    let service = service(json!({
        "spec": {"type": "LoadBalancer", "externalIPs": ["192.0.2.1", "2001:db8::1", "192.0.2.1"]},
        "status": {"loadBalancer": {"ingress": [
            {"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "VIP"}, {"ip": "198.51.100.3", "ipMode": "Proxy"},
            {"hostname": "lb.example.org"}, {"ip": ""}, {"ip": "2001:db8::2", "hostname": "lb"}
        ]}}
    }));
    assert_eq!(texts(&service.external_addresses), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(texts(&service.load_balancer_addresses), ["198.51.100.1", "198.51.100.2", "2001:db8::2"]);
}

#[test]
fn policies_affinity_and_health_checks_are_read() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (patch, expected) in [
        (json!({"sessionAffinity": "None"}), None),
        (json!({"sessionAffinity": "ClientIP"}), seconds(10_800)),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}),
            seconds(5),
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": null}}),
            seconds(10_800),
        ),
    ] {
        assert_eq!(service(json!({"spec": patch.clone()})).affinity, expected, "{patch}");
    }
    let local = json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30100});
    for (kind, check) in [("ClusterIP", None), ("NodePort", None), ("LoadBalancer", Some(30100))] {
        let mut spec = local.clone();
        spec["type"] = json!(kind);
        let service = service(json!({"spec": spec}));
        assert_eq!(service.health_check_node_port, check, "{kind}");
        assert_eq!(
            (service.internal_policy, service.external_policy),
            (TrafficPolicy::Local, TrafficPolicy::Local)
        );
    }
    let cluster =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Cluster", "healthCheckNodePort": 30100});
    assert_eq!(service(json!({"spec": cluster})).health_check_node_port, None);
}

/// F23: validation lets white space through.
#[test]
fn source_ranges_may_have_white_space_around_them() {
    let service = service(
        json!({"spec": {"loadBalancerSourceRanges": [" 10.0.0.0/8", "192.0.2.7/24 ", "2001:db8::/32"]}}),
    );
    assert_eq!(texts(&service.source_ranges), ["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]);
}

#[test]
fn annotations_are_options() {
    let service = service(json!({"metadata": {"annotations": {
        "portolan.dev/balance": "source", "portolan.dev/affinity-scope": "service",
        "portolan.dev/weights": "web-0=3, 10.244.01.7 = 0", "portolan.dev/port-ranges": "10000-20000/udp, 5060",
        "portolan.dev/whole-address": "true", "portolan.dev/node-source-ranges": "10.0.0.0/8,fd00::/8",
        "portolan.dev/drain": "1m30s", "portolan.dev/no-local-endpoints": "reject",
        "portolan.dev/publish": "true", "somebody.else/balance": "whatever"
    }}}));
    let options = service.options;
    assert_eq!((options.balance, options.affinity_scope), (Balance::Source, AffinityScope::Service));
    assert_eq!((options.weights["web-0"], options.weights["10.244.1.7"]), (3, 0));
    let spans: Vec<_> =
        options.spans.iter().map(|span| format!("{}/{}", span.ports, span.protocol)).collect();
    assert_eq!(spans, ["10000-20000/udp", "5060/tcp"]);
    assert_eq!(texts(&options.node_source_ranges), ["10.0.0.0/8", "fd00::/8"]);
    assert_eq!(options.drain, Some(Duration::from_secs(90)));
    assert!(options.whole_address && options.reject_without_local);
}

#[test]
fn a_bad_annotation_is_told_and_the_service_works_without_it() {
    for (name, value, why) in [
        ("portolan.dev/balance", "round-robin", "say random or source"),
        ("portolan.dev/affinity-scope", "pod", "say port or service"),
        ("portolan.dev/weights", "web-0", "NAME=0"),
        ("portolan.dev/weights", "web-0=101", "NAME=100"),
        ("portolan.dev/weights", "=1", "NAME=0"),
        ("portolan.dev/port-ranges", "10-5/udp", "ends before it begins"),
        ("portolan.dev/port-ranges", "10/icmp", "is no protocol"),
        ("portolan.dev/port-ranges", "10-20,15-30/tcp", "overlap"),
        ("portolan.dev/whole-address", "yes", "true or false"),
        ("portolan.dev/node-source-ranges", "10.0.0.0", "is no network"),
        ("portolan.dev/drain", "soon", "30s"),
        ("portolan.dev/no-local-endpoints", "icmp", "reject or drop"),
        ("portolan.dev/wieghts", "web-0=3", "there is no such annotation for Services; there are balance"),
    ] {
        let (service, problems) =
            convert::service(&object(json!({"metadata": {"annotations": {name: value}}}))).unwrap();
        assert_eq!(service.options, ServiceOptions::default(), "{name}: {value}");
        assert!(
            problems.len() == 1 && problems[0].contains(name) && problems[0].contains(why),
            "{problems:?}"
        );
    }
}

fn slice_of(patch: Value) -> Option<EndpointSlice> {
    let mut object = json!({
        "metadata": {"namespace": "ns", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.244.0.5"]}],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}]
    });
    merge(&mut object, patch);
    let object: WatchedSlice = serde_json::from_value(object).unwrap();
    slice::slice(&object)
}

/// F2, F6.
#[test]
fn slices_of_nobody_or_of_names_are_ignored() {
    for patch in [
        json!({"metadata": {"labels": {"kubernetes.io/service-name": null}}}),
        json!({"metadata": {"labels": {"kubernetes.io/service-name": ""}}}),
        json!({"metadata": {"labels": null}}),
        json!({"addressType": "FQDN", "endpoints": [{"addresses": ["example.org"]}]}),
    ] {
        assert!(slice_of(patch.clone()).is_none(), "{patch}");
    }
    let slice = slice_of(json!({})).unwrap();
    assert_eq!(
        (slice.name.to_string(), slice.service.to_string()),
        ("ns/web-x".to_owned(), "ns/web".to_owned())
    );
}

/// F9: ready and serving unless it says otherwise, terminating only if it says so.
#[test]
fn conditions_have_their_defaults() {
    for (conditions, expected) in [
        (Value::Null, (true, true, false)),
        (json!({}), (true, true, false)),
        (json!({"ready": null, "serving": null, "terminating": null}), (true, true, false)),
        (json!({"ready": false}), (false, true, false)),
        (json!({"ready": false, "serving": true, "terminating": true}), (false, true, true)),
        (json!({"ready": false, "serving": false, "terminating": true}), (false, false, true)),
    ] {
        let slice = slice_of(json!({"endpoints": [{"addresses": ["10.244.0.5"], "conditions": conditions}]}))
            .unwrap();
        let one = &slice.endpoints[0];
        assert_eq!((one.ready, one.serving, one.terminating), expected, "{conditions}");
    }
}

/// F6: only the first address; ports without name or number are no ports.
#[test]
fn endpoints_and_ports_that_mean_nothing_are_left_out() {
    let slice = slice_of(json!({
        "metadata": {"annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "1970-01-01T00:01:00.5Z"}},
        "endpoints": [
            {"addresses": ["10.244.0.5", "10.244.0.6"], "nodeName": "node1", "targetRef": {"kind": "Pod", "name": "web-0"},
             "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "node1"}]}, "zone": "a"},
            {"addresses": []}, {"addresses": null}, {"addresses": ["fd00::1"]}, {"addresses": ["nonsense"]},
            {"addresses": ["010.244.0.7"], "nodeName": ""}
        ],
        "ports": [
            {"name": "a", "port": 1, "protocol": "UDP"}, {"port": 2, "protocol": "TCP"}, {"name": "c", "protocol": "TCP"},
            {"name": "d", "port": 0}, {"name": "", "port": 5}
        ]
    }))
    .unwrap();
    let addresses: Vec<_> = slice.endpoints.iter().map(|one| one.address.to_string()).collect();
    assert_eq!(addresses, ["10.244.0.5", "10.244.0.7"]);
    let first = &slice.endpoints[0];
    assert_eq!((first.node.as_deref(), first.target.as_deref()), (Some("node1"), Some("web-0")));
    assert_eq!((first.zones.join(","), first.nodes.join(",")), ("a,b".to_owned(), "node1".to_owned()));
    assert_eq!(slice.endpoints[1].node, None);
    let ports: Vec<_> =
        slice.ports.iter().map(|port| (port.name.as_str(), port.protocol.as_str(), port.port)).collect();
    assert_eq!(ports, [("a", "udp", 1), ("", "tcp", 5)]);
    assert_eq!(slice.triggered, Some(SystemTime::UNIX_EPOCH + Duration::from_millis(60_500)));
    let empty = slice_of(json!({"endpoints": Value::Null, "ports": Value::Null})).unwrap();
    assert!(empty.triggered.is_none());
}

/// Go writes lists that are not there as null.
#[test]
fn null_lists_are_empty() {
    let text = r#"{"metadata": {"namespace": "ns", "name": "x", "labels": {"kubernetes.io/service-name": "web"},
        "annotations": null}, "addressType": "IPv4", "endpoints": null, "ports": null}"#;
    let object: WatchedSlice = serde_json::from_str(text).unwrap();
    let slice = slice::slice(&object).unwrap();
    assert!(slice.endpoints.is_empty() && slice.ports.is_empty());
}

/// F4.
#[test]
fn a_node_is_read_with_its_zone_and_primary_addresses() {
    let object = |patch: Value| {
        let mut object = json!({
            "metadata": {"name": "node1", "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "node1"}, {"type": "ExternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "InternalIP", "address": "10.0.0.2"},
                {"type": "ExternalIP", "address": "2001:db8::1"}
            ]}
        });
        merge(&mut object, patch);
        let node: WatchedNode = serde_json::from_value(object).unwrap();
        ProxyNode::from(&node)
    };
    let node = object(json!({}));
    let addresses = ["10.0.0.1", "2001:db8::1"].map(|address| address.parse().unwrap()).to_vec();
    assert_eq!(node.node, ServiceNode { name: "node1".to_owned(), zone: Some("a".to_owned()), addresses });
    assert_eq!(texts(&node.pod_networks), ["10.244.1.0/24", "fd00:1::/64"]);
    assert!(node.eligible);
    let leaving = [
        json!({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    ];
    for patch in leaving {
        assert!(!object(patch.clone()).eligible, "{patch}");
    }
}

#[test]
fn a_file_has_services_and_slices_in_any_form() {
    let manifest = services_from_yaml(
        r#"
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {port: 80, targetPort: http}
  - {name: metrics, port: 9090, targetPort: 9100, nodePort: 30090, protocol: TCP}
  - {name: same, port: 7}
---
# nothing
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {namespace: other, name: headless}, spec: {clusterIP: None, ports: [{port: 1}]}}
- {apiVersion: v1, kind: Service, metadata: {name: alias}, spec: {type: ExternalName, externalName: example.org}}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  endpoints: [{addresses: [10.0.0.1]}]
  ports: [{name: "", port: 8080}]
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}
"#,
    )
    .unwrap();
    let [web, headless, alias] = manifest.services.as_slice() else { panic!("{manifest:?}") };
    assert_eq!(web.service.name.to_string(), "default/web");
    assert!(web.service.cluster_addresses.is_empty() && web.wants_node_ports && !web.headless);
    assert_eq!(web.selector["app"], "web");
    assert_eq!(
        web.target_ports,
        [TargetPort::Name("http".to_owned()), TargetPort::Number(9100), TargetPort::Number(7)]
    );
    let node_ports: Vec<_> = web.service.ports.iter().map(|port| port.node_port).collect();
    assert_eq!(node_ports, [None, Some(30090), None]);
    assert!(headless.headless && headless.service.name.namespace == "other");
    assert_eq!(alias.external_name.as_deref(), Some("example.org"));
    assert_eq!(manifest.slices[0].service.to_string(), "default/web");
    assert_eq!(manifest.warnings.len(), 1, "{:?}", manifest.warnings);
    assert!(manifest.warnings[0].contains("Deployment web of apps/v1 is ignored"), "{:?}", manifest.warnings);
}

/// What `kubectl annotate service x service.beta.kubernetes.io/external-traffic=OnlyLocal` meant once.
#[test]
fn the_annotation_of_old_is_read_with_a_warning() {
    let text = |value: &str, policy: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations: \
             {{service.beta.kubernetes.io/external-traffic: {value}}}\nspec: {{type: LoadBalancer, {policy} ports: [{{port: 80}}]}}\n"
        )
    };
    let manifest = services_from_yaml(&text("OnlyLocal", "")).unwrap();
    assert_eq!(manifest.services[0].service.external_policy, TrafficPolicy::Local);
    assert!(manifest.warnings[0].contains("externalTrafficPolicy: Local"), "{:?}", manifest.warnings);
    let manifest = services_from_yaml(&text("Global", "")).unwrap();
    assert_eq!(manifest.services[0].service.external_policy, TrafficPolicy::Cluster);
    let manifest = services_from_yaml(&text("OnlyLocal", "externalTrafficPolicy: Cluster,")).unwrap();
    assert_eq!(manifest.services[0].service.external_policy, TrafficPolicy::Cluster, "the field wins");
    // Where there is an API server it means nothing, as with kube-proxy.
    let annotations = json!({"service.beta.kubernetes.io/external-traffic": "OnlyLocal"});
    let service =
        service(json!({"metadata": {"annotations": annotations}, "spec": {"type": "LoadBalancer"}}));
    assert_eq!(service.external_policy, TrafficPolicy::Cluster);
}

#[test]
fn a_file_that_is_wrong_says_where() {
    for (text, expected) in [
        ("a: [", "it is no YAML"),
        ("apiVersion: v1\nmetadata: {name: x}\n", "document 1: it has no kind"),
        ("kind: Service\nmetadata: {name: x}\n", "Service x: it has no apiVersion"),
        ("apiVersion: v1\nkind: Service\nspec: {}\n", "it has no metadata.name"),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: http}]}\n",
            "Service x: ",
        ),
    ] {
        let error = services_from_yaml(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let wrong = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 70000}, {port: 1, protocol: ICMP}]}\n";
    let manifest = services_from_yaml(wrong).unwrap();
    assert!(manifest.services[0].service.ports.is_empty() && manifest.warnings.len() == 2, "{manifest:?}");
}
