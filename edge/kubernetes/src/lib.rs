//! The Kubernetes API: the only crate that knows kube.
//!
//! A node's agent reads by a [`NodeView`] and writes by a [`Publisher`] and a [`Capacity`]. The controller keeps
//! Services' twins ([`run_endpoints`]) and the status of pools ([`run_pool_status`]), while a [`Leader`] says that it is
//! the one to do so. The webhook ([`serve_webhook`]) tells the scheduler what Pods will ask for. A service proxy is told
//! of Services and endpoints by a [`ServiceWatch`]. All of them go through one [`Connection`], are level-triggered, and do their work later when the API server is away.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answered;
mod backoff;
mod changes;
mod connection;
mod endpoints;
mod facts;
mod failure;
mod leader;
mod mirror;
mod pool;
mod publish;
mod quota;
mod rollout;
pub mod services;
mod view;
mod webhook;

pub use changes::{Change, Changes};
pub use connection::{ConnectError, Connection, ConnectionConfig};
pub use endpoints::{
    BLOCKS_ANNOTATION, MANAGED_BY, PUBLISH_ANNOTATION, TWIN_SUFFIX, remove_endpoints, run_endpoints,
};
pub use facts::{
    ContainerFacts, ContainerPort, NodeFacts, OwnerFacts, Phase, PodFacts, PodKey, StaticHostPort,
};
pub use failure::ApiError;
pub use leader::{Leader, LeaderConfig};
pub use pool::{
    OPT_IN_LABEL, PoolError, PoolFacts, PoolSet, RESOURCE_PREFIX, RefusedPool, Selector, SelectorError,
    crd_yaml, opted_in, run_pool_status,
};
pub use publish::{About, Annotations, Capacity, EventKind, PublishError, PublishStats, Publisher};
pub use quota::{Count, check_quota, namespace_usage};
pub use rollout::Rollout;
pub use services::{
    AFFINITY_SCOPE_ANNOTATION, AddressFamily, BALANCE_ANNOTATION, DRAIN_ANNOTATION, Manifest,
    NO_LOCAL_ENDPOINTS_ANNOTATION, PORT_RANGES_ANNOTATION, ProxyNode, SERVICE_PROXY_NAME_LABEL,
    SOURCE_RANGES_ANNOTATION, ServiceEvent, ServiceWatch, ServiceWatchConfig, ServiceWatchHealth, TargetPort,
    WEIGHTS_ANNOTATION, WHOLE_ADDRESS_ANNOTATION, WrittenService, YamlError, services_from_yaml,
};
pub use view::{NodeView, NotSynced, PodError, ViewHealth};
pub use webhook::{Certificates, CertificatesConfig, CertificatesError, Mutate, Policy, serve_webhook};
