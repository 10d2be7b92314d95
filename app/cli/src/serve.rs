//! `portolan serve`: the dynamic-port server, with the flag names of the tutorial's original.

use std::{net::IpAddr, time::Duration};

use clap::{ArgAction, Args};
use portolan_model::Name;

use crate::{Label, values::duration};

/// Flags of `portolan serve`. The first four are the original's: `-advertised-ip 192.0.2.1` works as well.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// The instance's name [default: PORTOLAN_INSTANCE, POD_NAME, or the host name and the port].
    #[arg(long, visible_alias = "service-instance-name", value_name = "NAME")]
    pub name: Option<String>,

    /// The address to tell the registry [default: what `run` says, else this machine's primary address].
    #[arg(long, value_name = "IP", value_parser = advertised_ip)]
    pub advertised_ip: Option<IpAddr>,

    /// HOST:PORT of the registry: Portolan's, or the tutorial's register API [default: --server].
    #[arg(long, value_name = "HOST:PORT", env = "PORTOLAN_SERVICE_REGISTRY", value_parser = host_port)]
    pub service_registry: Option<String>,

    /// Advertise the external address that the cloud's metadata service knows.
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
        value_parser = go_bool,
        value_name = "BOOL"
    )]
    pub register_instance_external_ip: bool,

    /// Echo UDP as well, on the same number if it is free.
    #[arg(long)]
    pub udp_echo: bool,

    /// The service that it is a copy of [default: dynamic-port-server].
    #[arg(long, value_name = "NAME", default_value = "dynamic-port-server")]
    pub service: Name,

    /// A label of the instance. Repeatable.
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,

    /// Answer /healthz with 503 after this time, to see what happens then.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub unhealthy_after: Option<Duration>,
}

/// The texts that Go's `strconv.ParseBool` takes.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

fn advertised_ip(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| format!("{text:?} is no IP address"))?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err("clients cannot connect to this address: give one of this machine".to_owned());
    }
    Ok(ip)
}

/// `HOST:PORT`, `:PORT` for this machine (as Go's dialer takes it), or an http:// URL.
fn host_port(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no HOST:PORT: write 127.0.0.1:10081");
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = bare.rsplit_once(':').ok_or_else(wrong)?;
    match port.parse::<u16>() {
        Ok(port) if port > 0 && !host.contains('/') => {
            let host = if host.is_empty() { "127.0.0.1" } else { host };
            Ok(format!("{host}:{port}"))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_host_and_port() {
        assert_eq!(host_port("10.0.0.1:10081"), Ok("10.0.0.1:10081".to_owned()));
        assert_eq!(host_port("http://registry:10081/"), Ok("registry:10081".to_owned()));
        assert_eq!(host_port(":10081"), Ok("127.0.0.1:10081".to_owned()));
        for wrong in ["registry", "a:0", "a:99999", "http://a/b:1", ""] {
            assert!(host_port(wrong).is_err(), "{wrong}");
        }
    }
}
