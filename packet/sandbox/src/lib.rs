//! The network namespace of an instance: veth, addresses, routes, forwarding.
