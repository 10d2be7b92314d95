//! What a Pod's annotation says that it got.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::PublishedPort;

/// The annotation in which a Pod's ports are told.
pub const STATUS_ANNOTATION: &str = "portolan.dev/ports-status";

/// The value of [`STATUS_ANNOTATION`]:
/// `{"node":"n1","addresses":["203.0.113.7"],"ports":[{"name":"http","protocols":["tcp"],"host":"20417","container":8080}]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsStatus {
    /// The node's name.
    pub node: String,
    /// Where clients reach it, best first, at most one address of each family.
    pub addresses: Vec<IpAddr>,
    /// The ports: those that it asked for in the order in which it did, then those of its `hostPort`s.
    pub ports: Vec<PublishedPort>,
}

impl PortsStatus {
    /// The annotation's value.
    pub fn to_json(&self) -> String {
        // Plain structs of strings and numbers: serialization has nothing that can fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocols;

    #[test]
    fn the_annotation_is_as_documented() {
        let status = PortsStatus {
            node: "n1".into(),
            addresses: vec!["203.0.113.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            ports: vec![PublishedPort {
                name: "http".parse().unwrap(),
                protocols: Protocols::TCP,
                host: "20417".parse().unwrap(),
                container: 8080,
                address: None,
            }],
        };
        let text = concat!(
            r#"{"node":"n1","addresses":["203.0.113.7","2001:db8::7"],"#,
            r#""ports":[{"name":"http","protocols":["tcp"],"host":"20417","container":8080}]}"#
        );
        assert_eq!(status.to_json(), text);
        assert_eq!(serde_json::from_str::<PortsStatus>(text).unwrap(), status);
    }
}
