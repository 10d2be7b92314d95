//! Services of one machine, without Kubernetes: `up -f services.yaml`, and what `expose` makes.
//!
//! The way of a Service: [`files`] reads and [`manifest`] checks it, [`allocate`] gives it numbers that [`store`] keeps,
//! [`endpoints`] finds its instances in the catalog, [`desired`] puts all of that together, and [`owner`] has it served:
//! by the kernel (`packet/apply`), by name (`registration/dns`), on the loopback (`packet/relay`).
//! [`api`] is how others ask, [`shown`] what they are told.

mod allocate;
pub(crate) mod api;
mod desired;
pub(crate) mod endpoints;
mod error;
pub(crate) mod files;
mod handle;
mod local;
pub(crate) mod manifest;
mod owner;
mod ranges;
pub(crate) mod shown;
mod store;

pub(crate) use self::{
    handle::ServicesHandle,
    owner::{Owner, ServicesSettings},
};
