//! What gathers until everything is known.

use std::fmt;

use portolan_model::{EndpointSlice, ObjectName, Service};

use super::{Services, compact};
use crate::{ServicesConfig, ServicesError};

/// Services and slices as they are kept, while nobody asks what they mean: at the start they come one by one, and what
/// they mean depends on the Node, which may come last. So that nobody has to keep them twice.
#[derive(Clone)]
pub struct Gathered(Services);

impl Default for Gathered {
    fn default() -> Self {
        Self(Services::empty(ServicesConfig::default()))
    }
}

impl Gathered {
    /// Takes a Service, or what it is now.
    pub fn set_service(&mut self, service: Service) {
        let name = service.name.clone();
        self.0.entry(&name).service = Some(compact(service));
    }

    /// Forgets a Service.
    pub fn remove_service(&mut self, name: &ObjectName) {
        if let Some(entry) = self.0.entries.get_mut(name) {
            entry.service = None;
            self.0.forget_if_empty(name);
        }
    }

    /// Takes a slice, or what it is now.
    pub fn set_slice(&mut self, slice: EndpointSlice) {
        if self.0.slices.get(&slice.name).is_some_and(|owner| **owner != slice.service) {
            self.remove_slice(&slice.name);
        }
        self.0.keep_slice(slice);
    }

    /// Forgets a slice.
    pub fn remove_slice(&mut self, name: &ObjectName) {
        if let Some(owner) = self.0.forget_slice(name) {
            self.0.forget_if_empty(&owner);
        }
    }

    /// How many Services there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they mean on this node.
    ///
    /// # Errors
    /// When the configuration cannot be made into rules.
    pub fn into_services(self, config: ServicesConfig) -> Result<Services, ServicesError> {
        config.validate()?;
        let mut services = self.0;
        services.config = config;
        services.recompile();
        Ok(services)
    }
}

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathered").field("services", &self.len()).finish_non_exhaustive()
    }
}
