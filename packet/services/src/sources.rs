//! Who may reach a frontend: a set and a chain for each different list of networks, however many Services have it.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_nft::{Chain, Data, Element, FilledChain, FilledSet, Rule, Verdict, matches};
use portolan_plan::Version;

use crate::{ServicesConfig, SetId, SetKind, Space, arrange::mix, sets::asked};

/// Networks of one version of IP: ordered, none inside of another. Never everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<IpNet>);

impl Ranges {
    /// `None`: nobody is kept out. Networks of the other version do not make a list for this one.
    pub(crate) fn new(networks: &[IpNet], version: Version) -> Option<Self> {
        let of_version: Vec<IpNet> =
            networks.iter().filter(|one| Version::of(one.addr()) == version).map(IpNet::trunc).collect();
        let mut networks = IpNet::aggregate(&of_version);
        networks.sort_unstable();
        let everybody = of_version.iter().any(|one| one.prefix_len() == 0);
        (!networks.is_empty() && !everybody).then_some(Self(networks))
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// A number that the same list has everywhere and always.
    pub(crate) fn number(&self) -> u64 {
        self.0.iter().fold(0, |number, network| {
            let address = match network.addr() {
                IpAddr::V4(address) => u128::from(address.to_bits()),
                IpAddr::V6(address) => address.to_bits(),
            };
            let low = mix(number ^ address as u64);
            mix(mix(low ^ (address >> 64) as u64) ^ u64::from(network.prefix_len()))
        })
    }

    /// The set and the chain.
    pub(crate) fn piece(
        &self,
        version: Version,
        number: u64,
        config: &ServicesConfig,
    ) -> (FilledChain, FilledSet) {
        let id = SetId::new(SetKind::Allowed(number), version);
        let name = id.name();
        let elements: Vec<Element> = self.0.iter().map(|one| interval(*one)).collect();
        let rule = || Rule::new(&name).then(version.guard());
        let mut pair = vec![version.source()];
        pair.extend(asked(Space::Port, version));
        let itself = SetId::new(SetKind::AllowedItself, version).name();
        let rules = vec![
            rule().then(matches::in_set(&[version.source()], &name)).returns(),
            rule().then(matches::in_set(&pair, itself)).returns(),
            Rule::new(&name).drop(),
        ];
        (
            FilledChain { chain: Chain::regular(&name), rules },
            FilledSet { set: id.declaration(config), elements },
        )
    }
}

/// What a list is called in maps: at most 15 bytes.
pub(crate) fn label(number: u64) -> String {
    format!("{:015x}", number >> 4)
}

/// The element that leads to a list's chain.
pub(crate) fn element(version: Version, number: u64) -> (SetId, Element) {
    let chain = SetId::new(SetKind::Allowed(number), version).name();
    (
        SetId::new(SetKind::Sources, version),
        Element::new(Data::new().interface(&label(number))).verdict(Verdict::goto(chain)),
    )
}

/// All addresses of a network.
pub(crate) fn interval(network: IpNet) -> Element {
    Element::interval(Data::new().ip(network.network()), Data::new().ip(network.broadcast()))
}
