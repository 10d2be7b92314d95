//! What is held beside what should be held.

use std::{collections::BTreeMap, net::IpAddr};

use portolan_model::Protocol;

use crate::{bitmap::Bitmap, hold::Hold};

/// The ports of `these` that are not in `those`, in rising order.
pub fn difference(these: &[Hold], those: &[Hold]) -> Vec<Hold> {
    let mut sets: BTreeMap<(Protocol, Option<IpAddr>), Bitmap> = BTreeMap::new();
    for hold in these {
        sets.entry((hold.protocol, hold.address)).or_default().insert(hold.ports);
    }
    for hold in those {
        if let Some(set) = sets.get_mut(&(hold.protocol, hold.address)) {
            set.remove(hold.ports);
        }
    }
    let ranges = |(&(protocol, address), set): (&(Protocol, Option<IpAddr>), &Bitmap)| {
        let holds: Vec<_> = set.runs().map(|ports| Hold { protocol, address, ports }).collect();
        holds
    };
    sets.iter().flat_map(ranges).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_exact_in_protocol_address_and_number() {
        let hold = |protocol, address: Option<&str>, ports: &str| Hold {
            protocol,
            address: address.map(|a| a.parse().unwrap()),
            ports: ports.parse().unwrap(),
        };
        let (tcp, udp, one) = (Protocol::Tcp, Protocol::Udp, Some("127.0.0.1"));
        let held = [hold(tcp, None, "100-199"), hold(tcp, one, "300"), hold(udp, None, "100-109")];
        let wanted = [hold(tcp, None, "150-159"), hold(tcp, None, "300"), hold(udp, None, "90-104")];
        assert_eq!(
            difference(&held, &wanted),
            [
                hold(tcp, None, "100-149"),
                hold(tcp, None, "160-199"),
                hold(tcp, one, "300"),
                hold(udp, None, "105-109")
            ]
        );
        assert_eq!(difference(&wanted, &held), [hold(tcp, None, "300"), hold(udp, None, "90-99")]);
        assert_eq!(difference(&held, &held), []);
    }
}
