//! The numbers of the kernel's interface: message types and flags here, attributes in [`attribute`].
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h` and `nfnetlink.h` (v6.12). Numbers in attributes are
//! big-endian unless said otherwise.

pub(crate) mod attribute;

/// `NFNL_SUBSYS_NFTABLES`: the high byte of every message type of nf_tables.
pub(crate) const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`.
pub(crate) const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
pub(crate) const BATCH_END: u16 = 0x11;
/// Bytes of `struct nfgenmsg`, the fixed part of every message: family, version 0, and a 16-bit resource id.
pub(crate) const FIXED: usize = 4;

/// `enum nf_tables_msg_types`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    DeleteChain = 5,
    NewRule = 6,
    GetRule = 7,
    DeleteRule = 8,
    NewSet = 9,
    GetSet = 10,
    DeleteSet = 11,
    NewElement = 12,
    GetElement = 13,
    DeleteElement = 14,
    GetGeneration = 16,
    // Since 6.3; older kernels answer EINVAL.
    DestroyTable = 26,
    DestroyChain = 27,
    DestroyRule = 28,
    DestroySet = 29,
    DestroyElement = 30,
}

impl Kind {
    /// `nlmsg_type`.
    pub(crate) const fn message(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// `enum nft_table_flags`: its base chains are not attached.
pub(crate) const TABLE_DORMANT: u32 = 1;

/// `enum nft_set_flags`.
pub(crate) mod set_flag {
    pub(crate) const CONSTANT: u32 = 0x2;
    pub(crate) const INTERVAL: u32 = 0x4;
    pub(crate) const MAP: u32 = 0x8;
    pub(crate) const TIMEOUT: u32 = 0x10;
    pub(crate) const EVAL: u32 = 0x20;
    pub(crate) const CONCAT: u32 = 0x80;
}

/// `NFT_SET_ELEM_INTERVAL_END`: the key after an interval's last.
pub(crate) const ELEMENT_INTERVAL_END: u32 = 1;

/// `NFT_DATA_VERDICT`: the data type of verdict maps.
pub(crate) const DATA_VERDICT: u32 = 0xffff_ff00;

/// `NFT_REG_VERDICT`.
pub(crate) const REGISTER_VERDICT: u32 = 0;

/// `NFT_LOOKUP_F_INV`, `NFT_LIMIT_F_INV`, `NFT_QUOTA_F_INV`, `NFT_CONNLIMIT_F_INV`: all the same bit.
pub(crate) const INVERT: u32 = 1;

/// `NFT_DYNSET_F_EXPR`: there are several expressions.
pub(crate) const DYNSET_EXPRESSIONS: u32 = 2;

/// `NF_NAT_RANGE_*` of `linux/netfilter/nf_nat.h`.
pub(crate) mod nat_flag {
    pub(crate) const PORT: u32 = 1 << 1;
    pub(crate) const RANDOM: u32 = 1 << 2;
    pub(crate) const PERSISTENT: u32 = 1 << 3;
    pub(crate) const FULLY_RANDOM: u32 = 1 << 4;
    pub(crate) const PREFIX: u32 = 1 << 6;
}
