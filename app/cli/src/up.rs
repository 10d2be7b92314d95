//! `portolan up`: its flags, each of which is a key of the same name in the configuration file.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{ArgAction, Args, builder::BoolishValueParser};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_model::PortRange;

use crate::{
    Pool,
    values::{duration, duration_or_zero},
};

/// Flags of `portolan up`.
#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    /// A TOML file: each flag below is a key of the same name. Flags and environment win over the file.
    #[arg(long, value_name = "FILE", env = "PORTOLAN_CONFIG")]
    pub config: Option<PathBuf>,

    /// Where the page, the API and /metrics listen.
    #[arg(long, value_name = "ADDRESS", env = "PORTOLAN_LISTEN", default_value = "127.0.0.1:10080")]
    pub listen: SocketAddr,

    /// Where the same listens for browsers, which refuse to open port 10080 (it is on the list of bad ports of the
    /// Fetch standard).
    #[arg(long, value_name = "ADDRESS", env = "PORTOLAN_PAGE_LISTEN", default_value = "127.0.0.1:10082")]
    pub page_listen: SocketAddr,

    /// Where the register API of the dynamic-ports tutorial listens.
    #[arg(long, value_name = "ADDRESS", env = "PORTOLAN_REGISTER_LISTEN", default_value = "127.0.0.1:10081")]
    pub register_listen: SocketAddr,

    /// Where DNS listens, UDP and TCP.
    #[arg(long, value_name = "ADDRESS", env = "PORTOLAN_DNS_LISTEN", default_value = "127.0.0.1:10053")]
    pub dns_listen: SocketAddr,

    /// The DNS zone that names are under.
    #[arg(long, value_name = "ZONE", env = "PORTOLAN_ZONE", default_value = "portolan.internal", value_parser = zone)]
    pub zone: String,

    /// A pool of host ports: NAME=FIRST-LAST, or a range alone for the default pool. Repeatable.
    #[arg(
        long = "pool",
        value_name = "[NAME=]RANGE",
        env = "PORTOLAN_POOL",
        value_delimiter = ',',
        default_value = "20000-29999"
    )]
    pub pools: Vec<Pool>,

    /// What this machine is called in the catalog [default: its host name].
    #[arg(long, value_name = "NAME", env = "PORTOLAN_NODE_NAME")]
    pub node_name: Option<String>,

    /// An address by which clients reach this machine; one of each family [default: the primary addresses].
    #[arg(long, value_name = "IP", env = "PORTOLAN_ADVERTISE", value_delimiter = ',')]
    pub advertise: Vec<IpAddr>,

    /// Where instances with a network of their own get addresses from; one of each family
    /// [default: 10.213.0.0/16 and fd70:6f72:746f::/64].
    #[arg(long, value_name = "CIDR", env = "PORTOLAN_INSTANCE_SUBNET", value_delimiter = ',')]
    pub instance_subnet: Vec<InstanceSubnet>,

    /// Do not touch nftables, routes and namespaces: `run` then only has `--network host`.
    #[arg(
        long,
        env = "PORTOLAN_NO_DATAPLANE",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL"
    )]
    pub no_dataplane: bool,

    /// Serve published ports on the loopback addresses too, by a relay in this process.
    #[arg(
        long,
        env = "PORTOLAN_LOCALHOST",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL"
    )]
    pub localhost: bool,

    /// A file of Kubernetes Services and EndpointSlices, or a folder of such; edits apply while this runs. Repeatable.
    #[arg(
        short = 'f',
        long = "services",
        visible_alias = "filename",
        value_name = "FILE",
        env = "PORTOLAN_SERVICES",
        value_delimiter = ','
    )]
    pub services: Vec<PathBuf>,

    /// Where Services get cluster addresses from; one of each family
    /// [default: a part of 10.214.0.0-10.229.255.255 that is free here, and fd70:6f72:746f:1::/112].
    #[arg(
        long,
        value_name = "CIDR",
        env = "PORTOLAN_SERVICE_CIDR",
        value_delimiter = ',',
        value_parser = service_network
    )]
    pub service_cidr: Vec<IpNet>,

    /// Where Services get node ports from.
    #[arg(long, value_name = "FIRST-LAST", env = "PORTOLAN_NODE_PORT_RANGE", default_value = "30000-32767")]
    pub node_port_range: PortRange,

    /// How long a registration lives without a renewal.
    #[arg(long, value_name = "DURATION", env = "PORTOLAN_TTL", default_value = "30s", value_parser = duration)]
    pub ttl: Duration,

    /// How long an expired registration is kept to look at.
    #[arg(
        long,
        value_name = "DURATION",
        env = "PORTOLAN_REMOVE_AFTER",
        default_value = "5m",
        value_parser = duration
    )]
    pub remove_after: Duration,

    /// How long a freed port is given to no other owner.
    #[arg(
        long,
        value_name = "DURATION",
        env = "PORTOLAN_QUARANTINE",
        default_value = "60s",
        value_parser = duration_or_zero
    )]
    pub quarantine: Duration,
}

/// A subnet for instances, with room for a gateway and at least one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceSubnet {
    /// For IPv4.
    V4(Ipv4Net),
    /// For IPv6.
    V6(Ipv6Net),
}

impl FromStr for InstanceSubnet {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let net: IpNet = text
            .parse()
            .map_err(|_| format!("{text:?} is no subnet: write 10.213.0.0/16 or fd70:6f72:746f::/64"))?;
        if net.addr() != net.network() {
            return Err(format!("{text} has host bits set: did you mean {}?", net.trunc()));
        }
        if net.max_prefix_len() - net.prefix_len() < 2 {
            return Err(format!("{text} has no room for a gateway and instances: use a shorter prefix"));
        }
        Ok(match net {
            IpNet::V4(net) => Self::V4(net),
            IpNet::V6(net) => Self::V6(net),
        })
    }
}

/// A network for cluster addresses, with room for some.
pub(crate) fn service_network(text: &str) -> Result<IpNet, String> {
    let net: IpNet =
        text.parse().map_err(|_| format!("{text:?} is no network: write 10.96.0.0/16 or fd00::/112"))?;
    if net.addr() != net.network() {
        return Err(format!("{text} has host bits set: did you mean {}?", net.trunc()));
    }
    if net.max_prefix_len() - net.prefix_len() < 2 {
        return Err(format!("{text} has no room for Services: use a shorter prefix"));
    }
    Ok(net)
}

/// A DNS name of labels (RFC 1123 section 2.1), without the dot at its end.
pub(crate) fn zone(text: &str) -> Result<String, String> {
    let zone = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if zone.len() > 190 {
        return Err(
            "a zone is too long: instance and port names must fit before it in 253 characters".to_owned()
        );
    }
    for label in zone.split('.') {
        portolan_model::Name::new(label).map_err(|e| e.to_string())?;
    }
    Ok(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_with_host_bits_says_what_was_meant() {
        let error = "10.213.0.1/16".parse::<InstanceSubnet>().unwrap_err();
        assert!(error.contains("10.213.0.0/16"), "{error}");
        assert!("10.0.0.0/31".parse::<InstanceSubnet>().is_err());
        assert!("fd70:6f72:746f::/64".parse::<InstanceSubnet>().is_ok());
    }

    #[test]
    fn a_zone_is_labels() {
        assert_eq!(zone("Portolan.Internal."), Ok("portolan.internal".to_owned()));
        assert!(zone("a..b").is_err());
        assert!(zone("under_score").is_err());
    }
}
