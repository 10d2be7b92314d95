//! Expressions that read the packet, its connection and the routing table, and those that set marks.

use std::net::IpAddr;

use super::{EvaluateError, What, packet::protocol, rule::Run};
use crate::{
    Ct, CtDirection, CtKey, Data, Fib, FibFlags, FibResult, MetaKey, Payload, PayloadBase, Register,
};

/// Ethertypes: `ETH_P_IP` and `ETH_P_IPV6`.
const ETHERTYPE: [u16; 2] = [0x0800, 0x86dd];
/// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
const NFPROTO: [u8; 2] = [2, 10];

impl Run<'_, '_> {
    pub(super) fn payload(&mut self, one: &Payload) -> Result<bool, EvaluateError> {
        let bytes = match one.base {
            PayloadBase::Network => self.walk.packet.network_header(),
            PayloadBase::Transport => self.walk.packet.transport_header(),
            PayloadBase::Link | PayloadBase::Inner => {
                return Err(self.unsupported(format!("the packet's {:?} bytes", one.base)));
            }
        };
        let (from, length) = (one.offset as usize, one.length as usize);
        let checksum = match (one.base, self.walk.packet.protocol) {
            (PayloadBase::Network, _) if self.walk.packet.is_ipv4() => Some(10..12),
            (PayloadBase::Transport, protocol::TCP) => Some(16..18),
            (PayloadBase::Transport, protocol::UDP) => Some(6..8),
            (PayloadBase::Transport, protocol::SCTP) => Some(8..12),
            // Echo requests have theirs where others have the destination port, which rules do read.
            _ => None,
        };
        if checksum.is_some_and(|field| from < field.end && field.start < from + length) {
            return Err(self.unsupported("a checksum"));
        }
        // Beyond the packet's end the rule does not match (`nft_payload_eval`).
        let Some(value) = bytes.get(from..from + length) else { return Ok(false) };
        self.registers.store(one.to, value);
        Ok(true)
    }

    pub(super) fn meta(&mut self, key: MetaKey, to: Register) -> Result<bool, EvaluateError> {
        let packet = &self.walk.packet;
        let six = usize::from(!packet.is_ipv4());
        let value = match key {
            MetaKey::Length => {
                let length = packet.network_header().len() + packet.transport_header().len();
                (length as u32).to_ne_bytes().to_vec()
            }
            MetaKey::Protocol => ETHERTYPE[six].to_be_bytes().to_vec(),
            MetaKey::Mark => packet.mark.to_ne_bytes().to_vec(),
            MetaKey::NfProto => vec![NFPROTO[six]],
            MetaKey::L4Proto => vec![packet.protocol],
            // Where there is no interface, names are empty (`nft_meta_get_eval_ifname`).
            MetaKey::InputInterfaceName => name(packet.input.as_deref()),
            MetaKey::OutputInterfaceName if self.walk.leaves_unknown => {
                return Err(EvaluateError::Unknown {
                    what: "the outgoing interface".to_owned(),
                    missing: "routes",
                });
            }
            MetaKey::OutputInterfaceName => name(packet.output.as_deref()),
            // To this host: what is not broadcast, multicast or somebody else's on a shared wire.
            MetaKey::PacketType => vec![0],
            other => return Err(self.unsupported(format!("meta {}", other.as_str()))),
        };
        self.registers.store(to, &value);
        Ok(true)
    }

    pub(super) fn set_meta(&mut self, key: MetaKey, from: Register) -> Result<bool, EvaluateError> {
        match key {
            MetaKey::Mark => {
                let mark = self.number(from, "meta set mark")?;
                self.walk.packet.mark = mark;
                Ok(self.step(What::Marked(mark)))
            }
            // Tells who listens; nothing changes for the packet.
            MetaKey::Trace => Ok(true),
            other => Err(self.unsupported(format!("meta set {}", other.as_str()))),
        }
    }

    pub(super) fn ct(&mut self, one: &Ct) -> Result<bool, EvaluateError> {
        if one.key == CtKey::State {
            let state = self.walk.connection.state();
            self.registers.store(one.to, &state.to_ne_bytes());
            return Ok(true);
        }
        // A packet without a connection does not match.
        let Some(connection) = self.walk.connection.tracked() else { return Ok(false) };
        let tuple = connection.tuple(one.direction.unwrap_or(CtDirection::Original));
        let value = match one.key {
            CtKey::State => return Ok(true),
            CtKey::Direction => vec![connection.direction as u8],
            CtKey::Status => connection.status.to_ne_bytes().to_vec(),
            CtKey::Mark => connection.mark.to_ne_bytes().to_vec(),
            CtKey::L3Proto => vec![NFPROTO[usize::from(!tuple.source.is_ipv4())]],
            CtKey::Protocol => vec![tuple.protocol],
            CtKey::SourcePort => tuple.source.port().to_be_bytes().to_vec(),
            CtKey::DestinationPort => tuple.destination.port().to_be_bytes().to_vec(),
            CtKey::Zone => vec![0, 0],
            CtKey::SourceIpv4 | CtKey::SourceIpv6 => {
                let Some(value) = address(tuple.source.ip(), one.key) else { return Ok(false) };
                value
            }
            CtKey::DestinationIpv4 | CtKey::DestinationIpv6 => {
                let Some(value) = address(tuple.destination.ip(), one.key) else { return Ok(false) };
                value
            }
            other @ (CtKey::Packets | CtKey::Bytes | CtKey::Id) => {
                return Err(self.unsupported(format!("ct {}", other.as_str())));
            }
        };
        self.registers.store(one.to, &value);
        Ok(true)
    }

    pub(super) fn set_ct(&mut self, key: CtKey, from: Register) -> Result<bool, EvaluateError> {
        if key != CtKey::Mark {
            return Err(self.unsupported(format!("ct set {}", key.as_str())));
        }
        let mark = self.number(from, "ct set mark")?;
        let Some(connection) = self.walk.connection.tracked_mut() else { return Ok(true) };
        connection.mark = mark;
        Ok(self.step(What::ConnectionMarked(mark)))
    }

    pub(super) fn fib(&mut self, one: &Fib) -> Result<bool, EvaluateError> {
        let address = match one.flags {
            FibFlags::SADDR => self.walk.packet.source.ip(),
            FibFlags::DADDR => self.walk.packet.destination.ip(),
            _ => return Err(self.unsupported(format!("fib with flags {:#x}", one.flags.0))),
        };
        if one.result != FibResult::AddressType {
            return Err(self.unsupported("fib for an interface"));
        }
        let kind = self.walk.host.kind(address) as u32;
        self.registers.store(one.to, &kind.to_ne_bytes());
        Ok(true)
    }

    pub(super) fn number(&self, from: Register, who: &str) -> Result<u32, EvaluateError> {
        let bytes = self.load(from, 4, who)?;
        Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

fn name(interface: Option<&str>) -> Vec<u8> {
    Data::new().interface(interface.unwrap_or_default()).as_bytes().to_vec()
}

/// Only where the family is the one that was asked for (`nft_ct_get_eval`).
fn address(address: IpAddr, key: CtKey) -> Option<Vec<u8>> {
    match (address, key) {
        (IpAddr::V4(address), CtKey::SourceIpv4 | CtKey::DestinationIpv4) => Some(address.octets().to_vec()),
        (IpAddr::V6(address), CtKey::SourceIpv6 | CtKey::DestinationIpv6) => Some(address.octets().to_vec()),
        _ => None,
    }
}
