//! The doors to the kernel: netlink sockets, links and routes, conntrack, sock_diag, namespaces. The only crate with unsafe.
