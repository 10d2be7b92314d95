//! The kernel's ephemeral range.
//!
//! Ports that connect(2) and bind(0) choose from are busy at random. A pool should be elsewhere; where it is not,
//! `ip_local_reserved_ports` ([`crate::reserve`]) keeps the kernel out of it, if it may be written. Whether it is says
//! [`crate::overlap`].

use std::{fs, io, path::Path};

use portolan_model::PortRange;

/// Where Linux shows the range of the calling thread's network namespace (`ip-sysctl.rst`).
pub const PATH: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The ephemeral range in the file at `path` ([`PATH`]).
pub fn ephemeral_range(path: &Path) -> io::Result<PortRange> {
    let text = fs::read_to_string(path)?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => {
            PortRange::new(first, last).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no pair of ports"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_this_machine_can_be_read() {
        assert!(ephemeral_range(PATH.as_ref()).unwrap().count() > 0);
    }
}
