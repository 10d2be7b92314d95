//! A row of the table: an instance as people want to see it. The same for the HTML and for the script.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use portolan_model::{CheckKind, Instance, InstancePort, Protocol};
use serde::Serialize;

/// The most characters of a check's output in a row; the instance's page has all of it.
const OUTPUT: usize = 160;

/// Names of ports that browsers can open.
const WEB_NAMES: [&str; 8] = ["http", "web", "www", "ui", "console", "admin", "dashboard", "metrics"];

/// One instance.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) node: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<Port>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) state: &'static str,
    /// Milliseconds since 1970, as JavaScript counts.
    pub(crate) since: u64,
    /// The same.
    pub(crate) registered: u64,
    pub(crate) output: String,
}

/// One port of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// `tcp`, or `tcp+udp`.
    pub(crate) protocols: String,
    /// `20417`, or `21000-21099`.
    pub(crate) port: String,
    pub(crate) container: Option<u16>,
    /// `ADDRESS:PORT` for each address: what a person copies.
    pub(crate) at: Vec<String>,
    /// What a browser opens, when it speaks HTTP as far as one can tell.
    pub(crate) open: Option<String>,
}

impl Row {
    pub(crate) fn new(instance: &Instance) -> Self {
        let mut output: String = instance.output.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = output.char_indices().nth(OUTPUT) {
            output.truncate(end);
            output.push('…');
        }
        Self {
            name: instance.key.name.to_string(),
            service: instance.service.to_string(),
            node: instance.node.clone(),
            addresses: instance.addresses.clone(),
            ports: instance.ports.iter().map(|port| Port::new(instance, port)).collect(),
            labels: instance.labels.clone(),
            state: instance.state.as_str(),
            since: milliseconds(instance.since),
            registered: milliseconds(instance.registered),
            output,
        }
    }
}

impl Port {
    fn new(instance: &Instance, port: &InstancePort) -> Self {
        let first = port.port.first();
        let at = |ip: &IpAddr| match SocketAddr::new(*ip, first) {
            address if port.port.is_single() => address.to_string(),
            address => format!("{address}-{}", port.port.last()),
        };
        let scheme = scheme(instance, port);
        let open = scheme.zip(instance.addresses.first());
        Self {
            name: port.name.to_string(),
            protocols: port.protocols.to_string(),
            port: port.port.to_string(),
            container: port.container,
            at: instance.addresses.iter().map(at).collect(),
            open: open.map(|(scheme, &ip)| format!("{scheme}://{}/", SocketAddr::new(ip, first))),
        }
    }
}

/// Whether a browser can do something with the port: by its name, or because its health is checked by HTTP.
fn scheme(instance: &Instance, port: &InstancePort) -> Option<&'static str> {
    if !port.protocols.contains(Protocol::Tcp) || !port.port.is_single() {
        return None;
    }
    let name = port.name.as_str();
    if name.starts_with("https") {
        return Some("https");
    }
    let checked = instance.check.as_ref().is_some_and(|check| {
        let its = check.port.as_ref().map(|name| name.as_str());
        let first = || instance.ports.iter().find(|p| p.protocols.contains(Protocol::Tcp));
        matches!(check.kind, CheckKind::Http { .. })
            && its.or_else(|| first().map(|p| p.name.as_str())) == Some(name)
    });
    let named = WEB_NAMES.iter().any(|web| name == *web || name.starts_with(&format!("{web}-")));
    (checked || named || name.ends_with("-http")).then_some("http")
}

/// The order in which people count: `web-2` before `web-10`. The script's `byName` has the same for names, whose
/// only characters are `-`, digits and small letters.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let order = match (digits(left), digits(right)) {
            (0, _) | (_, 0) => {
                let (l, r) = (left.chars().next(), right.chars().next());
                if l.is_none() && r.is_none() {
                    return a.cmp(b);
                }
                left = &left[l.map_or(0, char::len_utf8)..];
                right = &right[r.map_or(0, char::len_utf8)..];
                l.cmp(&r)
            }
            (l, r) => {
                let (one, other) = (left[..l].trim_start_matches('0'), right[..r].trim_start_matches('0'));
                (left, right) = (&left[l..], &right[r..]);
                one.len().cmp(&other.len()).then_with(|| one.cmp(other))
            }
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Since 1970; 0 for times before.
pub(crate) fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A duration in its two largest units: `8s`, `3m 12s`, `5h 2m`, `12d 4h`. The script has the same function.
pub(crate) fn brief(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(check: Option<&str>) -> Instance {
        let mut instance: Instance = serde_json::from_value(serde_json::json!({
            "name": "web-1", "incarnation": "1", "service": "web", "node": "n", "addresses": ["192.0.2.1", "2001:db8::1"],
            "ports": [
                { "name": "http", "port": "20001", "container": 8080 },
                { "name": "media", "protocols": ["udp"], "port": "21000-21099" },
                { "name": "rpc", "port": "20002" }, { "name": "https-admin", "port": "20003" },
                { "name": "web-rtc", "protocols": ["udp"], "port": "20004" }, { "name": "webhook", "port": "20005" },
            ],
            "state": "passing", "since": "1970-01-01T00:00:01.5Z", "registered": "1970-01-01T00:00:01Z",
            "output": format!("  a\n{}", "ü".repeat(300)),
        }))
        .unwrap();
        instance.check = check.map(|text| text.parse().unwrap());
        instance
    }

    #[test]
    fn a_row_says_how_each_port_is_reached() {
        let row = Row::new(&instance(None));
        assert_eq!(row.ports[0].at, ["192.0.2.1:20001", "[2001:db8::1]:20001"]);
        assert_eq!(row.ports[1].at[0], "192.0.2.1:21000-21099");
        assert_eq!((row.since, row.registered), (1500, 1000));
        assert_eq!(row.output.chars().count(), OUTPUT + 1);
        assert!(row.output.starts_with("a ü") && row.output.ends_with('…'));
    }

    #[test]
    fn what_speaks_http_can_be_opened() {
        let open = |check| -> Vec<_> {
            Row::new(&instance(check)).ports.into_iter().map(|port| port.open.unwrap_or_default()).collect()
        };
        let plain = ["http://192.0.2.1:20001/", "", "", "https://192.0.2.1:20003/", "", ""];
        assert_eq!(open(None), plain);
        assert_eq!(open(Some("tcp@rpc")), plain);
        assert_eq!(open(Some("http:/healthz@rpc"))[2], "http://192.0.2.1:20002/");
    }

    #[test]
    fn names_are_in_the_order_in_which_people_count() {
        let sorted = ["a", "a-1", "a-1-b", "a-2", "a-10", "a-010", "a1", "a2", "ab", "b-1"];
        for pair in sorted.windows(2) {
            let expected = if pair == ["a-10", "a-010"] { Ordering::Greater } else { Ordering::Less };
            assert_eq!(natural(pair[0], pair[1]), expected, "{pair:?}");
            assert_eq!(natural(pair[1], pair[0]), expected.reverse(), "{pair:?}");
        }
        assert_eq!(natural("a-1", "a-1"), Ordering::Equal);
    }

    #[test]
    fn ages_are_brief() {
        let brief = |s| brief(Duration::from_secs(s));
        assert_eq!(
            [brief(8), brief(192), brief(18_120), brief(1_051_200)],
            ["8s", "3m 12s", "5h 2m", "12d 4h"]
        );
    }
}
