//! Services and EndpointSlices from a file: the same objects as in the API, with what nobody has filled in yet.

use std::collections::BTreeMap;

use portolan_model::{EndpointSlice, Service, TrafficPolicy};
use serde_json::Value;

use super::{
    convert, number, slice,
    watched::{NumberOrName, Spec, WatchedService, WatchedSlice},
};

/// What `OnlyLocal` was said by before `externalTrafficPolicy` (Kubernetes 1.4 to 1.6).
const EXTERNAL_TRAFFIC_ANNOTATION: &str = "service.beta.kubernetes.io/external-traffic";

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its Services, in the order of the file.
    pub services: Vec<WrittenService>,
    /// Its EndpointSlices.
    pub slices: Vec<EndpointSlice>,
    /// What was ignored or read in another way than it was written, with the object's name.
    pub warnings: Vec<String>,
}

/// A Service as it was written: addresses, node ports and endpoints may be for the reader to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenService {
    /// The Service. Without `clusterIP` in the file it has no cluster address; node ports that are not said are `None`.
    pub service: Service,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.selector`: which instances are its endpoints. Empty: those of the slices that name it.
    pub selector: BTreeMap<String, String>,
    /// Where the ports of [`Service::ports`] lead to, in the same order.
    pub target_ports: Vec<TargetPort>,
    /// `clusterIP: None`: a name with the addresses of its endpoints, and no frontends.
    pub headless: bool,
    /// `spec.externalName` of a Service of that type: another name, and no frontends.
    pub external_name: Option<String>,
    /// Whether ports without a nodePort are to get one: by type, and unless `allocateLoadBalancerNodePorts: false`.
    pub wants_node_ports: bool,
    /// `publishNotReadyAddresses`: endpoints count as ready whatever their checks say.
    pub publish_not_ready: bool,
    /// `ipFamilies`, if it was said.
    pub families: Vec<AddressFamily>,
    /// `ipFamilyPolicy`: whether it is to have an address of each family.
    pub dual_stack: bool,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// `IPv4`.
    V4,
    /// `IPv6`.
    V6,
}

/// Where a port of a Service leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// This port of every endpoint.
    Number(u16),
    /// The port of this name, which may be another number on each endpoint.
    Name(String),
}

/// Why a file is none of Services.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// It is no YAML.
    #[error("it is no YAML: {0}")]
    Syntax(String),
    /// An object has a field of another type than in the API.
    #[error("{object}: {message}")]
    Object {
        /// Its kind and name, or its place in the file.
        object: String,
        /// What is wrong with it.
        message: String,
    },
}

/// Reads Services and EndpointSlices, in any number of documents and in lists (`kind: List`, as `kubectl get -o yaml`
/// writes them). Objects of other kinds are told as warnings.
pub fn services_from_yaml(text: &str) -> Result<Manifest, YamlError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| YamlError::Syntax(error.to_string()))?;
    let mut manifest = Manifest::default();
    for (index, document) in documents.into_iter().enumerate() {
        object(document, &format!("document {}", index + 1), &mut manifest)?;
    }
    Ok(manifest)
}

fn object(value: Value, place: &str, manifest: &mut Manifest) -> Result<(), YamlError> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    let wrong = |message: &str| YamlError::Object { object: place.to_owned(), message: message.to_owned() };
    if kind.is_empty() {
        return Err(wrong("it has no kind: write kind: Service"));
    }
    let items = value.get("items").and_then(Value::as_array);
    if let Some(items) = items.filter(|_| kind.ends_with("List")) {
        // Items of a ServiceList have no kind of their own.
        let single = kind.trim_end_matches("List").to_owned();
        for (index, item) in items.iter().enumerate() {
            let mut item = item.clone();
            if let Some(fields) = item.as_object_mut() {
                fields.entry("kind").or_insert_with(|| Value::String(single.clone()));
                fields.entry("apiVersion").or_insert_with(|| Value::String(version.to_owned()));
            }
            object(item, &format!("{place}, item {}", index + 1), manifest)?;
        }
        return Ok(());
    }
    let place = match name {
        "" => format!("{place} ({kind})"),
        name => format!("{kind} {name}"),
    };
    let wrong = |message: String| YamlError::Object { object: place.clone(), message };
    if name.is_empty() && matches!(kind, "Service" | "EndpointSlice") {
        return Err(wrong("it has no metadata.name".to_owned()));
    }
    match (version, kind) {
        ("v1", "Service") => {
            let object = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
            let (service, problems) = written(&object);
            manifest.warnings.extend(problems.iter().map(|problem| format!("{place}: {problem}")));
            manifest.services.push(service);
        }
        ("discovery.k8s.io/v1", "EndpointSlice") => {
            let object: WatchedSlice =
                serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
            match slice::slice(&object) {
                Some(slice) => manifest.slices.push(slice),
                None => manifest.warnings.push(format!(
                    "{place} is ignored: it needs the label kubernetes.io/service-name, and addressType IPv4 or IPv6"
                )),
            }
        }
        ("", _) => return Err(wrong("it has no apiVersion: write apiVersion: v1".to_owned())),
        _ => manifest
            .warnings
            .push(format!("{place} of {version} is ignored: it is no Service and no EndpointSlice")),
    }
    Ok(())
}

fn written(object: &WatchedService) -> (WrittenService, Vec<String>) {
    let (mut service, mut problems) = convert::written(object);
    let (default, metadata) = (Spec::default(), &object.metadata);
    let spec = object.spec.as_ref().unwrap_or(&default);
    let old = metadata.annotations.as_ref().and_then(|all| all.get(EXTERNAL_TRAFFIC_ANNOTATION));
    if old.is_some_and(|value| value == "OnlyLocal") && spec.external_traffic_policy.is_none() {
        service.external_policy = TrafficPolicy::Local;
        problems.push(format!(
            "the annotation {EXTERNAL_TRAFFIC_ANNOTATION}: OnlyLocal is read as externalTrafficPolicy: Local, which \
             has taken its place since Kubernetes 1.7"
        ));
    }
    // A port that was left out has no target either.
    let usable = spec.ports.as_deref().unwrap_or_default().iter().filter_map(|port| {
        let read = convert::port(port).ok()?;
        Some(match &port.target_port {
            Some(NumberOrName::Name(name)) => name
                .parse()
                .ok()
                .and_then(number::port)
                .map_or_else(|| TargetPort::Name(name.clone()), TargetPort::Number),
            Some(NumberOrName::Number(target)) => {
                TargetPort::Number(number::port(*target).unwrap_or(read.port))
            }
            None => TargetPort::Number(read.port),
        })
    });
    let target_ports = usable.collect();
    let balanced = spec.kind.as_deref() == Some("LoadBalancer");
    let allocates = spec.allocate_load_balancer_node_ports.unwrap_or(true);
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let written = WrittenService {
        labels: metadata.labels.clone().unwrap_or_default(),
        selector: spec.selector.clone().unwrap_or_default(),
        target_ports,
        headless: convert::is_headless(spec),
        external_name: spec.external_name.clone().filter(|_| convert::is_external_name(spec)),
        wants_node_ports: spec.kind.as_deref() == Some("NodePort") || (balanced && allocates),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        families: families.iter().filter_map(|family| AddressFamily::read(family)).collect(),
        dual_stack: matches!(spec.ip_family_policy.as_deref(), Some("PreferDualStack" | "RequireDualStack")),
        service,
    };
    (written, problems)
}

impl AddressFamily {
    fn read(text: &str) -> Option<Self> {
        match text {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }
}
