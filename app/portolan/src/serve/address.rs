//! The address that clients are told. Nobody can know it for sure, so whoever says it most plainly is believed.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::Context;
use portolan_cli::ServeArgs;
use portolan_model::PublishedPort;

use crate::output::problem::Hint;

/// The cloud's external address if it was asked for, else the flag, else what `portolan run` says, else the machine's
/// own, else loopback. Never empty.
pub(crate) async fn choose(args: &ServeArgs, published: &[PublishedPort]) -> anyhow::Result<Vec<IpAddr>> {
    let cloud = async {
        portolan_cloud::external_ip(portolan_cloud::Provider::Auto)
            .await
            .context("cannot learn the external address")
            .hint("leave -register-instance-external-ip out, or say the address by -advertised-ip")
    };
    let external = if args.register_instance_external_ip { Some(cloud) } else { None };
    let told = || published.iter().find_map(from_run);
    first_of(external, args.advertised_ip, told, machine).await
}

async fn first_of(
    external: Option<impl Future<Output = anyhow::Result<IpAddr>>>,
    flag: Option<IpAddr>,
    told: impl FnOnce() -> Option<IpAddr>,
    machine: impl FnOnce() -> Vec<IpAddr> + Send + 'static,
) -> anyhow::Result<Vec<IpAddr>> {
    if let Some(external) = external {
        return Ok(vec![external.await?]);
    }
    if let Some(address) = flag.or_else(told) {
        return Ok(vec![address]);
    }
    let machine = tokio::task::spawn_blocking(machine).await?;
    Ok(if machine.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { machine })
}

/// `PORTOLAN_ADDR_<NAME>` is `ADDRESS:PORT`, and for a block `ADDRESS:FIRST-LAST`.
fn from_run(port: &PublishedPort) -> Option<IpAddr> {
    let text = std::env::var(format!("PORTOLAN_ADDR_{}", port.name.as_variable())).ok()?;
    of_endpoint(&text)
}

fn of_endpoint(text: &str) -> Option<IpAddr> {
    let one_port = text.rsplit_once('-').map_or(text, |(first, _)| first);
    one_port.parse::<SocketAddr>().ok().map(|address| address.ip())
}

/// The addresses from which this machine reaches others.
fn machine() -> Vec<IpAddr> {
    // Portolan's own links to instances are no way in.
    match portolan_netlink::route::primary_addresses_except(&[portolan_sandbox::SandboxConfig::LINK_PREFIX]) {
        Ok(primary) => primary.iter().collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot read this machine's addresses: -advertised-ip says which to use");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Nothing = std::future::Ready<anyhow::Result<IpAddr>>;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn the_plainest_word_wins() {
        let external = std::future::ready(Ok(ip("203.0.113.1")));
        let machine = || vec![ip("192.0.2.1"), ip("2001:db8::1")];
        let told = || Some(ip("198.51.100.1"));
        let flag = Some(ip("198.51.100.9"));
        assert_eq!(first_of(Some(external), flag, told, machine).await.unwrap(), [ip("203.0.113.1")]);
        assert_eq!(first_of(None::<Nothing>, flag, told, machine).await.unwrap(), [ip("198.51.100.9")]);
        assert_eq!(first_of(None::<Nothing>, None, told, machine).await.unwrap(), [ip("198.51.100.1")]);
        assert_eq!(first_of(None::<Nothing>, None, || None, machine).await.unwrap().len(), 2);
        assert_eq!(first_of(None::<Nothing>, None, || None, Vec::new).await.unwrap(), [ip("127.0.0.1")]);
    }

    #[tokio::test]
    async fn an_external_address_that_cannot_be_had_is_an_error_not_a_guess() {
        let external = std::future::ready(Err(anyhow::anyhow!("no metadata service")));
        assert!(first_of(Some(external), Some(ip("192.0.2.1")), || None, Vec::new).await.is_err());
    }

    #[test]
    fn blocks_and_brackets_have_an_address_too() {
        assert_eq!(of_endpoint("192.0.2.1:20000"), Some(ip("192.0.2.1")));
        assert_eq!(of_endpoint("192.0.2.1:20000-20099"), Some(ip("192.0.2.1")));
        assert_eq!(of_endpoint("[2001:db8::1]:20000-20099"), Some(ip("2001:db8::1")));
        assert_eq!(of_endpoint("nonsense"), None);
    }
}
