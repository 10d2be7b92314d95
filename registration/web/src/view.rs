//! What the page's address asks to see: `/?q=text&state=critical&service=web&node=a&port=20417&label=tier=front`.
//!
//! The script filters by the same rules (`matches` in `portolan.js`), so that a link shows the same with and without.

use portolan_model::{Instance, State};

/// The filters; the empty text is no filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Anywhere in the name, the service, the node, a label or an `address:port`.
    pub(crate) q: String,
    /// The same in lower case, as it is looked for.
    needle: String,
    pub(crate) states: Vec<State>,
    pub(crate) service: String,
    pub(crate) node: String,
    /// A number (in a block, any of its numbers) or the name of a port.
    pub(crate) port: String,
    /// `key=value`, or `key` for any value.
    pub(crate) label: String,
}

impl View {
    /// From the pairs of the query. Unknown keys and states are nobody's fault: old links keep working.
    pub(crate) fn from_pairs(pairs: &[(String, String)]) -> Self {
        let mut view = Self::default();
        for (key, value) in pairs {
            let value = value.trim();
            match key.as_str() {
                "q" => (view.q, view.needle) = (value.to_owned(), value.to_lowercase()),
                "state" => {
                    view.states.extend(value.split(',').filter_map(|state| state.parse::<State>().ok()))
                }
                "service" => view.service = value.to_owned(),
                "node" => view.node = value.to_owned(),
                "port" => view.port = value.to_lowercase(),
                "label" => view.label = value.to_owned(),
                _ => {}
            }
        }
        view
    }

    /// Whether it asks for everything.
    pub(crate) fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// All filters but that by state: what the counters count.
    pub(crate) fn counts(&self, instance: &Instance) -> bool {
        (self.service.is_empty() || instance.service.as_str() == self.service)
            && (self.node.is_empty() || instance.node == self.node)
            && self.has_port(instance)
            && self.has_label(instance)
            && self.has_text(instance)
    }

    /// All filters.
    pub(crate) fn matches(&self, instance: &Instance) -> bool {
        (self.states.is_empty() || self.states.contains(&instance.state)) && self.counts(instance)
    }

    fn has_port(&self, instance: &Instance) -> bool {
        match self.port.parse::<u16>() {
            _ if self.port.is_empty() => true,
            Ok(number) => {
                instance.ports.iter().any(|p| p.port.contains(number) || p.container == Some(number))
            }
            Err(_) => instance.ports.iter().any(|p| p.name.as_str() == self.port),
        }
    }

    fn has_label(&self, instance: &Instance) -> bool {
        match self.label.split_once('=') {
            _ if self.label.is_empty() => true,
            Some((key, value)) => instance.labels.get(key).is_some_and(|v| v == value),
            None => instance.labels.contains_key(&self.label),
        }
    }

    fn has_text(&self, instance: &Instance) -> bool {
        let has = |text: &str| text.to_lowercase().contains(&self.needle);
        self.q.is_empty()
            || has(instance.key.name.as_str())
            || has(instance.service.as_str())
            || has(&instance.node)
            || instance.labels.iter().any(|(key, value)| has(&format!("{key}={value}")))
            || instance.addresses.iter().any(|&ip| {
                has(&ip.to_string())
                    || instance
                        .ports
                        .iter()
                        .any(|p| has(&std::net::SocketAddr::new(ip, p.port.first()).to_string()))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(query: &[(&str, &str)]) -> View {
        let pairs: Vec<_> = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        View::from_pairs(&pairs)
    }

    #[test]
    fn each_filter_finds_what_people_type() {
        let instance: Instance = serde_json::from_value(serde_json::json!({
            "name": "web-1", "incarnation": "1", "service": "web", "node": "rack-a", "addresses": ["192.0.2.1", "2001:db8::1"],
            "ports": [{ "name": "http", "port": "20001", "container": 8080 }, { "name": "media", "port": "21000-21099" }],
            "labels": { "tier": "front" }, "state": "critical",
            "since": "2026-01-01T00:00:00Z", "registered": "2026-01-01T00:00:00Z",
        }))
        .unwrap();
        for (key, value, expected) in [
            ("q", "WEB", true),
            ("q", "192.0.2.1:20001", true),
            ("q", "[2001:db8::1]:2000", true),
            ("q", "tier=fr", true),
            ("q", "rack", true),
            ("q", "api", false),
            ("state", "critical", true),
            ("state", "passing,critical", true),
            ("state", "passing", false),
            ("state", "nonsense", true),
            ("service", "web", true),
            ("service", "we", false),
            ("node", "rack-a", true),
            ("node", "rack-b", false),
            ("port", "20001", true),
            ("port", "8080", true),
            ("port", "21050", true),
            ("port", "21100", false),
            ("port", "http", true),
            ("port", "grpc", false),
            ("label", "tier", true),
            ("label", "tier=front", true),
            ("label", "tier=back", false),
            ("label", "zone", false),
            ("utm_source", "mail", true),
        ] {
            assert_eq!(view(&[(key, value)]).matches(&instance), expected, "{key}={value}");
        }
        assert!(
            view(&[("state", "passing"), ("state", "critical")]).matches(&instance),
            "as a form sends it"
        );
        assert!(view(&[("x", "y"), ("q", " ")]).is_everything());
    }
}
