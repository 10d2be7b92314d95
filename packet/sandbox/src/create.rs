//! Making a sandbox: namespace, link, the host's side, the inside. Each step can be done again, so that the same code
//! makes a new one and mends one that has lost a part.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
};

use ipnet::IpNet;
use portolan_model::Name;
use portolan_netlink::{
    namespace::Namespace,
    route::{Link, NewAddress, Route, RouteError, Rtnl, Scope, Veth},
    sysctl,
};

use crate::{Sandbox, SandboxError, Sandboxes, error::Step, sandboxes::Found};

/// The name of the link inside.
const INSIDE: &str = "eth0";
/// The host's IPv6 address on every link: the router's, as on any link that has one.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

impl Sandboxes {
    /// Makes the network of an instance with these addresses. When it fails, nothing of it is left, or the error says
    /// what is.
    pub fn create(
        &self,
        name: &Name,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
    ) -> Result<Sandbox, SandboxError> {
        if self.names.open(&self.namespace(name)).is_ok() {
            return Err(SandboxError::Exists(name.clone()));
        }
        self.ensure(name, v4, v6).map_err(|error| match error {
            SandboxError::Create { name, step, mut left } => {
                if let Err(SandboxError::Destroy { failures, .. }) = self.destroy(&name) {
                    left.extend(failures);
                }
                SandboxError::Create { name, step, left }
            }
            other => other,
        })
    }

    /// Makes what is missing of an instance's network, and leaves the rest and the processes in it alone: for the
    /// start after a crash. When it fails, what was made stays.
    pub fn ensure(
        &self,
        name: &Name,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
    ) -> Result<Sandbox, SandboxError> {
        let (v4, v6) = (v4.filter(|_| self.config.v4.is_some()), v6.filter(|_| self.config.v6.is_some()));
        if v4.is_none() && v6.is_none() {
            return Err(SandboxError::NoAddress(name.clone()));
        }
        let failed = |step: Step| SandboxError::Create { name: name.clone(), step, left: Vec::new() };
        let rtnl = Rtnl::open().map_err(|error| failed(error.into()))?;
        let link = match self.find_link(&rtnl, name).map_err(|error| failed(error.into()))? {
            Found::Ours(link) => link.name,
            Found::Free(link) => link,
            Found::Taken(names) => return Err(SandboxError::LinkNames(name.clone(), names.join(", "))),
        };
        let sandbox = Sandbox { name: name.clone(), namespace: self.path(name), link, v4, v6 };
        self.build(&rtnl, &sandbox).map_err(failed)?;
        tracing::debug!(instance = %name, ?sandbox, "made the instance's network");
        Ok(sandbox)
    }

    fn build(&self, rtnl: &Rtnl, sandbox: &Sandbox) -> Result<(), Step> {
        let alias = self.namespace(&sandbox.name);
        let namespace = match self.names.open(&alias) {
            Ok(namespace) => namespace,
            Err(error) if error.is_absent() => {
                // The file that a crash left without a namespace on it is in the way.
                self.names.delete(&alias)?;
                self.names.create(&alias)?
            }
            Err(error) => return Err(error.into()),
        };
        let inside_rtnl = namespace.run(Rtnl::open)??;
        let owner = rtnl.link(&sandbox.link)?.and_then(|link| link.alias);
        // A link whose other end is not inside led to a namespace that lost its name; one without an alias was cut off.
        if owner.as_deref() != Some(alias.as_str()) || inside_rtnl.link(INSIDE)?.is_none() {
            rtnl.delete_link(&sandbox.link)?;
            prepare(&namespace, sandbox)?;
            rtnl.create_veth(&Veth {
                name: &sandbox.link,
                alias: Some(&alias),
                peer: INSIDE,
                namespace: Some(namespace.as_fd()),
                mtu: self.config.mtu,
            })?;
        }
        let outside = get(rtnl, &sandbox.link)?;
        let inside = get(&inside_rtnl, INSIDE)?;
        self.connect_host(rtnl, sandbox, &outside, &inside)?;
        self.connect_inside(&inside_rtnl, sandbox, &outside, &inside)
    }

    /// The host's end: settings, addresses, up, and a route to each address of the instance.
    fn connect_host(
        &self,
        rtnl: &Rtnl,
        sandbox: &Sandbox,
        outside: &Link,
        inside: &Link,
    ) -> Result<(), Step> {
        let link = &sandbox.link;
        if self.config.v4.is_some() {
            // Only what comes from the instance's own address comes in: strict, RFC 3704, 2.2.
            sysctl::write(&format!("net/ipv4/conf/{link}/rp_filter"), "1")?;
        }
        configure_v6(link, sandbox.v6.is_some())?;
        if sandbox.v6.is_some() {
            // One link-local address only, the router's; none that the kernel makes (IN6_ADDR_GEN_MODE_NONE).
            sysctl::write(&format!("net/ipv6/conf/{link}/addr_gen_mode"), "1")?;
            add_address(rtnl, outside.index, IpNet::new_assert(ROUTER.into(), 64))?;
        }
        rtnl.set_up(outside.index)?;
        for address in sandbox.addresses() {
            rtnl.set_neighbour(outside.index, address.addr(), &inside.mac)?;
            let gateway = self.config.gateways().find(|g| g.is_ipv4() == address.addr().is_ipv4());
            let route = Route::device(address, outside.index);
            rtnl.replace_route(&Route { source: gateway, ..route })?;
        }
        Ok(())
    }

    /// The inside: loopback and link up, addresses, and everything else by the host.
    fn connect_inside(
        &self,
        rtnl: &Rtnl,
        sandbox: &Sandbox,
        outside: &Link,
        inside: &Link,
    ) -> Result<(), Step> {
        rtnl.set_up(get(rtnl, "lo")?.index)?;
        for address in sandbox.addresses() {
            add_address(rtnl, inside.index, address)?;
        }
        rtnl.set_up(inside.index)?;
        if let (Some(own), Some(gateway)) = (sandbox.v4, self.config.gateway_v4()) {
            rtnl.set_neighbour(inside.index, gateway.into(), &outside.mac)?;
            let everything = IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0);
            let route = Route::onlink(everything, gateway.into(), inside.index).with_source(own.into());
            rtnl.replace_route(&route)?;
        }
        if let Some(own) = sandbox.v6 {
            rtnl.set_neighbour(inside.index, ROUTER.into(), &outside.mac)?;
            let everything = IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0);
            let route = Route { gateway: Some(ROUTER.into()), ..Route::device(everything, inside.index) };
            rtnl.replace_route(&route.with_source(own.into()))?;
        }
        Ok(())
    }
}

/// Settings of a fresh namespace which its link will inherit.
fn prepare(namespace: &Namespace, sandbox: &Sandbox) -> Result<(), Step> {
    let v6 = sandbox.v6.is_some();
    namespace.run(|| {
        // Both may be inherited from the host (net.core.devconf_inherit_init_net), and what is sensible there cuts off
        // who has one address of full length.
        for setting in ["arp_ignore", "rp_filter"] {
            sysctl::write(&format!("net/ipv4/conf/all/{setting}"), "0")?;
            sysctl::write(&format!("net/ipv4/conf/default/{setting}"), "0")?;
        }
        configure_v6("default", v6)
    })??;
    Ok(())
}

/// Switches IPv6 on an interface on or off. Where it is on, addresses work at once, and routers are not listened to: on
/// the host's end an instance could otherwise make itself the host's router.
fn configure_v6(interface: &str, on: bool) -> Result<(), Step> {
    let settings: &[_] = if on {
        &[("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0"), ("autoconf", "0")]
    } else {
        &[("disable_ipv6", "1")]
    };
    for (setting, value) in settings {
        match sysctl::write(&format!("net/ipv6/conf/{interface}/{setting}"), value) {
            Err(error) if !on && error.is_absent() => {}
            result => result?,
        }
    }
    Ok(())
}

fn get(rtnl: &Rtnl, link: &str) -> Result<Link, Step> {
    rtnl.link(link)?.ok_or_else(|| Step::Gone(link.to_owned()))
}

pub(crate) fn add_address(rtnl: &Rtnl, index: u32, net: IpNet) -> Result<(), RouteError> {
    match rtnl.add_address(&NewAddress { index, net, scope: Scope::Global }) {
        Err(error) if error.is_present() => Ok(()),
        result => result,
    }
}
