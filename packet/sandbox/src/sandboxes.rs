//! What a sandbox is, all sandboxes of a machine, and by which names the kernel knows them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use portolan_model::Name;
use portolan_netlink::{
    namespace::Names,
    route::{Link, RouteError, Rtnl},
};

use crate::{
    SandboxConfig, SandboxError,
    address::{self, AddressError, Addresses},
    config::LINK_PREFIX,
    create::add_address,
    error::Step,
    hash,
};

/// How many names a link can have, when others have the first.
const LINK_NAMES: u64 = 8;

/// The network of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The instance.
    pub name: Name,
    /// The file of its namespace.
    pub namespace: PathBuf,
    /// The host's end of its link.
    pub link: String,
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl Sandbox {
    /// Its addresses with full prefix length, IPv4 first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpNet> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6)).map(IpNet::from)
    }
}

/// All sandboxes of this machine. The state is the kernel's own: nothing is remembered here.
#[derive(Debug)]
pub struct Sandboxes {
    pub(crate) config: SandboxConfig,
    pub(crate) names: Names,
}

impl Sandboxes {
    /// Checks that the subnets are nobody else's and gives this machine the gateways' addresses, on its loopback, where
    /// they can be bound to before there is a sandbox. On a kernel without IPv6 there is none in sandboxes either.
    pub fn open(mut config: SandboxConfig) -> Result<Self, SandboxError> {
        if config.v6.is_some() && !Path::new("/proc/sys/net/ipv6").exists() {
            tracing::warn!("this kernel has no IPv6: instances' networks have none either");
            config.v6 = None;
        }
        config.check()?;
        let read = |error: RouteError| SandboxError::Read(error.into());
        let rtnl = Rtnl::open().map_err(read)?;
        let links = rtnl.links().map_err(read)?;
        for address in rtnl.addresses().map_err(read)? {
            let Some(link) = links.iter().find(|link| link.index == address.index) else { continue };
            let ours =
                link.name.starts_with(LINK_PREFIX) || config.gateways().any(|g| g == address.net.addr());
            if let Some(subnet) =
                config.subnets().find(|subnet| !ours && subnet.contains(&address.net.addr()))
            {
                let interface = link.name.clone();
                return Err(SandboxError::SubnetInUse { subnet, interface, address: address.net });
            }
        }
        let loopback = links.iter().find(|link| link.loopback).map(|link| link.index);
        let loopback = loopback.ok_or(SandboxError::Read(Step::Gone("lo".to_owned())))?;
        for gateway in config.gateways() {
            add_address(&rtnl, loopback, gateway.into()).map_err(|error| SandboxError::Read(error.into()))?;
        }
        let names = Names::new(&config.namespaces);
        Ok(Self { config, names })
    }

    /// What they have in common; without IPv6 where the kernel has none.
    pub fn config(&self) -> &SandboxConfig {
        &self.config
    }

    /// Free addresses for an instance; see [`address::choose`].
    pub fn choose_addresses(&self, name: &Name, used: &BTreeSet<IpAddr>) -> Result<Addresses, AddressError> {
        address::choose(&self.config, name, used)
    }

    /// The file of the instance's namespace, whether it is there or not.
    pub fn path(&self, name: &Name) -> PathBuf {
        self.names.folder().join(self.namespace(name))
    }

    /// The name of the instance's namespace, which is also the alias of its link.
    pub(crate) fn namespace(&self, name: &Name) -> String {
        format!("{}{name}", self.config.prefix)
    }

    /// Looks for the instance's link on the host. Its name follows from the instance's; the alias says whose it is.
    pub(crate) fn find_link(&self, rtnl: &Rtnl, name: &Name) -> Result<Found, RouteError> {
        let alias = self.namespace(name);
        let (mut free, mut taken) = (None, Vec::new());
        for attempt in 0..LINK_NAMES {
            let candidate = link_name(&alias, attempt);
            match rtnl.link(&candidate)? {
                Some(link) if link.alias.as_deref() == Some(alias.as_str()) => return Ok(Found::Ours(link)),
                // A crash came between making it and naming its owner.
                Some(link) if link.alias.is_none() && !link.up => return Ok(Found::Ours(link)),
                Some(_) => taken.push(candidate),
                // Somebody who had the first name may have gone after ours took the second.
                None => free = free.or(Some(candidate)),
            }
        }
        Ok(free.map_or(Found::Taken(taken), Found::Free))
    }
}

/// What [`Sandboxes::find_link`] finds.
pub(crate) enum Found {
    /// The instance's link.
    Ours(Link),
    /// There is none; it can have this name.
    Free(String),
    /// There is none, and others have all of these names.
    Taken(Vec<String>),
}

/// `pt-` and eight hexadecimal digits: an interface's name has 15 bytes at most, an instance's 63.
fn link_name(alias: &str, attempt: u64) -> String {
    let hash = hash::stable(&[alias.as_bytes()]).wrapping_add(attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    format!("{LINK_PREFIX}{:08x}", hash >> 32)
}
