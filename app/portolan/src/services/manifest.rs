//! Services as people write them: read, and checked as the API server would, with the line of what is wrong.
//!
//! Reading is `edge/kubernetes`; here is what only matters where no API server stands before: names, duplicates, fields
//! that do not exist.

mod check;
mod fields;
mod place;

use portolan_kubernetes::{Manifest, WrittenService, services_from_yaml};
use portolan_model::{ObjectName, ServiceType};
use serde_json::Value;

use self::{
    check::check,
    fields::unknown,
    place::{line_from, line_in_message, line_of, line_of_name},
};

/// Why a file is not served, with the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub(crate) struct ManifestError {
    /// `FILE` or `FILE:LINE`.
    pub(crate) place: String,
    pub(crate) message: String,
}

/// A file, read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Read {
    pub(crate) services: Vec<Written>,
    pub(crate) slices: Vec<portolan_model::EndpointSlice>,
    /// What was ignored, each with its place.
    pub(crate) warnings: Vec<String>,
}

/// A Service with what its file says besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) service: WrittenService,
    /// Where it is from: `FILE:LINE`.
    pub(crate) place: String,
}

impl Written {
    pub(crate) fn name(&self) -> &ObjectName {
        &self.service.service.name
    }

    /// Whether its type is `ExternalName`.
    pub(crate) fn is_alias(&self) -> bool {
        self.service.external_name.is_some()
    }
}

/// Reads the text of `file`.
pub(crate) fn read(file: &str, text: &str) -> Result<Read, ManifestError> {
    let at = |line: Option<usize>| line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"));
    let manifest = services_from_yaml(text).map_err(|error| {
        let message = error.to_string();
        let line = line_in_message(&message).or_else(|| line_of(text, &message));
        ManifestError { place: at(line), message }
    })?;
    let raw: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_default();
    let raw: Vec<&Value> =
        raw.iter().flat_map(objects).filter(|object| object["kind"] == "Service").collect();
    let Manifest { services, slices, warnings } = manifest;
    let mut read = Read { slices, ..Read::default() };
    read.warnings
        .extend(warnings.into_iter().map(|warning| format!("{}: {warning}", at(line_of(text, &warning)))));
    for (index, service) in services.into_iter().enumerate() {
        let name = service.service.name.clone();
        let starts = line_of_name(text, &name.name);
        let place = |needle: &str| at(line_from(text, starts.unwrap_or(1), needle).or(starts));
        let object = raw.get(index).copied().unwrap_or(&Value::Null);
        let balancer: Option<std::net::IpAddr> =
            object["spec"]["loadBalancerIP"].as_str().and_then(|text| text.parse().ok());
        check(&service, object).map_err(|(needle, message)| ManifestError {
            place: place(&needle),
            message: format!("Service {name}: {message}"),
        })?;
        for field in unknown(object) {
            let key = field.rsplit('.').next().unwrap_or(&field);
            read.warnings.push(format!(
                "{}: Service {name}: unknown field {field:?} is ignored",
                place(&format!("{key}:"))
            ));
        }
        if read.services.iter().any(|other| *other.name() == name) {
            return Err(ManifestError {
                place: at(starts),
                message: format!("Service {name} is there twice: give one of them another name"),
            });
        }
        let mut service = service;
        // The field is the request, the status the answer: here both are one.
        if service.service.kind == ServiceType::LoadBalancer
            && service.service.load_balancer_addresses.is_empty()
        {
            service.service.load_balancer_addresses.extend(balancer);
        }
        read.services.push(Written { service, place: at(starts) });
    }
    Ok(read)
}

/// The objects of a document, those of lists too.
fn objects(document: &Value) -> Vec<&Value> {
    match document["items"].as_array() {
        Some(items) => items.iter().flat_map(objects).collect(),
        None => vec![document],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports:
  - port: 80
    targetPort: http
";

    fn refused(from: &str, to: &str) -> String {
        read("s.yaml", &WEB.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn a_service_is_read_with_its_place() {
        let read = read("s.yaml", WEB).unwrap();
        assert_eq!((read.services[0].place.as_str(), read.warnings.len()), ("s.yaml:4", 0));
        assert_eq!(read.services[0].name().to_string(), "default/web");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        assert!(
            refused("selector: {", "selector: {{").starts_with("s.yaml:6: "),
            "{}",
            refused("selector: {", "selector: {{")
        );
        let said = refused("port: 80", "port: 70000");
        assert!(said.starts_with("s.yaml:8: ") && said.contains("between 1 and 65535"), "{said}");
        let said = refused("port: 80", "port: eighty");
        assert!(said.starts_with("s.yaml:8: "), "{said}");
        let said = refused("  selector", "  type: Nodeport\n  selector");
        assert!(said.starts_with("s.yaml:6: ") && said.contains("ClusterIP, NodePort"), "{said}");
        let said = refused("  - port: 80", "  - port: 80\n  - port: 81");
        assert!(said.contains("each has a name"), "{said}");
        assert!(refused("name: web", "name: Web").starts_with("s.yaml:4: "));
        assert!(
            refused("  ports:\n  - port: 80\n    targetPort: http\n", "")
                .contains("spec.ports: Required value")
        );
        let twice = format!("{WEB}---\n{WEB}");
        assert!(read("s.yaml", &twice).unwrap_err().to_string().contains("there twice"));
        assert!(refused("  selector", "  type: ExternalName\n  selector").contains("spec.externalName"));
    }

    #[test]
    fn a_field_that_does_not_exist_is_told() {
        let read = read("s.yaml", &WEB.replace("targetPort", "targetport")).unwrap();
        assert_eq!(
            read.warnings,
            ["s.yaml:9: Service default/web: unknown field \"spec.ports[0].targetport\" is ignored"]
        );
    }
}
