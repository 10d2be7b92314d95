//! Where cluster addresses come from when nobody says: a network that nobody else has here.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// 10.214.0.0/16 is beside the network of the instances (10.213.0.0/16); where that is taken, the next ones up.
const FIRST: u8 = 214;
const LAST: u8 = 229;
/// Of the block for private use (RFC 4193), beside that of the instances.
const V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd70, 0x6f72, 0x746f, 1, 0, 0, 0, 0), 112);

/// The networks that were given; for a family without, one that is not in `taken`, and the same again after a restart.
pub(crate) fn choose(given: &[IpNet], taken: &[IpNet], chosen: &mut Option<IpNet>) -> Vec<IpNet> {
    let of = |v4: bool| given.iter().copied().find(|net| matches!(net, IpNet::V4(_)) == v4);
    let v4 = of(true).unwrap_or_else(|| {
        let candidates =
            (FIRST..=LAST).map(|n| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, n, 0, 0), 16)));
        let free = |net: &IpNet| !taken.iter().any(|other| other.contains(net) || net.contains(other));
        let first = chosen.take().into_iter().chain(candidates).find(free);
        first.unwrap_or(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, FIRST, 0, 0), 16)))
    });
    *chosen = of(true).is_none().then_some(v4);
    let v6 = of(false).unwrap_or(V6.into());
    // The family that was given first is the one that Services get when they do not say.
    if given.first().is_some_and(|net| matches!(net, IpNet::V6(_))) { vec![v6, v4] } else { vec![v4, v6] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_free_and_stays_the_same() {
        let net = |text: &str| -> IpNet { text.parse().unwrap() };
        let mut chosen = None;
        let taken = [net("10.214.8.0/24"), net("10.215.0.0/16")];
        assert_eq!(choose(&[], &taken, &mut chosen), [net("10.216.0.0/16"), V6.into()]);
        assert_eq!(choose(&[], &[], &mut chosen)[0], net("10.216.0.0/16"));
        assert_eq!(choose(&[], &[net("10.216.1.0/24")], &mut chosen)[0], net("10.214.0.0/16"));
        let given = [net("fd00::/112"), net("10.96.0.0/16")];
        assert_eq!(choose(&given, &[], &mut chosen), given);
        assert_eq!(chosen, None);
    }
}
