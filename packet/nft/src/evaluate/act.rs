//! Expressions that translate and refuse. What they may stand in is what the kernel checks when a rule is loaded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    EvaluateError, What,
    packet::protocol,
    rule::{End, Run},
};
use crate::{ChainKind, Family, Hook, Masquerade, Nat, NatKind, Redirect, Register, Reject, Verdict};

impl Run<'_, '_> {
    pub(super) fn nat(&mut self, one: &Nat) -> Result<Option<End>, EvaluateError> {
        self.must_be_nat(match one.kind {
            NatKind::Source => &[Hook::Postrouting, Hook::Input],
            NatKind::Destination => &[Hook::Prerouting, Hook::Output],
        })?;
        let ipv4 = self.walk.packet.is_ipv4();
        // In the inet family packets of the other one are left alone (`nft_nat_inet_eval`).
        if one.family != Family::Inet && (one.family == Family::Ip) != ipv4 {
            return Ok(None);
        }
        if one.address_last.is_some() || one.port_last.is_some() || one.flags.prefix {
            return Err(self.unsupported("nat to a range or prefix"));
        }
        let from = self.walk.side(one.kind);
        let address = match one.address {
            Some(register) => self.address(register, ipv4)?,
            None => from.ip(),
        };
        let port = self.port(one.port, from)?;
        self.decide(one.kind, SocketAddr::new(address, port), false);
        Ok(Some(End::Verdict(Verdict::Accept)))
    }

    pub(super) fn masquerade(&mut self, one: &Masquerade) -> Result<Option<End>, EvaluateError> {
        self.must_be_nat(&[Hook::Postrouting])?;
        if one.port_last.is_some() {
            return Err(self.unsupported("masquerade to a range of ports"));
        }
        let from = self.walk.side(NatKind::Source);
        let Some(address) = self.walk.way_source else {
            return Err(EvaluateError::Unknown {
                what: "the address to masquerade with".to_owned(),
                missing: "routes",
            });
        };
        let port = self.port(one.port, from)?;
        self.decide(NatKind::Source, SocketAddr::new(address, port), true);
        Ok(Some(End::Verdict(Verdict::Accept)))
    }

    pub(super) fn redirect(&mut self, one: &Redirect) -> Result<Option<End>, EvaluateError> {
        self.must_be_nat(&[Hook::Prerouting, Hook::Output])?;
        if one.port_last.is_some() {
            return Err(self.unsupported("redirect to a range of ports"));
        }
        let ipv4 = self.walk.packet.is_ipv4();
        let loopback = if ipv4 { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
        let address = match (&self.walk.packet.input, self.walk.hook) {
            (_, Hook::Output) => Some(loopback),
            (Some(interface), _) => self.walk.host.first(interface, ipv4),
            (None, _) => None,
        };
        // Without an address there the packet is dropped (`nf_nat_redirect_ipv4`).
        let Some(address) = address else { return Ok(Some(End::Verdict(Verdict::Drop))) };
        let port = self.port(one.port, self.walk.side(NatKind::Destination))?;
        self.decide(NatKind::Destination, SocketAddr::new(address, port), false);
        Ok(Some(End::Verdict(Verdict::Accept)))
    }

    pub(super) fn reject(&mut self, one: Reject) -> Result<Option<End>, EvaluateError> {
        let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output];
        if self.walk.kind == ChainKind::Nat || !hooks.contains(&self.walk.hook) {
            return Err(
                self.misplaced("reject belongs into filter chains of prerouting, input, forward, output")
            );
        }
        if one == Reject::TcpReset && self.walk.packet.protocol != protocol::TCP {
            // `nf_send_reset` answers nothing but TCP; the packet is gone all the same.
            return Ok(Some(End::Verdict(Verdict::Drop)));
        }
        Ok(Some(End::Rejected(one)))
    }

    fn must_be_nat(&self, hooks: &[Hook]) -> Result<(), EvaluateError> {
        if self.walk.kind == ChainKind::Nat && hooks.contains(&self.walk.hook) {
            return Ok(());
        }
        let names: Vec<_> = hooks.iter().map(|hook| hook.as_str()).collect();
        Err(self.misplaced(format!("it belongs into nat chains of {}", names.join(" and "))))
    }

    fn address(&self, from: Register, ipv4: bool) -> Result<IpAddr, EvaluateError> {
        let bytes = self.load(from, if ipv4 { 4 } else { 16 }, "nat")?;
        Ok(match <[u8; 16]>::try_from(bytes.as_slice()) {
            Ok(octets) => IpAddr::V6(octets.into()),
            Err(_) => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        })
    }

    fn port(&self, from: Option<Register>, unchanged: SocketAddr) -> Result<u16, EvaluateError> {
        let Some(from) = from else { return Ok(unchanged.port()) };
        let bytes = self.load(from, 2, "nat")?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn decide(&mut self, kind: NatKind, to: SocketAddr, masquerade: bool) {
        let from = self.walk.side(kind);
        if let Some(connection) = self.walk.connection.tracked_mut() {
            connection.decide(kind, to);
        }
        self.step(What::Decided { kind, from, to, masquerade });
    }
}
