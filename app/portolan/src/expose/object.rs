//! The Service that is asked for, as an object of Kubernetes: pure.

use portolan_cli::{Affinity, ExposeArgs};
use portolan_model::{Instance, InstancePort, Protocol};
use serde_json::{Map, Value, json};

use crate::services::endpoints::{INSTANCE_LABEL, SERVICE_LABEL, selects};

/// Why there is no Service to ask for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExposeError {
    #[error("no service or instance named {0:?} in the catalog")]
    Unknown(String),
    #[error("there is no service named {0:?} in the catalog, but an instance")]
    NoService(String),
    #[error("{0:?} is nothing that can be exposed")]
    Kind(String),
    #[error("couldn't find port via --port flag or introspection")]
    NoPort,
    #[error("it needs a name: nothing but labels says what is exposed")]
    NoName,
}

impl ExposeError {
    pub(crate) fn hint(&self) -> String {
        let hint = match self {
            Self::Unknown(_) => {
                "`portolan list -o wide` shows instances and their services; or give --selector KEY=VALUE"
            }
            Self::NoService(_) => "write `portolan expose instance NAME`",
            Self::Kind(_) => "write `portolan expose NAME`, `service NAME` or `instance NAME`",
            Self::NoPort => "say which: --port 80 --target-port http",
            Self::NoName => "give it one: --name NAME",
        };
        hint.to_owned()
    }
}

/// What is exposed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Service,
    Instance,
}

/// The Service.
pub(crate) fn service(args: &ExposeArgs, instances: &[Instance]) -> Result<Value, ExposeError> {
    let words: Vec<&str> = args.what.iter().flat_map(|word| word.split('/')).collect();
    let (kind, what) = match words.as_slice() {
        [] => (Kind::Any, None),
        [name] => (Kind::Any, Some(*name)),
        ["service" | "services" | "svc", name] => (Kind::Service, Some(*name)),
        ["instance" | "instances" | "pod" | "po", name] => (Kind::Instance, Some(*name)),
        [kind, ..] => return Err(ExposeError::Kind((*kind).to_owned())),
    };
    let selector: Vec<(String, String)> = if args.selector.is_empty() {
        let what = what.unwrap_or_default();
        let is_service = instances.iter().any(|instance| instance.service.as_str() == what);
        let is_instance = instances.iter().any(|instance| instance.key.name.as_str() == what);
        let label = match kind {
            Kind::Any | Kind::Service if is_service => SERVICE_LABEL,
            Kind::Any | Kind::Instance if is_instance => INSTANCE_LABEL,
            Kind::Service if is_instance => return Err(ExposeError::NoService(what.to_owned())),
            _ => return Err(ExposeError::Unknown(what.to_owned())),
        };
        vec![(label.to_owned(), what.to_owned())]
    } else {
        args.selector.iter().map(|label| (label.key.clone(), label.value.clone())).collect()
    };
    let name = args.name.as_deref().or(what).ok_or(ExposeError::NoName)?;
    let by = selector.iter().cloned().collect();
    let selected = instances.iter().filter(|instance| selects(&by, instance));
    let ports = ports(args, selected.flat_map(|instance| &instance.ports))?;

    let mut metadata = json!({ "name": name, "namespace": args.namespace });
    if !args.labels.is_empty() {
        metadata["labels"] =
            args.labels.iter().map(|label| (label.key.clone(), json!(label.value))).collect();
    }
    let mut spec = Map::new();
    let mut set = |key: &str, value: Value| spec.insert(key.to_owned(), value);
    if let Some(address) = &args.cluster_ip {
        set("clusterIP", json!(address));
    }
    if !args.external_ips.is_empty() {
        set("externalIPs", json!(args.external_ips));
    }
    if let Some(address) = args.load_balancer_ip {
        set("loadBalancerIP", json!(address));
    }
    set("ports", json!(ports));
    set("selector", selector.into_iter().map(|(key, value)| (key, json!(value))).collect());
    if args.session_affinity == Some(Affinity::ClientIp) {
        set("sessionAffinity", json!("ClientIP"));
    }
    set("type", json!(args.kind.as_str()));
    Ok(json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec }))
}

/// The one that was named, or all that the instances have.
fn ports<'a>(
    args: &ExposeArgs,
    known: impl Iterator<Item = &'a InstancePort>,
) -> Result<Vec<Value>, ExposeError> {
    // Copies have the same names, and other numbers outside.
    let mut distinct: Vec<&InstancePort> = Vec::new();
    for port in known.filter(|port| port.port.is_single()) {
        if !distinct.iter().any(|other| other.name == port.name) {
            distinct.push(port);
        }
    }
    let upper = |protocol: Protocol| protocol.as_str().to_ascii_uppercase();
    if let Some(number) = args.port {
        let target = target(args, number, &distinct);
        return Ok(vec![json!({ "port": number, "protocol": upper(args.protocol), "targetPort": target })]);
    }
    let all: Vec<(&InstancePort, Protocol)> =
        distinct.iter().flat_map(|port| port.protocols.iter().map(|protocol| (*port, protocol))).collect();
    if all.is_empty() {
        return Err(ExposeError::NoPort);
    }
    let ports = all.iter().map(|(port, protocol)| {
        let number = port.container.unwrap_or(port.port.first());
        let mut object =
            json!({ "port": number, "protocol": upper(*protocol), "targetPort": port.name.as_str() });
        if all.len() > 1 {
            let shared = all.iter().filter(|(other, _)| other.name == port.name).count() > 1;
            object["name"] = match shared {
                true => json!(format!("{}-{protocol}", port.name)),
                false => json!(port.name.as_str()),
            };
        }
        object
    });
    Ok(ports.collect())
}

/// As given; else the number, where an instance has it; else the only port of that protocol, whatever its number is.
fn target(args: &ExposeArgs, number: u16, known: &[&InstancePort]) -> Value {
    if let Some(target) = &args.target_port {
        return target.parse::<u16>().map_or_else(|_| json!(target), |number| json!(number));
    }
    let of_protocol: Vec<&InstancePort> =
        known.iter().copied().filter(|port| port.protocols.contains(args.protocol)).collect();
    let has = |port: &&InstancePort| port.container == Some(number) || port.port.first() == number;
    match (of_protocol.iter().any(has), of_protocol.as_slice()) {
        (false, [only]) => json!(only.name.as_str()),
        _ => json!(number),
    }
}

#[cfg(test)]
mod tests {
    use portolan_cli::{Verb, parse_from};

    use super::*;

    fn instance(name: &str, ports: &Value) -> Instance {
        let value = json!({
            "name": name, "incarnation": "1", "service": "web", "node": "n", "addresses": ["192.0.2.1"],
            "ports": ports, "labels": {"app": "x"}, "state": "passing",
            "since": "2026-01-01T00:00:00Z", "registered": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value(value).unwrap()
    }

    fn expose(words: &str, instances: &[Instance]) -> Result<Value, ExposeError> {
        let words = ["portolan", "expose"].into_iter().chain(words.split_whitespace()).map(Into::into);
        let Verb::Expose(args) = parse_from(words).unwrap().verb else { panic!("another verb") };
        service(&args, instances)
    }

    fn copies() -> [Instance; 2] {
        let http =
            |port: &str| json!([{"name": "http", "protocols": ["tcp"], "port": port, "container": 8080}]);
        [instance("web-0", &http("20001")), instance("web-1", &http("20002"))]
    }

    #[test]
    fn a_service_of_the_catalog_or_an_instance_is_exposed() {
        let all = copies();
        let object = expose("web --port 80", &all).unwrap();
        assert_eq!(
            object,
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
                "spec": {
                    "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}],
                    "selector": {"portolan.dev/service": "web"}, "type": "ClusterIP",
                },
            })
        );
        let selector = |words: &str| expose(words, &all).unwrap()["spec"]["selector"].clone();
        assert_eq!(selector("web-0 --port 80"), json!({"portolan.dev/instance": "web-0"}));
        assert_eq!(selector("instance/web-0 --port 80"), json!({"portolan.dev/instance": "web-0"}));
        assert_eq!(selector("--selector app=x,y=z --name n --port 80"), json!({"app": "x", "y": "z"}));
        assert_eq!(expose("nobody --port 80", &all), Err(ExposeError::Unknown("nobody".to_owned())));
        assert_eq!(expose("service web-0 --port 80", &all), Err(ExposeError::NoService("web-0".to_owned())));
        assert_eq!(expose("deployment web --port 80", &all), Err(ExposeError::Kind("deployment".to_owned())));
        assert_eq!(expose("--selector app=x --port 80", &all), Err(ExposeError::NoName));
    }

    #[test]
    fn the_flags_are_those_of_kubectl() {
        let words = "web --port 443 --target-port https --protocol UDP --name secure --type nodeport --cluster-ip \
                     10.0.0.1 --external-ip 192.0.2.9 --load-balancer-ip 192.0.2.8 --session-affinity clientip -l a=b \
                     -n shop";
        let object = expose(words, &copies()).unwrap();
        assert_eq!(object["metadata"], json!({"name": "secure", "namespace": "shop", "labels": {"a": "b"}}));
        let spec = &object["spec"];
        assert_eq!(spec["ports"], json!([{"port": 443, "protocol": "UDP", "targetPort": "https"}]));
        assert_eq!((&spec["type"], &spec["clusterIP"]), (&json!("NodePort"), &json!("10.0.0.1")));
        assert_eq!(
            (&spec["externalIPs"], &spec["loadBalancerIP"]),
            (&json!(["192.0.2.9"]), &json!("192.0.2.8"))
        );
        assert_eq!(spec["sessionAffinity"], json!("ClientIP"));
    }

    #[test]
    fn without_a_port_those_of_the_instances_are_taken() {
        let object = expose("web", &copies()).unwrap();
        assert_eq!(object["spec"]["ports"], json!([{"port": 8080, "protocol": "TCP", "targetPort": "http"}]));
        let two = instance(
            "web-0",
            &json!([
                {"name": "http", "protocols": ["tcp"], "port": "80"},
                {"name": "game", "protocols": ["tcp", "udp"], "port": "7000"},
                {"name": "media", "protocols": ["udp"], "port": "21000-21099"},
            ]),
        );
        let object = expose("web", &[two]).unwrap();
        let names: Vec<_> =
            object["spec"]["ports"].as_array().unwrap().iter().map(|port| &port["name"]).collect();
        assert_eq!(names, [&json!("http"), &json!("game-tcp"), &json!("game-udp")]);
        assert_eq!(expose("web", &[instance("web-0", &json!([]))]), Err(ExposeError::NoPort));
    }
}
