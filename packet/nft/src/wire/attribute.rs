//! Attribute numbers of nf_tables: one module for each `enum nft_*_attributes` of
//! `include/uapi/linux/netfilter/nf_tables.h` (v6.12), with the kernel's names without their `NFTA_..._` prefix.
//! [`crate::encode`] writes them, [`crate::decode`] reads them; messages and flags are one level up.

/// `enum nft_list_attributes`: an item of a list of expressions, elements or fields.
pub(crate) const LIST_ELEM: u16 = 1;

/// `enum nft_table_attributes`.
pub(crate) mod table {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const FLAGS: u16 = 2;
    pub(crate) const USERDATA: u16 = 6;
}

/// `enum nft_chain_attributes`.
pub(crate) mod chain {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const HOOK: u16 = 4;
    pub(crate) const POLICY: u16 = 5;
    pub(crate) const TYPE: u16 = 7;
    pub(crate) const USERDATA: u16 = 12;
}

/// `enum nft_hook_attributes`.
pub(crate) mod hook {
    pub(crate) const HOOKNUM: u16 = 1;
    pub(crate) const PRIORITY: u16 = 2;
}

/// `enum nft_rule_attributes`.
pub(crate) mod rule {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
    pub(crate) const HANDLE: u16 = 3;
    pub(crate) const EXPRESSIONS: u16 = 4;
    pub(crate) const POSITION: u16 = 6;
    pub(crate) const USERDATA: u16 = 7;
}

/// `enum nft_set_attributes`.
pub(crate) mod set {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const KEY_TYPE: u16 = 4;
    pub(crate) const KEY_LEN: u16 = 5;
    pub(crate) const DATA_TYPE: u16 = 6;
    pub(crate) const DATA_LEN: u16 = 7;
    pub(crate) const DESC: u16 = 9;
    pub(crate) const ID: u16 = 10;
    pub(crate) const TIMEOUT: u16 = 11;
    pub(crate) const USERDATA: u16 = 13;
    pub(crate) const EXPR: u16 = 17;
}

/// `enum nft_set_desc_attributes`.
pub(crate) mod desc {
    pub(crate) const SIZE: u16 = 1;
    pub(crate) const CONCAT: u16 = 2;
}

/// `enum nft_set_field_attributes`.
pub(crate) mod field {
    pub(crate) const LEN: u16 = 1;
}

/// `enum nft_set_elem_list_attributes`.
pub(crate) mod list {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const SET: u16 = 2;
    pub(crate) const ELEMENTS: u16 = 3;
}

/// `enum nft_set_elem_attributes`.
pub(crate) mod elem {
    pub(crate) const KEY: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const TIMEOUT: u16 = 4;
    pub(crate) const EXPIRATION: u16 = 5;
    pub(crate) const USERDATA: u16 = 6;
    pub(crate) const EXPR: u16 = 7;
    pub(crate) const KEY_END: u16 = 10;
}

/// `enum nft_data_attributes`.
pub(crate) mod data {
    pub(crate) const VALUE: u16 = 1;
    pub(crate) const VERDICT: u16 = 2;
}

/// `enum nft_verdict_attributes`.
pub(crate) mod verdict {
    pub(crate) const CODE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
}

/// `enum nft_trace_attributes`.
pub(crate) mod trace {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
    pub(crate) const RULE_HANDLE: u16 = 3;
    pub(crate) const TYPE: u16 = 4;
    pub(crate) const VERDICT: u16 = 5;
    pub(crate) const ID: u16 = 6;
    pub(crate) const NETWORK_HEADER: u16 = 8;
    pub(crate) const TRANSPORT_HEADER: u16 = 9;
    pub(crate) const MARK: u16 = 14;
    pub(crate) const POLICY: u16 = 16;
}

/// `enum nft_expr_attributes`.
pub(crate) mod expr {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DATA: u16 = 2;
}

/// `enum nft_gen_attributes`.
pub(crate) mod generation {
    pub(crate) const ID: u16 = 1;
}

/// `enum nft_payload_attributes`.
pub(crate) mod payload {
    pub(crate) const DREG: u16 = 1;
    pub(crate) const BASE: u16 = 2;
    pub(crate) const OFFSET: u16 = 3;
    pub(crate) const LEN: u16 = 4;
}

/// `enum nft_meta_attributes`.
pub(crate) mod meta {
    pub(crate) const DREG: u16 = 1;
    pub(crate) const KEY: u16 = 2;
    pub(crate) const SREG: u16 = 3;
}

/// `enum nft_ct_attributes`.
pub(crate) mod ct {
    pub(crate) const DREG: u16 = 1;
    pub(crate) const KEY: u16 = 2;
    pub(crate) const DIRECTION: u16 = 3;
    pub(crate) const SREG: u16 = 4;
}

/// `enum nft_fib_attributes`.
pub(crate) mod fib {
    pub(crate) const DREG: u16 = 1;
    pub(crate) const RESULT: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
}

/// `enum nft_cmp_attributes`.
pub(crate) mod cmp {
    pub(crate) const SREG: u16 = 1;
    pub(crate) const OP: u16 = 2;
    pub(crate) const DATA: u16 = 3;
}

/// `enum nft_range_attributes`.
pub(crate) mod range {
    pub(crate) const SREG: u16 = 1;
    pub(crate) const OP: u16 = 2;
    pub(crate) const FROM_DATA: u16 = 3;
    pub(crate) const TO_DATA: u16 = 4;
}

/// `enum nft_bitwise_attributes`.
pub(crate) mod bitwise {
    pub(crate) const SREG: u16 = 1;
    pub(crate) const DREG: u16 = 2;
    pub(crate) const LEN: u16 = 3;
    pub(crate) const MASK: u16 = 4;
    pub(crate) const XOR: u16 = 5;
    pub(crate) const OP: u16 = 6;
}

/// `enum nft_byteorder_attributes`.
pub(crate) mod byteorder {
    pub(crate) const SREG: u16 = 1;
    pub(crate) const DREG: u16 = 2;
    pub(crate) const OP: u16 = 3;
    pub(crate) const LEN: u16 = 4;
    pub(crate) const SIZE: u16 = 5;
}

/// `enum nft_ng_attributes`.
pub(crate) mod numgen {
    pub(crate) const DREG: u16 = 1;
    pub(crate) const MODULUS: u16 = 2;
    pub(crate) const TYPE: u16 = 3;
    pub(crate) const OFFSET: u16 = 4;
}

/// `enum nft_hash_attributes`.
pub(crate) mod hash {
    pub(crate) const SREG: u16 = 1;
    pub(crate) const DREG: u16 = 2;
    pub(crate) const LEN: u16 = 3;
    pub(crate) const MODULUS: u16 = 4;
    pub(crate) const SEED: u16 = 5;
    pub(crate) const OFFSET: u16 = 6;
    pub(crate) const TYPE: u16 = 7;
}

/// `enum nft_lookup_attributes`.
pub(crate) mod lookup {
    pub(crate) const SET: u16 = 1;
    pub(crate) const SREG: u16 = 2;
    pub(crate) const DREG: u16 = 3;
    pub(crate) const FLAGS: u16 = 5;
}

/// `enum nft_dynset_attributes`.
pub(crate) mod dynset {
    pub(crate) const SET_NAME: u16 = 1;
    pub(crate) const OP: u16 = 3;
    pub(crate) const SREG_KEY: u16 = 4;
    pub(crate) const SREG_DATA: u16 = 5;
    pub(crate) const TIMEOUT: u16 = 6;
    pub(crate) const EXPR: u16 = 7;
    pub(crate) const FLAGS: u16 = 9;
    pub(crate) const EXPRESSIONS: u16 = 10;
}

/// `enum nft_immediate_attributes`.
pub(crate) mod immediate {
    pub(crate) const DREG: u16 = 1;
    pub(crate) const DATA: u16 = 2;
}

/// `enum nft_nat_attributes`.
pub(crate) mod nat {
    pub(crate) const TYPE: u16 = 1;
    pub(crate) const FAMILY: u16 = 2;
    pub(crate) const REG_ADDR_MIN: u16 = 3;
    pub(crate) const REG_ADDR_MAX: u16 = 4;
    pub(crate) const REG_PROTO_MIN: u16 = 5;
    pub(crate) const REG_PROTO_MAX: u16 = 6;
    pub(crate) const FLAGS: u16 = 7;
}

/// `enum nft_masq_attributes`.
pub(crate) mod masq {
    pub(crate) const FLAGS: u16 = 1;
    pub(crate) const REG_PROTO_MIN: u16 = 2;
    pub(crate) const REG_PROTO_MAX: u16 = 3;
}

/// `enum nft_redir_attributes`.
pub(crate) mod redir {
    pub(crate) const REG_PROTO_MIN: u16 = 1;
    pub(crate) const REG_PROTO_MAX: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
}

/// `enum nft_counter_attributes`.
pub(crate) mod counter {
    pub(crate) const BYTES: u16 = 1;
    pub(crate) const PACKETS: u16 = 2;
}

/// `enum nft_limit_attributes`.
pub(crate) mod limit {
    pub(crate) const RATE: u16 = 1;
    pub(crate) const UNIT: u16 = 2;
    pub(crate) const BURST: u16 = 3;
    pub(crate) const TYPE: u16 = 4;
    pub(crate) const FLAGS: u16 = 5;
}

/// `enum nft_quota_attributes`.
pub(crate) mod quota {
    pub(crate) const BYTES: u16 = 1;
    pub(crate) const FLAGS: u16 = 2;
    pub(crate) const CONSUMED: u16 = 4;
}

/// `enum nft_connlimit_attributes`.
pub(crate) mod connlimit {
    pub(crate) const COUNT: u16 = 1;
    pub(crate) const FLAGS: u16 = 2;
}

/// `enum nft_log_attributes`.
pub(crate) mod log {
    pub(crate) const GROUP: u16 = 1;
    pub(crate) const PREFIX: u16 = 2;
    pub(crate) const SNAPLEN: u16 = 3;
    pub(crate) const LEVEL: u16 = 5;
}

/// `enum nft_reject_attributes`.
pub(crate) mod reject {
    pub(crate) const TYPE: u16 = 1;
    pub(crate) const ICMP_CODE: u16 = 2;
}
