//! Logs, and the names and labels of every metric, in one place.
//!
//! [`logs::start`] is called once, by the program. [`metrics::Metrics`] is handed to whoever counts something; the
//! page's listener serves [`metrics::Metrics::encode`] under `/metrics`. A service proxy has [`service_proxy`] in its
//! place, a relay in user space [`relay`].

pub mod logs;
pub mod metrics;
pub mod relay;
pub mod service_proxy;
