//! What is leased, to whom, and how full the pools are.

use std::collections::BTreeSet;

use ipnet::IpNet;
use portolan_model::{InstanceId, Mapping};

use super::Ports;
use crate::{clock::since_boot, lease::Lease, usage::Usage};

impl Ports {
    /// All leases, by name.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The mappings of all leases but this instance's, in no order.
    pub fn mappings_except(&self, instance: Option<&InstanceId>) -> Vec<Mapping> {
        self.leases.mappings_except(instance)
    }

    /// The networks that instances' addresses are in when others have made them, or were since the start.
    pub const fn networks(&self) -> &BTreeSet<IpNet> {
        self.leases.networks()
    }

    /// Those of [`Ports::mappings_except`] that lead to an instance which one of `these` leads to, or share a port with
    /// one of them.
    pub fn mappings_concerned(&self, instance: &InstanceId, these: &[Mapping]) -> Vec<Mapping> {
        self.leases.mappings_concerned(instance, these)
    }

    /// The leases of a container of a runtime.
    pub fn of_container(&self, container: &str) -> Vec<&Lease> {
        self.leases.of_container(container)
    }

    /// The lease of an instance.
    pub fn get(&self, instance: &InstanceId) -> Option<&Lease> {
        self.leases.get(instance)
    }

    /// The instances whose ports should be held and are not, because something else has one of them.
    pub fn unheld(&self) -> impl Iterator<Item = &InstanceId> {
        self.unheld.iter()
    }

    /// How full each pool is.
    pub fn usage(&mut self) -> Vec<Usage> {
        self.allocator.usage(since_boot())
    }

    /// Where the holder is reached: for a process that takes its sockets itself.
    pub fn holder_socket(&self) -> &std::path::Path {
        self.holder.socket()
    }

    /// The holder processes.
    pub fn holder_pids(&self) -> Vec<u32> {
        self.holder.pids()
    }
}
