//! The admission webhook: Pods that ask for ports ask the scheduler for them too.
//!
//! The annotation that asks for ports says nothing to the scheduler, which knows resources only. So at a Pod's creation
//! [`Mutate`] adds requests for `ports.portolan.dev/POOL` to its first container, and a node whose pool is full gets no
//! more such Pods. [`Certificates`] are our own: no other program has to be installed for them.

mod certificates;
mod keeper;
mod mutate;
mod paper;
mod review;
mod serve;

pub use self::{
    certificates::{Certificates, CertificatesConfig, CertificatesError},
    mutate::{Mutate, Policy},
    serve::serve_webhook,
};
