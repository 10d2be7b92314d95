//! Cloud providers: the metadata service that knows a machine's public address.
//!
//! A cloud instance usually has only a private address on its interface; the public one is translated outside of it,
//! and only the provider's metadata service can tell it. [`external_ip`] asks. Whoever advertises an address
//! (`portolan serve -register-instance-external-ip`) is the caller.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod http;
mod metadata;
mod provider;

pub use metadata::{Endpoints, external_ip};
pub use provider::{MetadataError, Provider};
