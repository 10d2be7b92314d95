//! kube-proxy's own table of who reaches what, and whether masqueraded: `TestInternalExternalMasquerade` of
//! `pkg/proxy/nftables/proxier_test.go`, 1.36.3, as data.

use portolan_model::TrafficPolicy;

/// Where a packet is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Pod,
    Node,
    Outside,
}

/// By which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Cluster,
    NodePort,
    LoadBalancer,
}

/// The endpoints, one on this node and one elsewhere, that are reached; masqueraded or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub remote_too: bool,
    pub masqueraded: bool,
}

/// The policies of a Service: internal, external.
pub type Policies = (TrafficPolicy, TrafficPolicy);

/// How the proxy was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// With a detector of Pods of the node.
    Usual,
    /// Without.
    Undetected,
    /// With one, and everything to cluster addresses is masqueraded.
    MasqueradeAll,
    /// Without one, and everything to cluster addresses is masqueraded.
    UndetectedMasqueradeAll,
}

pub const SETUPS: [Setup; 4] =
    [Setup::Usual, Setup::Undetected, Setup::MasqueradeAll, Setup::UndetectedMasqueradeAll];

const CC: Policies = (TrafficPolicy::Cluster, TrafficPolicy::Cluster);
const CL: Policies = (TrafficPolicy::Cluster, TrafficPolicy::Local);
const LC: Policies = (TrafficPolicy::Local, TrafficPolicy::Cluster);

const fn all(masqueraded: bool) -> Expected {
    Expected { remote_too: true, masqueraded }
}

const fn local(masqueraded: bool) -> Expected {
    Expected { remote_too: false, masqueraded }
}

/// Its rows as they are with a detector and without masquerading all. Node ports and addresses of a load balancer are
/// one column of it.
#[rustfmt::skip]
const USUAL: [(Source, Policies, Expected, Expected); 9] = [
    (Source::Pod,     CC, all(false),   all(true)),
    (Source::Pod,     CL, all(false),   all(false)),
    (Source::Pod,     LC, local(false), all(true)),
    (Source::Node,    CC, all(true),    all(true)),
    (Source::Node,    CL, all(true),    all(true)),
    (Source::Node,    LC, local(true),  all(true)),
    (Source::Outside, CC, all(true),    all(true)),
    (Source::Outside, CL, all(true),    local(false)),
    (Source::Outside, LC, local(true),  all(true)),
];

/// One expectation.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub setup: Setup,
    pub source: Source,
    pub policies: Policies,
    pub way: Way,
    pub expected: Expected,
}

/// All of them: 108.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for setup in SETUPS {
        for (source, policies, cluster, external) in USUAL {
            for way in [Way::Cluster, Way::NodePort, Way::LoadBalancer] {
                let usual = if way == Way::Cluster { cluster } else { external };
                let expected = adapted(setup, source, policies, way, usual);
                rows.push(Row { setup, source, policies, way, expected });
            }
        }
    }
    rows
}

/// What is different in the other setups.
fn adapted(setup: Setup, source: Source, policies: Policies, way: Way, usual: Expected) -> Expected {
    let undetected = matches!(setup, Setup::Undetected | Setup::UndetectedMasqueradeAll);
    let masquerade_all = matches!(setup, Setup::MasqueradeAll | Setup::UndetectedMasqueradeAll);
    match way {
        Way::Cluster if masquerade_all => Expected { masqueraded: true, ..usual },
        Way::Cluster if undetected => Expected { masqueraded: false, ..usual },
        Way::NodePort | Way::LoadBalancer if undetected && source == Source::Pod && policies == CL => {
            local(false)
        }
        _ => usual,
    }
}
