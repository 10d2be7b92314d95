//! Who is let in: so many connections and UDP clients in all, so many of one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The doors of one process.
#[derive(Debug)]
pub(crate) struct Admission {
    connections: Arc<Semaphore>,
    clients: AtomicUsize,
    most_clients: usize,
    /// Connections and UDP clients by address; empty without a limit.
    each: Mutex<HashMap<IpAddr, usize>>,
    most_each: Option<usize>,
}

impl Admission {
    pub(crate) fn new(connections: usize, clients: usize, each: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS))),
            clients: AtomicUsize::new(0),
            most_clients: clients.max(1),
            each: Mutex::default(),
            most_each: each,
        })
    }

    /// A place for a connection, now or when one is free.
    pub(crate) async fn connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).acquire_owned().await.ok()
    }

    /// A place for a UDP client; `None` when there is none.
    pub(crate) fn client(self: &Arc<Self>) -> Option<ClientPlace> {
        let taken = self.clients.fetch_add(1, Ordering::Relaxed);
        let place = ClientPlace(Arc::clone(self));
        (taken < self.most_clients).then_some(place)
    }

    /// A place among those of this address; `None` when it has all that it may.
    pub(crate) fn of(self: &Arc<Self>, address: IpAddr) -> Option<AddressPlace> {
        let Some(most) = self.most_each else { return Some(AddressPlace(None)) };
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        let count = each.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(AddressPlace(Some((Arc::clone(self), address))))
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(crate) struct ClientPlace(Arc<Admission>);

impl Drop for ClientPlace {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(crate) struct AddressPlace(Option<(Arc<Admission>, IpAddr)>);

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let Some((admission, address)) = &self.0 else { return };
        let mut each = admission.each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = each.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                each.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn places_are_given_back() {
        let admission = Admission::new(1, 2, Some(1));
        let address = Ipv4Addr::LOCALHOST.into();
        let place = admission.of(address).unwrap();
        assert!(admission.of(address).is_none());
        drop(place);
        assert!(admission.of(address).is_some());
        assert!(admission.each.lock().unwrap().is_empty());
        let clients = [admission.client().unwrap(), admission.client().unwrap()];
        assert!(admission.client().is_none());
        drop(clients);
        assert_eq!(admission.clients.load(Ordering::Relaxed), 0);
    }
}
