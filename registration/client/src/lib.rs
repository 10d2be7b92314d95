//! Register, renew, leave, list and watch: a library for others.
//!
//! A [`Client`] talks to one [`Endpoint`], a registry's address or the unix socket of the `portolan up` on this
//! machine. Most programs need only a [`Keeper`]: it registers an instance and keeps it registered until told to
//! leave, whatever happens to the registry in between.
//!
//! ```no_run
//! use portolan_client::{Client, Endpoint, Keeper};
//! use portolan_model::Registration;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint: Endpoint = "http://127.0.0.1:10080".parse()?;
//! let keeper = Keeper::start(Client::new(endpoint, None), Registration::new("web-1".parse()?));
//! // … serve …
//! keeper.leave().await;
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
mod endpoint;
mod error;
mod events;
mod keeper;
mod transport;
mod watch;

pub use client::Client;
pub use endpoint::{Endpoint, EndpointError};
pub use error::ClientError;
pub use keeper::{Keeper, Status};
pub use watch::{Event, Watch};
