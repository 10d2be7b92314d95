//! The kernel's language: nftables objects, expressions, transactions and dumps over netlink.
