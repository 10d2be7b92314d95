//! The result of the plugins before us: it is passed on as it came, and the addresses of the sandbox are read.

use ipnet::IpNet;
use serde::Deserialize;

use crate::{CniError, code};

/// The parts that concern us, of every version of the specification.
#[derive(Deserialize)]
struct Previous {
    interfaces: Option<Vec<Interface>>,
    /// From 0.3.0 on.
    ips: Option<Vec<Address>>,
    /// 0.1.0 and 0.2.0.
    ip4: Option<OldAddress>,
    ip6: Option<OldAddress>,
}

#[derive(Deserialize)]
struct Interface {
    name: Option<String>,
    sandbox: Option<String>,
}

#[derive(Deserialize)]
struct Address {
    address: String,
    interface: Option<i64>,
}

#[derive(Deserialize)]
struct OldAddress {
    ip: String,
}

/// The addresses of `interface` in the sandbox, in the order of the result.
///
/// An address whose interface is not told, or is told by an index that does not exist, counts as the sandbox's: some
/// plugins leave it out. One of the host's interfaces does not.
///
/// # Errors
/// Code 6 when the result has another shape.
pub(crate) fn addresses(json: &str, interface: &str) -> Result<Vec<IpNet>, CniError> {
    let wrong = |details: String| CniError::new(code::DECODE, "cannot read prevResult").with_details(details);
    let result: Previous = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
    let parse =
        |text: &str| text.parse().map_err(|_| wrong(format!("{text:?} is no address with a prefix length")));
    let interfaces = result.interfaces.unwrap_or_default();
    let in_sandbox = |index: Option<i64>| {
        let known = index.and_then(|index| interfaces.get(usize::try_from(index).ok()?));
        known.is_none_or(|known| {
            known.name.as_deref() == Some(interface)
                && known.sandbox.as_deref().is_some_and(|s| !s.is_empty())
        })
    };
    let new = result.ips.unwrap_or_default();
    let new =
        new.iter().filter(|address| in_sandbox(address.interface)).map(|address| parse(&address.address));
    let old = [result.ip4, result.ip6];
    let old = old.iter().flatten().map(|address| parse(&address.ip));
    new.chain(old).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(json: &str, interface: &str) -> Vec<String> {
        addresses(json, interface).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_addresses_of_the_sandbox_count() {
        // From "correctly parses an ADD config" of plugins/meta/portmap/portmap_test.go.
        let json = r#"{
            "interfaces": [{"name": "host"}, {"name": "container", "sandbox": "netns"}],
            "ips": [
                {"version": "4", "address": "10.0.0.1/24", "gateway": "10.0.0.1", "interface": 0},
                {"version": "6", "address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1", "interface": 1},
                {"version": "4", "address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 1}
            ]
        }"#;
        assert_eq!(texts(json, "container"), ["2001:db8:1::2/64", "10.0.0.2/24"]);
        assert_eq!(texts(json, "another"), [""; 0]);
    }

    #[test]
    fn a_missing_interface_index_is_no_failure() {
        let json =
            r#"{"interfaces": [{"name": "host"}], "ips": [{"version": "4", "address": "10.0.0.1/24"}]}"#;
        assert_eq!(texts(json, "container"), ["10.0.0.1/24"]);
        let json = r#"{"ips": [{"address": "10.0.0.1/24", "interface": 7}, {"address": "10.0.0.2/24", "interface": -1}]}"#;
        assert_eq!(texts(json, "container"), ["10.0.0.1/24", "10.0.0.2/24"]);
    }

    #[test]
    fn results_of_the_first_versions_are_read() {
        let json = r#"{"cniVersion": "0.2.0", "ip4": {"ip": "10.1.2.3/24"}, "ip6": {"ip": "2001:db8::3/64"}, "dns": {}}"#;
        assert_eq!(texts(json, "eth0"), ["10.1.2.3/24", "2001:db8::3/64"]);
    }

    #[test]
    fn a_result_without_addresses_has_none() {
        for json in ["{}", r#"{"interfaces": null, "ips": null, "ip4": null}"#] {
            assert_eq!(texts(json, "eth0"), [""; 0]);
        }
    }

    #[test]
    fn a_result_of_another_shape_is_refused() {
        for json in ["[]", "7", r#"{"ips": [{"address": "10.0.0.1"}]}"#, r#"{"ips": [{}]}"#] {
            assert_eq!(addresses(json, "eth0").unwrap_err().code, code::DECODE, "{json}");
        }
    }
}
