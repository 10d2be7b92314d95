//! Which fields a Service has: others are told, as they are mistakes more often than not.

use serde_json::Value;

/// Fields of a Service's spec (`k8s.io/api/core/v1`, 1.36).
const SPEC: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "ports",
    "publishNotReadyAddresses",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "trafficDistribution",
    "type",
];
const PORT: &[&str] = &["appProtocol", "name", "nodePort", "port", "protocol", "targetPort"];
/// The paths of fields that no Service has.
pub(super) fn unknown(object: &Value) -> Vec<String> {
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
    };
    let top = keys(object);
    let mut unknown: Vec<String> = top
        .into_iter()
        .filter(|key| !["apiVersion", "kind", "metadata", "spec", "status"].contains(&&**key))
        .collect();
    let spec = keys(&object["spec"]);
    unknown.extend(spec.into_iter().filter(|key| !SPEC.contains(&&**key)).map(|key| format!("spec.{key}")));
    for (index, port) in object["spec"]["ports"].as_array().into_iter().flatten().enumerate() {
        let strange = keys(port).into_iter().filter(|key| !PORT.contains(&&**key));
        unknown.extend(strange.map(|key| format!("spec.ports[{index}].{key}")));
    }
    unknown
}
