//! Addresses, networks and ports as the API has them.
//!
//! The API server has let in what Go's parser of old times took: leading zeros, which meant nothing
//! (`010.0.0.1` is 10.0.0.1; kubernetes/kubernetes#100895), and white space around networks. Objects of that time live on.

use std::net::IpAddr;

use ipnet::IpNet;

/// An address. An IPv4 address in IPv6 clothes is an IPv4 address, as in Go.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let parsed: Option<IpAddr> = text.parse().ok().or_else(|| without_zeros(text)?.parse().ok());
    parsed.map(|address| address.to_canonical())
}

/// A network, without the bits of a host.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let (host, prefix) = text.trim().split_once('/')?;
    let host: IpAddr = host.parse().ok().or_else(|| without_zeros(host)?.parse().ok())?;
    let prefix: u8 = prefix.parse().ok()?;
    let (host, prefix) = match (host, host.to_canonical()) {
        (IpAddr::V6(_), short @ IpAddr::V4(_)) if prefix >= 96 => (short, prefix - 96),
        (host, _) => (host, prefix),
    };
    IpNet::new(host, prefix).ok().map(|network| network.trunc())
}

/// A port that can be used.
pub(super) fn port(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|&number| number > 0)
}

fn without_zeros(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('.').collect();
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() != 4 || !parts.iter().all(digits) {
        return None;
    }
    let trimmed = parts.iter().map(|part| match part.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    });
    Some(trimmed.collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_old_times_are_read() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.00.001", Some("10.0.0.1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("fd00::1", Some("fd00::1")),
            ("None", None),
            ("", None),
            ("10.0.0.256", None),
            ("1.2.3", None),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn networks_lose_white_space_and_host_bits() {
        for (text, expected) in [
            (" 10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.1.2.3/8\t", Some("10.0.0.0/8")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("010.0.0.0/08", Some("10.0.0.0/8")),
            ("::ffff:10.0.0.0/104", Some("10.0.0.0/8")),
            ("fd00::1/64", Some("fd00::/64")),
            ("10.0.0.0/33", None),
            ("10.0.0.1", None),
        ] {
            assert_eq!(network(text).map(|network| network.to_string()).as_deref(), expected, "{text}");
        }
    }
}
