//! Services of one machine, without Kubernetes: `up -f services.yaml`, and what `expose` makes.
//!
//! The way of a Service: [`files`] reads and [`manifest`] checks it, [`allocate`] gives it numbers that [`store`] keeps,
//! [`endpoints`] finds its instances in the catalog, [`desired`] puts all of that together for the [`owner`], and
//! [`effects`] has it served: by the kernel (`packet/apply`), by name (`registration/dns`), on the loopback
//! (`packet/relay`); its node ports are [`held`], its health [`checked`], and a [`way`] leads to its addresses.
//! [`api`] is how others ask, [`shown`] what they are told.

mod allocate;
pub(crate) mod api;
mod bound;
mod checked;
mod desired;
mod effects;
pub(crate) mod endpoints;
mod error;
pub(crate) mod files;
mod handle;
mod held;
mod local;
pub(crate) mod manifest;
mod owner;
mod ranges;
mod settings;
pub(crate) mod shown;
mod store;
mod way;

pub(crate) use self::{handle::ServicesHandle, owner::Owner, settings::ServicesSettings, way::LO};
