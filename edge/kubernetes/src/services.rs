//! Services and EndpointSlices for a service proxy: watched, or read from a file.
//!
//! The way of an object: `watched` has the fields that are read and drops the others while JSON is parsed, `convert`
//! and `slice` make it a word of [`portolan_model`], with every default and oddity of the API, and [`ServiceWatch`]
//! tells a consumer what has changed. Nothing of the API's own types is kept. A file goes the same way by
//! [`services_from_yaml`].

mod annotations;
mod convert;
mod feed;
mod node;
mod number;
mod slice;
mod watch;
mod watched;
mod yaml;

#[cfg(test)]
mod tests;

pub use self::{
    annotations::{
        AFFINITY_SCOPE_ANNOTATION, BALANCE_ANNOTATION, DRAIN_ANNOTATION, NO_LOCAL_ENDPOINTS_ANNOTATION,
        PORT_RANGES_ANNOTATION, SOURCE_RANGES_ANNOTATION, WEIGHTS_ANNOTATION, WHOLE_ADDRESS_ANNOTATION,
    },
    node::ProxyNode,
    watch::{SERVICE_PROXY_NAME_LABEL, ServiceEvent, ServiceWatch, ServiceWatchConfig, ServiceWatchHealth},
    yaml::{AddressFamily, Manifest, TargetPort, WrittenService, YamlError, services_from_yaml},
};
