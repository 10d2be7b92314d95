//! What the owner is told.

use portolan_model::{EndpointSlice, ObjectName, Service};
use portolan_services::{Changes, Services};

/// An object came, changed, or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceEvent {
    /// This Service is there, and is this.
    SetService(Service),
    /// This Service is gone.
    RemoveService(ObjectName),
    /// This slice is there, and is this.
    SetSlice(EndpointSlice),
    /// This slice is gone.
    RemoveSlice(ObjectName),
}

impl ServiceEvent {
    /// The Service it is about, where the event says so.
    pub const fn service(&self) -> Option<&ObjectName> {
        match self {
            Self::SetService(service) => Some(&service.name),
            Self::RemoveService(name) => Some(name),
            Self::SetSlice(slice) => Some(&slice.service),
            Self::RemoveSlice(_) => None,
        }
    }

    pub(crate) fn tell(self, services: &mut Services) -> Changes {
        match self {
            Self::SetService(service) => services.set_service(service),
            Self::RemoveService(name) => services.remove_service(&name),
            Self::SetSlice(slice) => services.set_slice_later(slice),
            Self::RemoveSlice(name) => services.remove_slice(&name),
        }
    }
}
