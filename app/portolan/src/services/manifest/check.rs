//! What the API server refuses about a Service, where there is none: validation.go of `pkg/apis/core`, in small.

use std::{collections::BTreeSet, net::IpAddr};

use portolan_kubernetes::WrittenService;
use serde_json::Value;

/// Values that a field may have, where it may not have any.
const VALUES: &[(&str, &[&str])] = &[
    ("type", &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
    ("internalTrafficPolicy", &["Cluster", "Local"]),
    ("externalTrafficPolicy", &["Cluster", "Local"]),
    ("sessionAffinity", &["None", "ClientIP"]),
    ("ipFamilyPolicy", &["SingleStack", "PreferDualStack", "RequireDualStack"]),
];

/// What the API server refuses: what to look for in the text, and what is wrong with it.
pub(super) fn check(written: &WrittenService, object: &Value) -> Result<(), (String, String)> {
    let service = &written.service;
    let no = |needle: &str, message: String| Err((needle.to_owned(), message));
    for (what, label) in
        [("metadata.name", &service.name.name), ("metadata.namespace", &service.name.namespace)]
    {
        if !is_label(label) {
            return no(
                label,
                format!(
                    "{what}: Invalid value: {label:?}: use lower-case letters, digits and '-', beginning with a letter"
                ),
            );
        }
    }
    for (field, allowed) in VALUES {
        if let Some(value) = object["spec"][*field].as_str().filter(|value| !allowed.contains(value)) {
            return no(
                value,
                format!(
                    "spec.{field}: Unsupported value: {value:?}: supported values: {}",
                    allowed.join(", ")
                ),
            );
        }
    }
    if object["spec"]["type"] == "ExternalName" {
        return match &written.external_name {
            Some(name) if is_dns_name(name) => Ok(()),
            Some(name) => no(name, format!("spec.externalName: Invalid value: {name:?}: it is no DNS name")),
            None => no(
                "ExternalName",
                "spec.externalName: Required value: the name that it stands for".to_owned(),
            ),
        };
    }
    let raw = object["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if raw.is_empty()
        && !written.headless
        && !service.options.whole_address
        && service.options.spans.is_empty()
    {
        return no("spec:", "spec.ports: Required value: which ports it has".to_owned());
    }
    let mut seen = BTreeSet::new();
    for (index, port) in raw.iter().enumerate() {
        let number = port["port"].as_i64().unwrap_or_default();
        if !(1..=65_535).contains(&number) {
            return no(
                &number.to_string(),
                format!(
                    "spec.ports[{index}].port: Invalid value: {number}: must be between 1 and 65535, inclusive"
                ),
            );
        }
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        if !["TCP", "UDP", "SCTP"].contains(&protocol) {
            return no(
                protocol,
                format!(
                    "spec.ports[{index}].protocol: Unsupported value: {protocol:?}: supported values: TCP, UDP, SCTP"
                ),
            );
        }
        let name = port["name"].as_str().unwrap_or_default();
        if raw.len() > 1 && name.is_empty() {
            return no(
                &format!("port: {number}"),
                format!(
                    "spec.ports[{index}].name: Required value: where there are several ports each has a name"
                ),
            );
        }
        if !name.is_empty() && !is_label_with_digits(name) {
            return no(
                name,
                format!(
                    "spec.ports[{index}].name: Invalid value: {name:?}: use lower-case letters, digits and '-'"
                ),
            );
        }
        if !seen.insert(format!("name {name}")) || !seen.insert(format!("{number}/{protocol}")) {
            return no(
                &format!("port: {number}"),
                format!(
                    "spec.ports[{index}]: Duplicate value: {number}/{protocol} or its name is there twice"
                ),
            );
        }
        if let Some(target) = port["targetPort"].as_i64().filter(|target| !(1..=65_535).contains(target)) {
            return no(
                &target.to_string(),
                format!(
                    "spec.ports[{index}].targetPort: Invalid value: {target}: must be between 1 and 65535, inclusive"
                ),
            );
        }
    }
    for field in ["clusterIP", "loadBalancerIP"] {
        if let Some(text) = object["spec"][field].as_str().filter(|text| !matches!(*text, "" | "None"))
            && text.parse::<IpAddr>().is_err()
        {
            return no(text, format!("spec.{field}: Invalid value: {text:?}: must be a valid IP address"));
        }
    }
    Ok(())
}

/// RFC 1035 section 2.3.1, in lower case.
fn is_label(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase()) && is_label_with_digits(text)
}

/// RFC 1123 section 2.1, in lower case.
fn is_label_with_digits(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_dns_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(label) && text.parse::<IpAddr>().is_err()
}
