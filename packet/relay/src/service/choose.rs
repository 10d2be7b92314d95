//! Which backend a new client gets.

use std::net::{IpAddr, SocketAddr};

use portolan_model::Balance;
use rand::{Rng, RngExt as _};

/// Where clients can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Its address and port.
    pub address: SocketAddr,
    /// Its part of the new clients; 0: none.
    pub weight: u16,
}

impl Backend {
    /// One with the usual weight.
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, weight: 1 }
    }
}

/// The backends of a frontend with the way to choose among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    backends: Vec<Backend>,
    balance: Balance,
}

impl Choice {
    pub(crate) fn new(backends: Vec<Backend>, balance: Balance) -> Self {
        Self { backends, balance }
    }

    /// Whether a client that is there may stay there.
    pub(crate) fn contains(&self, backend: SocketAddr) -> bool {
        self.backends.iter().any(|one| one.address == backend)
    }

    /// One for this client, and none of those that were tried in vain. Where all weights are 0, each is as good as
    /// another: a Service with endpoints answers.
    pub(crate) fn pick(
        &self,
        client: IpAddr,
        tried: &[SocketAddr],
        rng: &mut impl Rng,
    ) -> Option<SocketAddr> {
        let left = || self.backends.iter().filter(|one| !tried.contains(&one.address));
        let all_zero = left().all(|one| one.weight == 0);
        let weight = |one: &Backend| if all_zero { 1 } else { u32::from(one.weight) };
        match self.balance {
            Balance::Random => {
                let total: u32 = left().map(weight).sum();
                if total == 0 {
                    return None;
                }
                let mut at = rng.random_range(0..total);
                left()
                    .find(|one| at.checked_sub(weight(one)).map(|rest| at = rest).is_none())
                    .map(|one| one.address)
            }
            // Rendezvous hashing (Thaler and Ravishankar 1998) with the weights of Schindelhauer and Schomaker (2005,
            // the logarithmic method): a backend that goes moves its own clients only. One pass is as cheap as the
            // connection that follows is not.
            Balance::Source => {
                let score = |one: &Backend| f64::from(weight(one)) / -unit(client, one.address).ln();
                left()
                    .filter(|one| weight(one) > 0)
                    .max_by(|a, b| score(a).total_cmp(&score(b)))
                    .map(|one| one.address)
            }
        }
    }
}

/// A number between 0 and 1, neither of them, from the hash of both: the same on every machine.
fn unit(client: IpAddr, backend: SocketAddr) -> f64 {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let (client, address) = (bits(client), bits(backend.ip()));
    let words = [client >> 64, client, address >> 64, address, u128::from(backend.port())];
    let hash = words.into_iter().fold(0, |hash, word| mix(hash ^ (word as u64)));
    ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// splitmix64 (Steele, Lea and Flood 2014).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, net::Ipv4Addr};

    use super::*;

    fn backends(weights: &[u16]) -> Vec<Backend> {
        let address = |n: usize| SocketAddr::from(([10, 0, 0, n as u8 + 1], 80));
        weights.iter().enumerate().map(|(n, &weight)| Backend { address: address(n), weight }).collect()
    }

    fn counts(choice: &Choice, clients: u32) -> HashMap<SocketAddr, u32> {
        let mut counts = HashMap::new();
        let mut rng = rand::rng();
        for n in 0..clients {
            let client = Ipv4Addr::from_bits(0x0a00_0000 + n).into();
            *counts.entry(choice.pick(client, &[], &mut rng).unwrap()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn weights_are_parts_of_the_clients_whatever_the_balance() {
        for balance in [Balance::Random, Balance::Source] {
            let choice = Choice::new(backends(&[1, 3, 0]), balance);
            let counts = counts(&choice, 40_000);
            let part = |n: usize| counts.get(&choice.backends[n].address).copied().unwrap_or_default();
            assert!((9_000..11_000).contains(&part(0)), "{balance:?}: {counts:?}");
            assert!((29_000..31_000).contains(&part(1)) && part(2) == 0, "{balance:?}: {counts:?}");
        }
    }

    #[test]
    fn a_backend_that_goes_moves_its_own_clients_only() {
        let before = Choice::new(backends(&[1; 10]), Balance::Source);
        let gone = before.backends[4].address;
        let rest = before.backends.iter().copied().filter(|one| one.address != gone).collect();
        let after = Choice::new(rest, Balance::Source);
        for n in 0..2_000 {
            let client = Ipv4Addr::from_bits(0xc000_0200 + n).into();
            let pick = |choice: &Choice| choice.pick(client, &[], &mut rand::rng()).unwrap();
            if pick(&before) != gone {
                assert_eq!(pick(&before), pick(&after));
            }
        }
    }

    #[test]
    fn what_was_tried_is_not_tried_again_and_weights_of_zero_are_better_than_nothing() {
        let client = Ipv4Addr::LOCALHOST.into();
        for balance in [Balance::Random, Balance::Source] {
            let choice = Choice::new(backends(&[1, 0]), balance);
            let first = choice.pick(client, &[], &mut rand::rng()).unwrap();
            assert_eq!(first, choice.backends[0].address);
            let second = choice.pick(client, &[first], &mut rand::rng()).unwrap();
            assert_eq!(second, choice.backends[1].address);
            assert_eq!(choice.pick(client, &[first, second], &mut rand::rng()), None);
        }
    }
}
