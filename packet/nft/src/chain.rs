//! Chains: lists of rules, called by the kernel at a hook (base chains) or by other chains (regular ones).

use std::fmt;

use crate::Family;

/// Usual priorities: `linux/netfilter_ipv4.h`, named as nft(8) names them. Lower runs earlier.
pub mod priority {
    /// Before connection tracking: the place of `notrack`.
    pub const RAW: i32 = -300;
    /// Between connection tracking and destination NAT.
    pub const MANGLE: i32 = -150;
    /// Where destinations are rewritten (prerouting, output).
    pub const DSTNAT: i32 = -100;
    /// Where packets are let through or not.
    pub const FILTER: i32 = 0;
    /// Where sources are rewritten (postrouting, input).
    pub const SRCNAT: i32 = 100;
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Sees every packet.
    Filter,
    /// Sees only the first packet of each connection; the kernel applies the result to the others.
    Nat,
    /// As filter at the output hook, and routes anew when it changed what routing depends on.
    Route,
}

impl ChainKind {
    /// The kernel's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }

    /// Reads the kernel's word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Filter, Self::Nat, Self::Route].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Where in the kernel a base chain is called: `enum nf_inet_hooks`.
///
/// The numbers are those of inet, ip, ip6 and bridge; netdev and arp have others, and are only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Hook {
    /// As a packet comes in, before routing.
    Prerouting = 0,
    /// To a local socket.
    Input = 1,
    /// From one interface to another.
    Forward = 2,
    /// From a local socket.
    Output = 3,
    /// As a packet goes out, after routing.
    Postrouting = 4,
    /// Right off the device (inet and netdev).
    Ingress = 5,
}

impl Hook {
    /// All of them, by number.
    pub const ALL: [Self; 6] =
        [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting, Self::Ingress];

    /// The word nft uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Ingress => "ingress",
        }
    }

    /// The hook with the kernel's number in a family; `None` for one that has no name here.
    pub fn from_number(family: Family, number: u32) -> Option<Self> {
        match (family, number) {
            // NF_NETDEV_INGRESS; NF_ARP_IN and NF_ARP_OUT.
            (Family::Netdev, 0) => Some(Self::Ingress),
            (Family::Arp, 0) => Some(Self::Input),
            (Family::Arp, 1) => Some(Self::Output),
            (Family::Netdev | Family::Arp, _) => None,
            _ => Self::ALL.into_iter().find(|hook| *hook as u32 == number),
        }
    }
}

/// What happens to a packet that reaches the end of a base chain. Numbers: `NF_ACCEPT` and `NF_DROP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Policy {
    /// Goes on.
    Accept = 1,
    /// Is thrown away.
    Drop = 0,
}

impl Policy {
    /// The word nft uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        }
    }
}

/// How the kernel calls a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseChain {
    /// What it may do.
    pub kind: ChainKind,
    /// Where.
    pub hook: Hook,
    /// In which order among the chains of that hook, see [`priority`].
    pub priority: i32,
    /// What happens at its end.
    pub policy: Policy,
}

/// A chain: a list of rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Unique in its table, at most 255 bytes.
    pub name: String,
    /// `None` for a chain that only other chains call.
    pub base: Option<BaseChain>,
    /// Shown by `nft list`; at most 127 bytes.
    pub comment: Option<String>,
}

impl Chain {
    /// A chain that other chains jump or go to.
    pub fn regular(name: impl Into<String>) -> Self {
        Self { name: name.into(), base: None, comment: None }
    }

    /// A chain the kernel calls; what reaches its end is accepted.
    pub fn base(name: impl Into<String>, kind: ChainKind, hook: Hook, priority: i32) -> Self {
        let base = BaseChain { kind, hook, priority, policy: Policy::Accept };
        Self { name: name.into(), base: Some(base), comment: None }
    }

    /// With this policy; nothing changes on a regular chain, which has none.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        if let Some(base) = &mut self.base {
            base.policy = policy;
        }
        self
    }

    /// With this comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}
