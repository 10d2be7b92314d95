//! Who may have which ports: pure, over what is known of the cluster.
//!
//! PodSecurity forbids `hostPort` to most namespaces, and an annotation must not go around that: a namespace has to be
//! let in by its label, a pool may be for some namespaces only, and a number that a Pod chooses itself has to be in a
//! pool that it may use. Only where the cluster has no PortPool at all may it be any from 1024 on.

use std::collections::BTreeMap;

use portolan_model::{AskError, Name, PortRange, PortRanges, PortRequest, Protocols, demand};

/// The pool of requests that name none.
pub(crate) const DEFAULT_POOL: &str = "default";

/// What a namespace may have of a pool of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// The pool.
    pub(crate) pool: Name,
    /// Its ports.
    pub(crate) ranges: PortRanges,
    /// What it is for.
    pub(crate) protocols: Protocols,
    /// Whether it is for this namespace.
    pub(crate) admitted: bool,
    /// How many ports the namespace may have of it, over the whole cluster.
    pub(crate) quota: Option<u32>,
    /// Whether a Pod may choose a number outside of it as well. So it is without any PortPool: then nobody has said
    /// more than that the namespace may have ports.
    pub(crate) anywhere: bool,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Asking<'a> {
    /// The Pod's namespace.
    pub(crate) namespace: &'a str,
    /// Whether its label lets it have ports at all.
    pub(crate) opted_in: bool,
    /// The pools of this node.
    pub(crate) pools: &'a [Admission],
    /// The ports that its other Pods have asked for, by pool: those that came before this one.
    pub(crate) used: &'a BTreeMap<Name, u32>,
}

/// Why a Pod gets no ports, and what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The annotation.
    #[error("the annotation of the Pod: {0}")]
    Ask(#[from] AskError),
    /// The label.
    #[error(
        "the namespace {0} may have no ports of the node: whoever administers the cluster can allow it with \
         kubectl label namespace {0} portolan.dev/ports=allowed"
    )]
    NotOptedIn(String),
    /// No pool of that name.
    #[error("there is no pool {asked} on this node: {}", others(.known))]
    NoPool { asked: Name, known: Vec<Name> },
    /// The pool's namespaceSelector.
    #[error(
        "the pool {pool} is not for the namespace {namespace}: {}, or change the namespaceSelector of the PortPool",
        others(.known)
    )]
    NotAdmitted { pool: Name, namespace: String, known: Vec<Name> },
    /// The pool's protocols.
    #[error("{port} asks for {asked}, and the pool {pool} is for {has}: ask for that, or another pool")]
    Protocol { port: Name, asked: Protocols, pool: Name, has: Protocols },
    /// A number that the Pod chose.
    #[error(
        "{port} asks for the host port {host}, which is not in the pool {pool} ({ranges}): choose one that is, or \
         name the pool that has it with pool=NAME"
    )]
    OutOfPool { port: Name, host: PortRange, pool: Name, ranges: PortRanges },
    /// The pool's quota.
    #[error(
        "the namespace {namespace} has {used} of its {quota} ports of the pool {pool}, and this Pod asks for {asked} \
         more: delete Pods, ask for less, or raise the quota of the PortPool"
    )]
    Quota { namespace: String, pool: Name, used: u32, quota: u32, asked: u32 },
}

impl Refusal {
    /// One word for it, as the label of a metric.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Ask(_) => "annotation",
            Self::NotOptedIn(_) => "namespace",
            Self::NoPool { .. } | Self::NotAdmitted { .. } => "pool",
            Self::Protocol { .. } => "protocol",
            Self::OutOfPool { .. } => "range",
            Self::Quota { .. } => "quota",
        }
    }
}

fn others(pools: &[Name]) -> String {
    if pools.is_empty() {
        return "no PortPool lets this namespace have ports here".to_owned();
    }
    let names: Vec<&str> = pools.iter().map(Name::as_str).collect();
    format!("name one of {} with pool=NAME", names.join(", "))
}

/// Whether the namespace may have all of it. Answers the requests with the names of their pools.
pub(crate) fn decide(asking: &Asking<'_>, requests: Vec<PortRequest>) -> Result<Vec<PortRequest>, Refusal> {
    let namespace = || asking.namespace.to_owned();
    if !asking.opted_in {
        return Err(Refusal::NotOptedIn(namespace()));
    }
    let known =
        || asking.pools.iter().filter(|pool| pool.admitted).map(|pool| pool.pool.clone()).collect::<Vec<_>>();
    let requests = requests.into_iter().map(|mut request| {
        let asked = request.pool.as_ref().map_or(DEFAULT_POOL, Name::as_str);
        let Some(pool) = asking.pools.iter().find(|pool| pool.pool.as_str() == asked) else {
            let asked = request.pool.unwrap_or_else(|| Name::new(DEFAULT_POOL).unwrap_or(request.name));
            return Err(Refusal::NoPool { asked, known: known() });
        };
        if !pool.admitted {
            let pool = pool.pool.clone();
            return Err(Refusal::NotAdmitted { pool, namespace: namespace(), known: known() });
        }
        if request.protocols.iter().any(|protocol| !pool.protocols.contains(protocol)) {
            return Err(Refusal::Protocol {
                port: request.name,
                asked: request.protocols,
                pool: pool.pool.clone(),
                has: pool.protocols,
            });
        }
        let block = request.host.and_then(|first| PortRange::block(first, request.count));
        if let Some(host) = block.filter(|block| !pool.ranges.covers(*block)) {
            // The system's own ports (RFC 6335 section 6) are nobody's to ask for by annotation alone.
            if pool.anywhere && request.pool.is_none() && host.first() >= 1024 {
                return Ok(request);
            }
            let (pool, ranges) = (pool.pool.clone(), pool.ranges.clone());
            return Err(Refusal::OutOfPool { port: request.name, host, pool, ranges });
        }
        request.pool = Some(pool.pool.clone());
        Ok(request)
    });
    let requests = requests.collect::<Result<Vec<_>, _>>()?;
    for (pool, asked) in demand(&requests) {
        let Some(pool) = pool else { continue };
        let quota = asking.pools.iter().find(|known| known.pool == pool).and_then(|known| known.quota);
        let used = asking.used.get(&pool).copied().unwrap_or(0);
        if let Some(quota) = quota.filter(|quota| used.saturating_add(asked) > *quota) {
            return Err(Refusal::Quota { namespace: namespace(), pool, used, quota, asked });
        }
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, ranges: &str) -> Admission {
        Admission {
            pool: name.parse().unwrap(),
            ranges: ranges.parse().unwrap(),
            protocols: "tcp+udp".parse().unwrap(),
            admitted: true,
            quota: None,
            anywhere: false,
        }
    }

    fn requests(specs: &[&str]) -> Vec<PortRequest> {
        specs.iter().map(|spec| spec.parse().unwrap()).collect()
    }

    fn decided(pools: &[Admission], used: &[(&str, u32)], specs: &[&str]) -> Result<Vec<String>, String> {
        let used = used.iter().map(|(pool, used)| (pool.parse().unwrap(), *used)).collect();
        let asking = Asking { namespace: "games", opted_in: true, pools, used: &used };
        let decided = decide(&asking, requests(specs)).map_err(|refusal| refusal.to_string())?;
        Ok(decided.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_namespace_has_to_be_let_in() {
        let asking = Asking {
            namespace: "games",
            opted_in: false,
            pools: &[pool("default", "1000-1999")],
            used: &BTreeMap::new(),
        };
        let refusal = decide(&asking, requests(&["http"])).unwrap_err();
        assert_eq!(refusal.word(), "namespace");
        assert!(refusal.to_string().contains("kubectl label namespace games portolan.dev/ports=allowed"));
    }

    #[test]
    fn a_request_without_a_pool_takes_from_the_default_one_only() {
        let pools = [pool("media", "3000-3999"), pool("default", "1000-1999")];
        assert_eq!(
            decided(&pools, &[], &["http", "rtp/udp:10,pool=media"]).unwrap(),
            ["http,pool=default", "rtp/udp:10,pool=media"]
        );
        let refusal = decided(&pools[..1], &[], &["http"]).unwrap_err();
        assert_eq!(refusal, "there is no pool default on this node: name one of media with pool=NAME");
    }

    #[test]
    fn a_pool_for_others_is_refused_and_those_for_us_are_named() {
        let mut pools = [pool("default", "1000-1999"), pool("media", "3000-3999")];
        pools[0].admitted = false;
        let refusal = decided(&pools, &[], &["http"]).unwrap_err();
        assert!(refusal.starts_with("the pool default is not for the namespace games: name one of media"));
        pools[1].admitted = false;
        assert!(decided(&pools, &[], &["http"]).unwrap_err().contains("no PortPool lets this namespace"));
    }

    #[test]
    fn a_number_that_a_pod_chooses_is_in_its_pool() {
        let pools = [pool("default", "1000-1999"), pool("web", "443,8443")];
        assert!(decided(&pools, &[], &["web=8443,pool=web"]).is_ok());
        assert!(decided(&pools, &[], &["web/udp:10=1990"]).is_ok());
        for spec in ["web=8443", "ssh=22", "kubelet=10250,pool=web", "m/udp:11=1990"] {
            let refusal = decided(&pools, &[], &[spec]).unwrap_err();
            assert!(refusal.contains("choose one that is"), "{spec}: {refusal}");
        }
    }

    #[test]
    fn without_any_port_pool_a_pod_may_choose_numbers_outside_but_not_the_systems() {
        let mut pools = [pool("default", "20000-29999")];
        pools[0].anywhere = true;
        assert_eq!(decided(&pools, &[], &["web=8443"]).unwrap(), ["web=8443"]);
        assert_eq!(decided(&pools, &[], &["web=20443"]).unwrap(), ["web=20443,pool=default"]);
        for spec in ["ssh=22", "web=8443,pool=default"] {
            assert!(decided(&pools, &[], &[spec]).unwrap_err().contains("choose one that is"), "{spec}");
        }
    }

    #[test]
    fn a_pool_is_for_its_protocols_only() {
        let pools = [pool("default", "1000-1999")];
        let refusal = decided(&pools, &[], &["m3ua/sctp"]).unwrap_err();
        assert!(refusal.contains("asks for sctp, and the pool default is for tcp+udp"), "{refusal}");
    }

    #[test]
    fn a_quota_counts_what_the_namespace_has_and_what_it_asks() {
        let mut pools = [pool("default", "1000-1999"), pool("media", "3000-3999")];
        pools[0].quota = Some(10);
        assert!(decided(&pools, &[("default", 8)], &["a", "b"]).is_ok());
        assert!(decided(&pools, &[("default", 8)], &["a", "m:100,pool=media"]).is_ok());
        let refusal = decided(&pools, &[("default", 8)], &["a", "b", "c=1000"]).unwrap_err();
        assert!(refusal.starts_with("the namespace games has 8 of its 10 ports of the pool default"));
        assert!(decided(&pools, &[], &["m/udp:11"]).is_err());
    }

    proptest::proptest! {
        /// Whatever is asked, what is given is in a pool that the namespace may use and within its quota.
        #[test]
        fn nothing_is_given_that_no_pool_allows(
            hosts in proptest::collection::vec(
                (proptest::option::of(1..5000_u16), 1..20_u16, proptest::option::of(0..3_usize)), 0..6),
            admitted in proptest::collection::vec(proptest::bool::ANY, 2),
            quota in proptest::option::of(0..40_u32),
            used in 0..40_u32,
        ) {
            let mut pools = vec![pool("default", "1000-1999"), pool("media", "3000-3999,4100-4199")];
            for (pool, admitted) in pools.iter_mut().zip(&admitted) {
                pool.admitted = *admitted;
                pool.quota = quota;
            }
            let names = ["default", "media", "unknown"];
            let requests: Vec<PortRequest> = hosts.iter().enumerate().map(|(index, (host, count, pool))| PortRequest {
                host: *host,
                count: *count,
                pool: pool.map(|pool| names[pool].parse().unwrap()),
                ..PortRequest::named(format!("p{index}").parse().unwrap())
            }).collect();
            let used: BTreeMap<Name, u32> = pools.iter().map(|pool| (pool.pool.clone(), used)).collect();
            let asking = Asking { namespace: "games", opted_in: true, pools: &pools, used: &used };
            let Ok(given) = decide(&asking, requests.clone()) else { return Ok(()) };
            proptest::prop_assert_eq!(given.len(), requests.len());
            for request in &given {
                let pool = pools.iter().find(|pool| Some(&pool.pool) == request.pool.as_ref()).unwrap();
                proptest::prop_assert!(pool.admitted);
                if let Some(host) = request.host {
                    proptest::prop_assert!(pool.ranges.covers(PortRange::block(host, request.count).unwrap()));
                }
            }
            for (pool, asked) in demand(&given) {
                let pool = pool.unwrap();
                proptest::prop_assert!(quota.is_none_or(|quota| used[&pool] + asked <= quota));
            }
        }
    }
}
