//! Gives an attachment its ports, and takes them back.

use portolan_model::{Incarnation, InstanceId, Mapping, MappingKey};
use portolan_netlink::step;
use portolan_ports::{Lease, LeaseRequest, Ports};

use super::{Attach, AttachError, Wish};

impl Attach {
    /// Ports for an attachment; when this returns, packets reach it. The same again has the same answer.
    ///
    /// A new life of the same instance takes the ports over: the same numbers lead to the new one from one packet to
    /// the next. On an error nothing of the wish is left, nor of a former life of the instance.
    pub fn attach(&mut self, wish: Wish) -> Result<Lease, AttachError> {
        let request = wish.into_request();
        match self.try_attach(&request) {
            // Nobody has said that their namespaces are gone, and perhaps nobody will.
            Err(error) if error.is_in_the_way() && !self.reap().is_empty() => self.try_attach(&request),
            result => result,
        }
    }

    fn try_attach(&mut self, request: &LeaseRequest) -> Result<Lease, AttachError> {
        self.ports.admits(request)?;
        let instance = &request.instance;
        let former = self.ports.get(instance).cloned();
        let takes_over = former.as_ref().is_some_and(|former| {
            former.request.requests == request.requests && former.request.network == request.network
        });
        if let Some(former) = former.as_ref().filter(|_| !takes_over) {
            // Its numbers are about to be free for others, so the rules go first.
            self.take_back(former)?;
        }
        if !request.local.iter().all(|network| self.local.contains(network)) {
            let mut local = self.local.clone();
            local.extend(&request.local);
            self.reconfigure(self.given.clone(), local)?;
        }
        let lease = self.ports.lease(request.clone())?;
        let mapped = former.as_ref().filter(|_| takes_over).map(Lease::mappings).unwrap_or_default();
        let wanted = lease.mappings();
        let remove: Vec<MappingKey> = mapped.iter().map(Mapping::key).collect();
        let (ports, fixed) = (&self.ports, &self.fixed);
        let before = || others(ports, fixed, instance).chain(mapped.iter().cloned()).collect();
        let concerned = || concerned(ports, fixed, instance, &mapped, &wanted);
        if let Err(error) = self.rules.change(concerned, before, &remove, &wanted) {
            // What the kernel has is the former life's, if anything.
            if let Err(second) = self.unmap(instance, &mapped) {
                tracing::warn!(%instance, error = %second, "its former rules stay until they can be removed");
                self.unsettled = true;
                return Err(error.into());
            }
            self.ports.release(instance, &request.incarnation);
            return Err(error.into());
        }
        Ok(lease)
    }

    /// Takes the ports of this life of the instance back. A life that has none, or no longer, is done already.
    pub fn detach(&mut self, instance: &InstanceId, incarnation: &Incarnation) -> Result<(), AttachError> {
        let lease = self.ports.get(instance).filter(|lease| lease.request.incarnation == *incarnation);
        lease.cloned().map_or(Ok(()), |lease| self.take_back(&lease))
    }

    /// [`Attach::detach`] by what the runtime calls it, when it does not say whose it is.
    pub fn detach_container(&mut self, container: &str, interface: &str) -> Result<(), AttachError> {
        let is =
            |lease: &&Lease| lease.request.attachment.as_ref().is_some_and(|own| own.interface == interface);
        let found: Vec<Lease> = self.ports.of_container(container).into_iter().filter(is).cloned().collect();
        found.iter().try_for_each(|lease| self.take_back(lease))
    }

    /// Rules first, then the numbers: no packet is sent to where nobody is. After a failure the lease stays, so that
    /// it can be tried again.
    pub(super) fn take_back(&mut self, lease: &Lease) -> Result<(), AttachError> {
        let instance = &lease.request.instance;
        self.unmap(instance, &lease.mappings())?;
        step::reached("ports.unmapped");
        self.ports.release(instance, &lease.request.incarnation);
        Ok(())
    }

    fn unmap(&mut self, instance: &InstanceId, mapped: &[Mapping]) -> Result<(), AttachError> {
        let remove: Vec<MappingKey> = mapped.iter().map(Mapping::key).collect();
        let (ports, fixed) = (&self.ports, &self.fixed);
        let before = || others(ports, fixed, instance).chain(mapped.iter().cloned()).collect();
        let concerned = || concerned(ports, fixed, instance, mapped, &[]);
        Ok(self.rules.change(concerned, before, &remove, &[])?)
    }
}

/// The mappings of all but this instance.
fn others<'a>(
    ports: &'a Ports,
    fixed: &'a [Mapping],
    instance: &'a InstanceId,
) -> impl Iterator<Item = Mapping> + use<'a> {
    fixed.iter().cloned().chain(ports.mappings_except(Some(instance)))
}

/// What a change from `mapped` to `wanted` of this instance has to do with.
fn concerned(
    ports: &Ports,
    fixed: &[Mapping],
    instance: &InstanceId,
    mapped: &[Mapping],
    wanted: &[Mapping],
) -> Vec<Mapping> {
    let mut all = ports.mappings_concerned(instance, &[mapped, wanted].concat());
    all.extend_from_slice(fixed);
    all.extend_from_slice(mapped);
    all
}
