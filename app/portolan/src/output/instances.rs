//! Instances as rows: what `list`, `watch` and `demo` show.

use comfy_table::Cell;
use portolan_model::{Instance, InstancePort, Protocols};

use super::{
    age,
    table::{Table, plain, toned},
};

/// The headers of [`row`].
pub(crate) const HEADERS: [&str; 6] = ["NAME", "STATE", "ADDRESS", "PORTS", "NODE", "AGE"];
/// The headers of [`wide_row`].
const WIDE: [&str; 10] =
    ["NAME", "STATE", "ADDRESS", "PORTS", "NODE", "AGE", "SERVICE", "CHECK", "LABELS", "OUTPUT"];

/// All of them, by name.
pub(crate) fn table(instances: &[Instance], wide: bool) -> Table {
    let mut table = Table::new(if wide { &WIDE } else { &HEADERS });
    for instance in instances {
        if wide {
            table.row(wide_row(instance));
        } else {
            table.row(row(instance));
        }
    }
    table
}

/// The cells under [`HEADERS`]. The age is that of this life of the instance.
pub(crate) fn row(instance: &Instance) -> Vec<Cell> {
    let address = instance.addresses.first().map(ToString::to_string).unwrap_or_default();
    cells(instance, address)
}

fn wide_row(instance: &Instance) -> Vec<Cell> {
    let addresses: Vec<_> = instance.addresses.iter().map(ToString::to_string).collect();
    let mut cells = cells(instance, addresses.join(","));
    // What a check said may have many lines; the first tells the most.
    let output = instance.output.lines().next().unwrap_or_default();
    cells.extend([
        plain(instance.service.as_str()),
        plain(instance.check.as_ref().map(ToString::to_string).unwrap_or_default()),
        plain(labels(instance)),
        plain(printable(output)),
    ]);
    cells
}

fn cells(instance: &Instance, address: String) -> Vec<Cell> {
    vec![
        plain(instance.key.name.as_str()),
        toned(instance.state.into(), instance.state.as_str()),
        plain(address),
        plain(ports(&instance.ports)),
        plain(printable(&instance.node)),
        plain(age::since(instance.registered)),
    ]
}

/// `http=20417,media=21000-21099/udp`: TCP is left out.
pub(crate) fn ports(ports: &[InstancePort]) -> String {
    let one = |port: &InstancePort| match port.protocols {
        Protocols::TCP => format!("{}={}", port.name, port.port),
        protocols => format!("{}={}/{protocols}", port.name, port.port),
    };
    ports.iter().map(one).collect::<Vec<_>>().join(",")
}

/// `a=b,c=d`.
pub(crate) fn labels(instance: &Instance) -> String {
    let pairs: Vec<_> =
        instance.labels.iter().map(|(key, value)| printable(&format!("{key}={value}"))).collect();
    pairs.join(",")
}

/// What others wrote must not move the cursor of whoever reads it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn instance() -> Instance {
        serde_json::from_value(serde_json::json!({
            "name": "web-0", "incarnation": "x", "service": "web", "node": "n\u{1b}[31m",
            "addresses": ["192.0.2.1", "2001:db8::1"],
            "ports": [{"name": "http", "port": "20417"}, {"name": "media", "protocols": ["udp"], "port": "21000-21099"}],
            "labels": {"zone": "b"}, "state": "passing", "output": "200 OK\nmore",
            "since": "2026-01-01T00:00:00Z", "registered": "2026-01-01T00:00:00Z"
        }))
        .unwrap()
    }

    fn plain_lines(wide: bool) -> Vec<String> {
        let lines = table(&[instance()], wide).lines();
        lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect()
    }

    #[test]
    fn an_instance_is_a_row() {
        let lines = plain_lines(false);
        assert!(lines[0].starts_with("NAME   STATE    ADDRESS    PORTS"), "{lines:?}");
        let expected = "web-0  passing  192.0.2.1  http=20417,media=21000-21099/udp  n\u{fffd}[31m  ";
        assert!(lines[1].starts_with(expected), "{lines:?}");
    }

    #[test]
    fn wide_shows_all_addresses_and_the_first_line_of_the_check() {
        let lines = plain_lines(true);
        assert!(
            lines[1].contains("192.0.2.1,2001:db8::1")
                && lines[1].ends_with("web      -      zone=b  200 OK")
        );
    }
}
