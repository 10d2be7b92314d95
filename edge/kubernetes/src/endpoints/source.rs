//! A Service that asks for a twin, or is one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

use super::desired::{LABEL, PUBLISH_ANNOTATION, TWIN_LABEL, TWIN_SUFFIX};

/// A Service, as far as twins are concerned.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SourceService {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) publishes: bool,
    pub(super) selector: BTreeMap<String, String>,
    pub(super) publish_not_ready: bool,
    /// The object itself, if it is a twin of ours.
    pub(super) twin: Option<Service>,
}

impl SourceService {
    pub(super) fn concerns_us(&self) -> bool {
        self.publishes || self.twin.is_some()
    }

    pub(super) fn twin_name(&self) -> String {
        format!("{}{TWIN_SUFFIX}", self.name)
    }

    /// Why it cannot have a twin.
    pub(super) fn problem(&self) -> Option<String> {
        if self.selector.is_empty() {
            return Some(format!(
                "the annotation {PUBLISH_ANNOTATION} is for a Service with a selector: without one no Pods belong to it"
            ));
        }
        let name = self.twin_name();
        (name.len() > LABEL).then(|| {
            format!("{name} would be the name of the Service with its ports, and has {} characters: {LABEL} are allowed", name.len())
        })
    }

    pub(super) fn selects(&self, pod: &BTreeMap<String, String>) -> bool {
        self.selector.iter().all(|(key, value)| pod.get(key) == Some(value))
    }
}

impl From<Service> for SourceService {
    fn from(service: Service) -> Self {
        let metadata = &service.metadata;
        let spec = service.spec.as_ref();
        let annotation = metadata.annotations.as_ref().and_then(|all| all.get(PUBLISH_ANNOTATION));
        let ours = metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(TWIN_LABEL));
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            publishes: !ours
                && annotation.is_some_and(|value| value == "true")
                && metadata.deletion_timestamp.is_none(),
            selector: spec.and_then(|spec| spec.selector.clone()).unwrap_or_default(),
            publish_not_ready: spec.and_then(|spec| spec.publish_not_ready_addresses).unwrap_or_default(),
            twin: ours.then(|| {
                let mut service = service.clone();
                service.metadata.managed_fields = None;
                service.status = None;
                service
            }),
        }
    }
}
