//! What all sandboxes of a machine have in common.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::SandboxError;

/// Names of the host's ends of the links begin so.
pub(crate) const LINK_PREFIX: &str = "pt-";

/// What all sandboxes of a machine have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// From where IPv4 addresses are given; `None` for sandboxes without IPv4. At most a /30.
    pub v4: Option<Ipv4Net>,
    /// From where IPv6 addresses are given; `None` for sandboxes without IPv6. At most a /126.
    pub v6: Option<Ipv6Net>,
    /// How the names of the namespaces begin.
    pub prefix: String,
    /// Where namespaces are named. `ip netns` looks into `/run/netns` only.
    pub namespaces: PathBuf,
    /// The largest packet on the links, in bytes; `None` for 1500.
    pub mtu: Option<u32>,
}

impl Default for SandboxConfig {
    /// 10.213.0.0/16 and fd70:6f72:746f::/64 (a unique local prefix, RFC 4193), `portolan-` in `/run/netns`.
    fn default() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 213, 0, 0), 16);
        let v6 = Ipv6Net::new_assert(Ipv6Addr::new(0xfd70, 0x6f72, 0x746f, 0, 0, 0, 0, 0), 64);
        Self {
            v4: Some(v4),
            v6: Some(v6),
            prefix: "portolan-".to_owned(),
            namespaces: "/run/netns".into(),
            mtu: None,
        }
    }
}

impl SandboxConfig {
    /// The name of an interface of ours on the host begins so; no other interface may.
    pub const LINK_PREFIX: &'static str = LINK_PREFIX;

    /// The host's IPv4 address on every link, the first of the subnet.
    pub fn gateway_v4(&self) -> Option<Ipv4Addr> {
        self.v4.map(|net| Ipv4Addr::from_bits(net.network().to_bits() | 1))
    }

    /// The host's IPv6 address on every link, the first of the subnet after the one for all routers.
    pub fn gateway_v6(&self) -> Option<Ipv6Addr> {
        self.v6.map(|net| Ipv6Addr::from_bits(net.network().to_bits() | 1))
    }

    /// Both, IPv4 first.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.gateway_v4().map(IpAddr::V4);
        v4.into_iter().chain(self.gateway_v6().map(IpAddr::V6))
    }

    /// Both subnets, IPv4 first.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.v4.map(IpNet::V4).into_iter().chain(self.v6.map(IpNet::V6))
    }

    /// Whether it can be worked with at all, before the kernel is asked.
    pub(crate) fn check(&self) -> Result<(), SandboxError> {
        let small = |net: &IpNet| net.max_prefix_len() - net.prefix_len() < 2;
        if let Some(net) = self.subnets().find(small) {
            return Err(SandboxError::SubnetTooSmall(net));
        }
        if self.v4.is_none() && self.v6.is_none() {
            return Err(SandboxError::NoSubnet);
        }
        Ok(())
    }
}
